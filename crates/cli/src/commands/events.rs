//! `holdfast events`: what happened, in order, none twice, also when the node that tells us dies.

use clap::Args;
use holdfast_proto::{RemoteError, v1};
use holdfast_types::{Code, ContainerName};

use super::Context;
use crate::error::CliError;
use crate::output::{Format, json_line, line};
use crate::view::EventView;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  holdfast events --follow\n  holdfast events --container web -o json    # one object a line"
)]
pub(crate) struct Events {
    /// Go on with events as they happen
    #[arg(short, long)]
    follow: bool,
    /// Only events after this revision
    #[arg(long, default_value_t = 0, value_name = "REVISION")]
    after: u64,
    /// Only events of this container
    #[arg(long, value_name = "NAME")]
    container: Option<ContainerName>,
}

/// Where a listener is in the sequence of events.
#[derive(Debug, PartialEq, Eq)]
struct Position {
    after: u64,
    last: Option<(u64, u32)>,
}

impl Events {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let mut position = Position { after: self.after, last: None };
        loop {
            match self.watch(context, &mut position).await {
                Ok(()) if self.follow => {}
                Err(CliError::Remote(e)) if self.follow && e.code() == Code::Unavailable => {}
                other => return other,
            }
            // The stream broke. The next one is opened with the session's own patience; should it
            // break at once each time, this keeps us from hurrying.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            context.session.nodes().await?;
        }
    }

    /// Prints events until the stream ends.
    async fn watch(&self, context: &Context, position: &mut Position) -> Result<(), CliError> {
        let container = self.container.as_ref();
        let mut stream =
            context.session.watch(position.resume_after(), self.follow, container).await?;
        while let Some(event) = stream.message().await.map_err(RemoteError::from)? {
            if position.advance(&event) {
                let view = EventView::from(event);
                match context.format {
                    Format::Table => line(&view.line())?,
                    Format::Json => json_line(&view)?,
                }
            }
        }
        Ok(())
    }
}

impl Position {
    /// Events of one revision may have come in part: they are asked for again.
    fn resume_after(&self) -> u64 {
        self.last.map_or(self.after, |(revision, _)| revision.saturating_sub(1).max(self.after))
    }

    /// Whether the event is new; if so it is the last one from now on.
    fn advance(&mut self, event: &v1::Event) -> bool {
        let at = (event.revision, event.index);
        let new = event.revision > self.after && self.last.is_none_or(|last| at > last);
        if new {
            self.last = Some(at);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, index: u32) -> v1::Event {
        v1::Event { revision, index, ..Default::default() }
    }

    #[test]
    fn a_revision_that_came_in_part_is_completed_without_repeats() {
        let mut position = Position { after: 3, last: None };
        assert!(!position.advance(&event(3, 0)));
        assert!(position.advance(&event(5, 0)));
        assert_eq!(position.resume_after(), 4);
        assert!(!position.advance(&event(5, 0)));
        assert!(position.advance(&event(5, 1)));
        assert!(position.advance(&event(9, 0)));
    }
}

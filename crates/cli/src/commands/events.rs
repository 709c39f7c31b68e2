//! `holdfast events`: what happened, in order, none twice, also when the node that tells us dies.

use std::time::Duration;

use clap::Args;
use holdfast_proto::{RemoteError, v1};
use holdfast_types::{Code, ContainerName};
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use super::Context;
use crate::error::CliError;
use crate::output::{Format, json_line, line};
use crate::view::EventView;

/// The kind of an event that only says how far the stream is complete.
const PROGRESS: &str = "progress";

/// Between two streams, so that nodes which end them at once are not hurried.
const PAUSE: Duration = Duration::from_millis(200);

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
        let mut broken = None;
        loop {
            let error = match self.open(context, &position).await {
                Ok(stream) => {
                    broken = None;
                    match self.print(context, stream, &mut position).await {
                        Ok(()) if !self.follow => return context.say_freshness(),
                        Ok(()) => None,
                        Err(error) => Some(error),
                    }
                }
                // Once it has begun, nobody there for a moment is no reason to end.
                Err(error) if broken.is_none() => return Err(error),
                Err(error) => Some(error),
            };
            if let Some(error) = error.filter(|error| !self.may_go_on(error)) {
                return Err(error);
            }
            // The stream broke, or its node has no news. Another may go on where it was.
            let since = *broken.get_or_insert_with(Instant::now);
            if since.elapsed() > context.session.timeout() {
                return Err(no_more(since));
            }
            context.session.turn_away();
            sleep(PAUSE).await;
        }
    }

    /// Whether another node, or the same one later, may well go on.
    fn may_go_on(&self, error: &CliError) -> bool {
        let CliError::Remote(error) = error else { return false };
        let passing = matches!(error.code(), Code::Unavailable | Code::NoQuorum | Code::Timeout);
        self.follow && passing
    }

    async fn open(
        &self,
        context: &Context,
        position: &Position,
    ) -> Result<Streaming<v1::Event>, CliError> {
        let (after, container) = (position.resume_after(), self.container.as_ref());
        Ok(context.session.watch(after, self.follow, container).await?)
    }

    /// Prints events until the stream ends.
    async fn print(
        &self,
        context: &Context,
        mut stream: Streaming<v1::Event>,
        position: &mut Position,
    ) -> Result<(), CliError> {
        while let Some(event) = stream.message().await.map_err(RemoteError::from)? {
            if event.kind == PROGRESS {
                position.complete(event.revision);
            } else if position.advance(&event) {
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

fn no_more(since: Instant) -> CliError {
    let message =
        format!("no node has gone on with the events for {} s", since.elapsed().as_secs());
    CliError::Remote(RemoteError { code: Code::Unavailable, message, leader: None })
}

impl Position {
    /// Events of one revision may have come in part: they are asked for again.
    fn resume_after(&self) -> u64 {
        self.last.map_or(self.after, |(revision, _)| revision.saturating_sub(1).max(self.after))
    }

    /// Everything up to that revision has come.
    fn complete(&mut self, revision: u64) {
        self.after = self.after.max(revision);
        self.last = self.last.filter(|(last, _)| *last > self.after);
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

    /// After a quiet time it goes on from where the stream was complete, not from its last event: that
    /// may be kept no longer.
    #[test]
    fn a_quiet_stream_is_resumed_where_it_was_complete() {
        let mut position = Position { after: 0, last: None };
        assert!(position.advance(&event(5, 1)));
        position.complete(400);
        assert_eq!(position.resume_after(), 400);
        assert!(!position.advance(&event(400, 0)), "it was said to be there already");
        assert!(position.advance(&event(401, 0)));
        position.complete(400);
        assert_eq!(position.resume_after(), 400);
        assert!(!position.advance(&event(401, 0)) && position.advance(&event(401, 1)));
    }
}

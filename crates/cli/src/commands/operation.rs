//! `holdfast operation`: work that goes on after its command returned.

use std::time::Duration;

use clap::Subcommand;
use holdfast_types::OperationId;

use super::Context;
use super::container::follow;
use crate::error::CliError;
use crate::values::DurationArg;
use crate::view::OperationView;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show an operation, now or when it has ended
    Show {
        /// The operation's id
        id: OperationId,
        /// Wait this long for it to end; fail if it fails or does not end
        #[arg(long, value_name = "DURATION")]
        wait: Option<DurationArg>,
    },
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let Self::Show { id, wait } = self;
        let mut operation = context.session.operation(&id.to_string(), Duration::ZERO).await?;
        if let Some(limit) = wait {
            operation = follow(context, operation, limit.0).await?;
        }
        let view = OperationView::from(operation);
        context.show(&view, || view.details())
    }
}

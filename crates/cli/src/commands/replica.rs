//! `holdfast sync`, `diverged`, `takeover`: copies of the data, and what a person decides of them.

use std::time::Duration;

use clap::{Args, Subcommand};
use holdfast_types::ContainerName;

use super::Context;
use super::container::Condition;
use crate::error::CliError;
use crate::output::show;
use crate::view::{ContainerView, DivergedView, ReplicaView};

const SYNC_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  holdfast sync web --timeout 5s && echo 'safe to pull the plug'"
)]
pub(crate) struct Sync {
    /// The container's name
    name: ContainerName,
}

impl Sync {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let limit = context.timeout.unwrap_or(SYNC_TIMEOUT);
        let view = ReplicaView::from(context.session.sync(&self.name, limit).await?);
        show(context.format, &view, || view.sentence(self.name.as_str()))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum DivergedCommand {
    /// List the diverged copies
    Ls,
}

impl DivergedCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let Self::Ls = self;
        let diverged = context.session.diverged().await?;
        let views: Vec<_> = diverged.into_iter().map(DivergedView::from).collect();
        context.show(&views, || DivergedView::table(&views))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum TakeoverCommand {
    /// Start it from the best copy there is, accepting the loss that `show` states
    Approve {
        /// The container's name
        name: ContainerName,
        #[command(flatten)]
        condition: Condition,
    },
    /// Keep waiting for a node with a better copy
    Refuse {
        /// The container's name
        name: ContainerName,
        #[command(flatten)]
        condition: Condition,
    },
}

impl TakeoverCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let (name, condition, approve) = match self {
            Self::Approve { name, condition } => (name, condition, true),
            Self::Refuse { name, condition } => (name, condition, false),
        };
        let decide = context.session.decide_takeover(&name, approve, condition.version());
        let container = decide.await?;
        let view = ContainerView::from(container);
        show(context.format, &view, || view.sentence())
    }
}

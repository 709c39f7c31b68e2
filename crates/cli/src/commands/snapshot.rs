//! `holdfast snapshot`, `clone`: points of a container's disk that are kept by name.

use clap::{Args, Subcommand};
use holdfast_types::{ContainerName, KeepRules, NodeName, SnapshotName};

use super::Context;
use super::container::{Condition, Waiting, finish};
use crate::error::CliError;
use crate::output::show;
use crate::view::{ContainerView, OperationView, ScheduleView, SnapshotView};

const EXAMPLES: &str = "\
Examples:
  holdfast snapshot create web before-upgrade
  holdfast stop web && holdfast snapshot restore web before-upgrade && holdfast start web
  holdfast snapshot schedule web --keep hourly=24,daily=7";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Take a snapshot, while the container runs or not
    Create(Point),
    /// List the snapshots, of one container or of all
    Ls {
        /// The container's name
        container: Option<ContainerName>,
    },
    /// Let a stopped container begin anew as a snapshot; what it was is kept as one more
    Restore(Point),
    /// Remove a snapshot
    Rm {
        /// The container's name
        container: ContainerName,
        /// The snapshot's name
        name: SnapshotName,
        #[command(flatten)]
        condition: Condition,
    },
    /// Have snapshots taken by the clock, show how, or end it
    Schedule(Schedule),
}

/// A snapshot, and how to wait for what is done with it.
#[derive(Debug, Args)]
pub(crate) struct Point {
    /// The container's name
    container: ContainerName,
    /// The snapshot's name: a-z, 0-9 and '-'
    name: SnapshotName,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct Schedule {
    /// The container's name
    container: ContainerName,
    /// Of how many periods (minutely, hourly, daily, weekly, monthly; UTC) the newest is kept
    #[arg(long, value_name = "PERIOD=N,...")]
    keep: Option<KeepRules>,
    /// Take no more; what was taken stays until it is removed
    #[arg(long, conflicts_with = "keep")]
    off: bool,
    #[command(flatten)]
    condition: Condition,
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Create(point) => point.create(context).await,
            Self::Ls { container } => list(context, container.as_ref()).await,
            Self::Restore(point) => point.restore(context).await,
            Self::Rm { container, name, condition } => {
                let expect = condition.version();
                context.session.remove_snapshot(&container, &name, expect).await?;
                let removed = serde_json::json!({ "container": container, "removed": name });
                show(context.format, &removed, || format!("{name} of {container}: removed"))
            }
            Self::Schedule(schedule) => schedule.run(context).await,
        }
    }
}

async fn list(context: &Context, container: Option<&ContainerName>) -> Result<(), CliError> {
    let found = context.session.snapshots(container).await?;
    let views: Vec<_> = found.snapshots.into_iter().map(SnapshotView::from).collect();
    context.show(&views, || SnapshotView::table(&views))
}

impl Point {
    async fn create(self, context: &Context) -> Result<(), CliError> {
        let Self { container, name, condition, waiting } = &self;
        let expect = condition.version();
        let operation = context.session.create_snapshot(container, name, expect).await?;
        let done = finish(context, operation, *waiting).await?.map(OperationView::from);
        let how = if waiting.no_wait { "is being taken" } else { "taken" };
        show(context.format, &done, || format!("{name} of {container}: {how}"))
    }

    async fn restore(self, context: &Context) -> Result<(), CliError> {
        let Self { container, name, condition, waiting } = &self;
        let expect = condition.version();
        let (operation, before) = context.session.restore(container, name, expect).await?;
        let done = finish(context, operation, *waiting).await?.map(OperationView::from);
        let how = if waiting.no_wait { "is being restored to" } else { "is as in" };
        show(context.format, &done, || {
            format!("{container} {how} {name}; what it was is kept as {before}")
        })
    }
}

impl Schedule {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        let name = &self.container;
        let schedule = match self.off || self.keep.is_some() {
            true => {
                let expect = self.condition.version();
                context.session.set_schedule(name, self.keep.as_ref(), expect).await?
            }
            false => context.session.snapshots(Some(name)).await?.schedules.pop(),
        };
        let view = ScheduleView::new(name, schedule);
        show(context.format, &view, || view.sentence())
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  holdfast clone web --snapshot before-upgrade web2")]
pub(crate) struct Clone {
    /// The container that there is
    container: ContainerName,
    /// The snapshot of it that the clone begins as
    #[arg(long, value_name = "NAME")]
    snapshot: SnapshotName,
    /// The new container's name
    name: ContainerName,
    /// The node to place it on, which must hold the snapshot [default: the best one]
    #[arg(long)]
    node: Option<NodeName>,
    /// Create it, but do not start it
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    waiting: Waiting,
}

impl Clone {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let from = (&self.container, &self.snapshot);
        let node = self.node.as_ref();
        let expect = self.condition.version();
        let made = context.session.clone_container(from, &self.name, self.stopped, node, expect);
        let (accepted, operation) = made.await?;
        finish(context, operation, self.waiting).await?;
        if self.waiting.no_wait {
            let view = ContainerView::from(accepted);
            return show(context.format, &view, || view.sentence());
        }
        context.print_container(&self.name).await
    }
}

//! `holdfast ls`, `show`, `start`, `stop`, `rm`: containers that are there already.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::time::Duration;

use clap::Args;
use holdfast_proto::v1;
use holdfast_types::{ContainerName, Revision};

use super::Context;
use crate::error::CliError;
use crate::output::show;
use crate::progress;
use crate::values::DurationArg;
use crate::view::{ContainerView, OperationView};

/// A container by name.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The container's name
    pub(crate) name: ContainerName,
}

/// How to wait for the work that a command begins.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Waiting {
    /// Return when the request is accepted, not when it is done
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to wait until it is done
    #[arg(long, default_value = "2m", value_name = "DURATION", conflicts_with = "no_wait")]
    pub(crate) wait_limit: DurationArg,
}

/// What must be so for anything to change.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Condition {
    /// Only if it is of this version, as `show` has it, or `-o json` in `revision`
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
}

impl Condition {
    pub(crate) fn version(self) -> Option<Revision> {
        self.if_version.map(Revision)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  holdfast stop web && holdfast start web")]
pub(crate) struct Change {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  holdfast rm web\n  holdfast rm web --force --yes    # in a script, also when it runs"
)]
pub(crate) struct Remove {
    #[command(flatten)]
    named: Named,
    /// Also when it runs
    #[arg(long)]
    force: bool,
    /// Do not ask; needed where there is no terminal
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    waiting: Waiting,
}

/// `holdfast ls`.
pub(crate) async fn list(context: &Context) -> Result<(), CliError> {
    let containers = context.session.containers().await?;
    let views: Vec<_> = containers.into_iter().map(ContainerView::from).collect();
    context.show(&views, || ContainerView::table(&views))
}

impl Named {
    pub(crate) async fn show(self, context: &Context) -> Result<(), CliError> {
        let view = ContainerView::from(context.session.container(&self.name).await?);
        context.show(&view, || view.details())
    }
}

impl Change {
    pub(crate) async fn start(self, context: &Context) -> Result<(), CliError> {
        let operation = context.session.start(&self.named.name, self.condition.version()).await?;
        finish(context, operation, self.waiting).await?;
        context.print_container(&self.named.name).await
    }

    pub(crate) async fn stop(self, context: &Context) -> Result<(), CliError> {
        let operation = context.session.stop(&self.named.name, self.condition.version()).await?;
        finish(context, operation, self.waiting).await?;
        context.print_container(&self.named.name).await
    }
}

impl Remove {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let name = &self.named.name;
        if !self.yes {
            confirm(name)?;
        }
        let expect = self.condition.version();
        let operation = context.session.delete(name, self.force, expect).await?;
        let done = finish(context, operation, self.waiting).await?;
        let view = done.map(OperationView::from);
        show(context.format, &view, || format!("{name}: {}", deleted(self.waiting)))
    }
}

fn deleted(waiting: Waiting) -> &'static str {
    if waiting.no_wait { "is being deleted" } else { "deleted" }
}

impl Context {
    /// Prints a container as it is after a change.
    pub(super) async fn print_container(&self, name: &ContainerName) -> Result<(), CliError> {
        let view = ContainerView::from(self.session.container(name).await?);
        show(self.format, &view, || view.sentence())
    }
}

/// Follows the operation to its end if that is wanted; returns its last known state.
pub(super) async fn finish(
    context: &Context,
    operation: Option<v1::Operation>,
    waiting: Waiting,
) -> Result<Option<v1::Operation>, CliError> {
    match operation {
        Some(operation) if !waiting.no_wait => {
            follow(context, operation, waiting.wait_limit.0).await.map(Some)
        }
        other => Ok(other),
    }
}

/// Follows an operation with a spinner.
pub(super) async fn follow(
    context: &Context,
    operation: v1::Operation,
    limit: Duration,
) -> Result<v1::Operation, CliError> {
    let bar = progress::spinner();
    let done = context.session.follow(operation, limit, |now| progress::tell(&bar, now)).await;
    bar.finish_and_clear();
    Ok(done?)
}

fn confirm(name: &ContainerName) -> Result<(), CliError> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(CliError::Unconfirmed(name.to_string()));
    }
    let mut answer = String::new();
    let mut err = stderr().lock();
    write!(err, "Delete {name} and all its copies? [y/N] ")
        .and_then(|()| err.flush())
        .and_then(|()| stdin().read_line(&mut answer))
        .map_err(|source| CliError::Read { what: "the answer".to_owned(), source })?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::Declined(format!("deleting {name}"))),
    }
}

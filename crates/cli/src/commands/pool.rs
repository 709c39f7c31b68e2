//! `holdfast pool`: what the nodes keep volumes in.

mod change;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use holdfast_proto::v1::pool_progress::Part;
use holdfast_proto::{RemoteError, v1};
use holdfast_types::{ByteSize, Code, NodeName, PoolName};
use serde_json::json;
use tonic::Streaming;

use super::Context;
use crate::error::CliError;
use crate::output::{self, Format, one_line, show};
use crate::view::PoolView;

const EXAMPLES: &str = "\
Examples:
  holdfast pool create fast --driver lvm --device /dev/sdb --device /dev/sdc --dry-run
  holdfast pool create fast --driver lvm --device /dev/sdb --wipe /dev/sdb --node n2
  holdfast pool create fast --driver lvm --vg vg0 --thin-pool thin0";

const REPLACING: &str = "\
To replace a disk:
  holdfast pool add-device /dev/sdd
  holdfast pool evacuate-device /dev/sdb
  holdfast pool remove-device /dev/sdb";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a node's pool; again after an interruption, to finish it
    #[command(after_help = EXAMPLES)]
    Create(Box<Create>),
    /// Take disks into a pool's volume group; a pool that is to have their room is grown then
    #[command(after_help = REPLACING)]
    AddDevice(change::AddDevice),
    /// Move what is on a disk to the others of its volume group, while it is used
    #[command(after_help = REPLACING)]
    EvacuateDevice(change::OneDevice),
    /// Give up a disk on which nothing is
    #[command(after_help = REPLACING)]
    RemoveDevice(change::OneDevice),
    /// Make a pool larger, while it is used; one that is full goes on then
    Grow(change::Grow),
    /// Make a volume group of its own of disks that hold nothing of the pool
    Split(change::Split),
    /// Take another volume group, with its disks and all that is in it, into a pool's
    Merge(change::Merge),
    /// Say what is wrong with a pool, and what will be; fails if something is broken
    Check {
        #[command(flatten)]
        on: On,
    },
    /// Mend what a check finds; damaged metadata only while nothing uses the pool
    Repair(change::How),
    /// List the pools of all nodes
    Ls,
    /// Read every replica and image of a node now, and compare it with what it was
    Scrub {
        #[command(flatten)]
        on: On,
    },
    /// Show everything about a node's pool
    Show {
        #[command(flatten)]
        on: On,
    },
}

/// Which node's pool.
#[derive(Debug, Args)]
pub(crate) struct On {
    /// The node [default: the one that answers, with the local socket this machine]
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
}

impl On {
    fn name(&self) -> String {
        self.node.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The pool's name, and its volume group's unless --vg names one: a-z, 0-9 and '-'
    name: PoolName,
    /// What it is made of
    #[arg(long, value_enum)]
    driver: Driver,
    /// A whole disk or partition to make the volume group of; may be repeated
    #[arg(long = "device", value_name = "DEVICE", required_unless_present = "vg")]
    devices: Vec<PathBuf>,
    /// A volume group that is there
    #[arg(long, value_name = "GROUP", conflicts_with = "devices")]
    vg: Option<String>,
    /// A thin pool that is there, in that group
    #[arg(long, value_name = "VOLUME", requires = "vg")]
    thin_pool: Option<String>,
    /// A device of which everything may be destroyed; may be repeated
    #[arg(long, value_name = "DEVICE")]
    wipe: Vec<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    on: On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// A thin pool in an LVM volume group
    Lvm,
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::AddDevice(add) => add.run(context).await,
            Self::EvacuateDevice(from) => from.evacuate(context).await,
            Self::RemoveDevice(device) => device.remove(context).await,
            Self::Grow(grow) => grow.run(context).await,
            Self::Split(split) => split.run(context).await,
            Self::Merge(merge) => merge.run(context).await,
            Self::Check { on } => change::check(context, on.name()).await,
            Self::Repair(how) => how.repair(context).await,
            Self::Ls => {
                let pools = context.session.pools().await?;
                let views: Vec<_> = pools.into_iter().map(PoolView::from).collect();
                show(context.format, &views, || PoolView::table(&views))
            }
            Self::Show { on } => print(context, on.name()).await,
            Self::Scrub { on } => scrub(context, on.name()).await,
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        let (node, dry_run) = (self.on.name(), self.dry_run);
        let progress = context.session.create_pool(self.request()).await?;
        let plan = follow(context, progress, dry_run).await?;
        match dry_run {
            true => show(context.format, &json!({ "steps": plan }), || told(&plan)),
            false => print(context, node).await,
        }
    }

    fn request(self) -> v1::CreatePoolRequest {
        let texts = |paths: &[PathBuf]| paths.iter().map(|p| p.display().to_string()).collect();
        v1::CreatePoolRequest {
            node: self.on.name(),
            name: self.name.to_string(),
            driver: match self.driver {
                Driver::Lvm => "lvm".to_owned(),
            },
            devices: texts(&self.devices),
            wipe: texts(&self.wipe),
            vg: self.vg.unwrap_or_default(),
            thin_pool: self.thin_pool.unwrap_or_default(),
            dry_run: self.dry_run,
        }
    }
}

/// Prints a node's pool as it is now.
async fn print(context: &Context, node: String) -> Result<(), CliError> {
    let message = match node.as_str() {
        "" => "this node has no pool: holdfast pool create".to_owned(),
        node => format!("node {node} has no pool: holdfast pool create … --node {node}"),
    };
    let none = RemoteError { code: Code::NoPool, message, leader: None };
    let pool = context.session.pool(node).await?.ok_or(none)?;
    let view = PoolView::from(pool);
    show(context.format, &view, || view.details())
}

/// Says after each copy how far it is, on standard error. Rot is no failure of the command: it was
/// found.
async fn scrub(context: &Context, node: String) -> Result<(), CliError> {
    let mut progress = context.session.scrub_pool(node).await?;
    let mut whole = v1::ScrubPoolResponse::default();
    while let Some(so_far) = progress.message().await.map_err(RemoteError::from)? {
        if context.format != Format::Json {
            let line = format!("{} of {} copies\n", so_far.copies, so_far.total);
            output::error_bytes(line.as_bytes())?;
        }
        whole = so_far;
    }
    let (read, compared) = (ByteSize(whole.read_bytes), ByteSize(whole.compared_bytes));
    let fields = json!({
        "copies": whole.copies,
        "read_bytes": whole.read_bytes,
        "compared_bytes": whole.compared_bytes,
        "rotten": whole.rotten,
    });
    show(context.format, &fields, || {
        let found = match whole.rotten {
            0 => "none has rotted".to_owned(),
            n => format!("{n} have rotted and are received anew: see holdfast events"),
        };
        format!("{} copies, {read} read, {compared} of it compared: {found}", whole.copies)
    })
}

/// Shows each step on standard error as it begins, and returns the plan at the end.
async fn follow(
    context: &Context,
    mut progress: Streaming<v1::PoolProgress>,
    dry_run: bool,
) -> Result<Vec<String>, CliError> {
    let mut plan = Vec::new();
    let quiet = dry_run || context.format == Format::Json;
    let tell = |text: String| match quiet {
        true => Ok(()),
        false => output::error_bytes(format!("{}\n", one_line(&text)).as_bytes()),
    };
    while let Some(message) = progress.message().await.map_err(RemoteError::from)? {
        match message.part {
            Some(Part::Plan(told)) => plan = told.steps,
            Some(Part::Began(at)) => {
                let step = usize::try_from(at).ok().and_then(|at| plan.get(at));
                let step = step.map_or("another step", String::as_str);
                tell(format!("[{}/{}] {step}", at + 1, plan.len()))?;
            }
            Some(Part::Said(text)) => tell(format!("      {text}"))?,
            Some(Part::Done(_)) | None => {}
        }
    }
    Ok(plan)
}

/// A plan for a person.
fn told(plan: &[String]) -> String {
    if plan.is_empty() {
        return "nothing is left to be done".to_owned();
    }
    let steps = plan.iter().enumerate();
    let lines: Vec<_> =
        steps.map(|(at, step)| format!("{:>3}. {}", at + 1, one_line(step))).collect();
    lines.join("\n")
}

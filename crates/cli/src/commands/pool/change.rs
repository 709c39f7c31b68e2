//! `holdfast pool add-device`, `evacuate-device`, `remove-device`, `grow`, `split`, `merge`, `repair`
//! and `check`: the later life of a pool on LVM.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use holdfast_proto::v1;
use holdfast_proto::v1::PoolSeverity;
use holdfast_proto::v1::change_pool_request::Change;
use holdfast_types::ByteSize;
use serde::Serialize;
use serde_json::json;

use super::{On, follow, print, told};
use crate::commands::Context;
use crate::error::CliError;
use crate::output::{Format, error_bytes, show, table};

/// On which node, and whether at all.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    on: On,
}

#[derive(Debug, Args)]
pub(crate) struct AddDevice {
    /// Whole disks or partitions
    #[arg(required = true, value_name = "DEVICE", value_hint = ValueHint::FilePath)]
    devices: Vec<PathBuf>,
    /// A device of which everything may be destroyed; may be repeated
    #[arg(long, value_name = "DEVICE")]
    wipe: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct OneDevice {
    /// A device of the pool's volume group
    #[arg(value_name = "DEVICE", value_hint = ValueHint::FilePath)]
    device: PathBuf,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Grow {
    /// To how much data, such as 500GiB [default: all that the group has free, but a reserve]
    #[arg(long, value_name = "SIZE")]
    data: Option<ByteSize>,
    /// To how much metadata [default: what the data needs]
    #[arg(long, value_name = "SIZE")]
    metadata: Option<ByteSize>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Split {
    /// The new volume group's name
    #[arg(value_name = "GROUP")]
    into: String,
    /// A device to make it of, which holds nothing of the pool; may be repeated
    #[arg(long = "device", required = true, value_name = "DEVICE")]
    devices: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// The volume group that becomes part of the pool's, and whose name is no more
    #[arg(value_name = "GROUP")]
    from: String,
    #[command(flatten)]
    how: How,
}

impl AddDevice {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let add = v1::AddPoolDevices { devices: texts(&self.devices), wipe: texts(&self.wipe) };
        self.how.run(context, Change::AddDevices(add)).await
    }
}

impl OneDevice {
    pub(crate) async fn evacuate(self, context: &Context) -> Result<(), CliError> {
        let device = self.device.display().to_string();
        let change = Change::EvacuateDevice(v1::EvacuatePoolDevice { device });
        self.how.run(context, change).await
    }

    pub(crate) async fn remove(self, context: &Context) -> Result<(), CliError> {
        let device = self.device.display().to_string();
        self.how.run(context, Change::RemoveDevice(v1::RemovePoolDevice { device })).await
    }
}

impl Grow {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let bytes = |size: Option<ByteSize>| size.map(ByteSize::bytes);
        let (data_bytes, metadata_bytes) = (bytes(self.data), bytes(self.metadata));
        self.how.run(context, Change::Grow(v1::GrowPool { data_bytes, metadata_bytes })).await
    }
}

impl Split {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let split = v1::SplitPool { devices: texts(&self.devices), into: self.into };
        self.how.run(context, Change::Split(split)).await
    }
}

impl Merge {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        self.how.run(context, Change::Merge(v1::MergePool { from: self.from })).await
    }
}

impl How {
    pub(crate) async fn repair(self, context: &Context) -> Result<(), CliError> {
        self.run(context, Change::Repair(v1::RepairPool {})).await
    }

    /// Follows the change, and shows the plan or what became of the pool.
    async fn run(self, context: &Context, change: Change) -> Result<(), CliError> {
        let (node, dry_run) = (self.on.name(), self.dry_run);
        let request = v1::ChangePoolRequest { node: node.clone(), dry_run, change: Some(change) };
        let progress = context.session.change_pool(request).await?;
        let plan = follow(context, progress, dry_run).await?;
        if dry_run {
            return show(context.format, &json!({ "steps": plan }), || told(&plan));
        }
        if plan.is_empty() && context.format == Format::Table {
            error_bytes(format!("{}\n", told(&plan)).as_bytes())?;
        }
        print(context, node).await
    }
}

#[derive(Serialize)]
struct FindingView {
    severity: &'static str,
    text: String,
}

/// Prints what was found. It fails if something is broken; what will be some day is only said.
pub(crate) async fn check(context: &Context, node: String) -> Result<(), CliError> {
    let found = context.session.check_pool(node).await?;
    let broken = found.iter().filter(|f| f.severity() == PoolSeverity::Broken).count();
    let views: Vec<_> = found.into_iter().map(FindingView::from).collect();
    show(context.format, &views, || {
        let row = |finding: &FindingView| [finding.severity.to_owned(), finding.text.clone()];
        table(["SEVERITY", "FINDING"], views.iter().map(row).collect())
    })?;
    match broken {
        0 => Ok(()),
        broken => Err(CliError::PoolBroken { broken }),
    }
}

impl From<v1::PoolFinding> for FindingView {
    fn from(finding: v1::PoolFinding) -> Self {
        let severity = match finding.severity() {
            PoolSeverity::Unspecified => "unknown",
            PoolSeverity::Fine => "fine",
            PoolSeverity::Warning => "warning",
            PoolSeverity::Broken => "broken",
        };
        Self { severity, text: finding.text }
    }
}

fn texts(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

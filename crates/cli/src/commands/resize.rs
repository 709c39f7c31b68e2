//! `holdfast resize`.

use clap::Args;
use holdfast_types::{ByteSize, ContainerName, VolumeName};

use super::Context;
use super::container::{Condition, Waiting, finish};
use crate::error::CliError;

const ABOUT: &str = "\
Disk and filesystem grow while the container runs; its replicas follow with the next delta. A disk
never shrinks.

Examples:
  holdfast resize web 20GiB
  holdfast resize db 80GiB --volume data";

#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct Resize {
    /// The container's name
    name: ContainerName,
    /// The size that its disk is to have
    size: ByteSize,
    /// Resize this data volume instead of the root
    #[arg(long, value_name = "NAME")]
    volume: Option<VolumeName>,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    waiting: Waiting,
}

impl Resize {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let (volume, expect) = (self.volume.as_ref(), self.condition.version());
        let operation = context.session.resize(&self.name, volume, self.size, expect).await?;
        finish(context, operation, self.waiting).await?;
        context.print_container(&self.name).await
    }
}

//! `holdfast resize`.

use clap::Args;
use holdfast_types::{ByteSize, ContainerName};

use super::Context;
use super::container::{Waiting, finish};
use crate::error::CliError;

const ABOUT: &str = "\
Disk and filesystem grow while the container runs; its replicas follow with the next delta. A disk
never shrinks.

Example:
  holdfast resize web 20GiB";

#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(crate) struct Resize {
    /// The container's name
    name: ContainerName,
    /// The size that its disk is to have
    size: ByteSize,
    #[command(flatten)]
    waiting: Waiting,
}

impl Resize {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let operation = context.session.resize(&self.name, self.size).await?;
        finish(context, operation, self.waiting).await?;
        context.print_container(&self.name).await
    }
}

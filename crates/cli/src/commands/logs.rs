//! `holdfast logs`.

use clap::Args;
use holdfast_proto::RemoteError;
use holdfast_types::{ByteSize, ContainerName};

use super::Context;
use crate::error::CliError;
use crate::output::bytes;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  holdfast logs web --tail 4KiB")]
pub(crate) struct Logs {
    /// The container's name
    name: ContainerName,
    /// How much of the end to print
    #[arg(long, default_value = "64KiB", value_name = "SIZE")]
    tail: ByteSize,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        // To the server 0 means its default, to us nothing.
        if self.tail.bytes() == 0 {
            return Ok(());
        }
        let mut parts = context.session.logs(&self.name, self.tail.bytes()).await?;
        while let Some(part) = parts.message().await.map_err(RemoteError::from)? {
            bytes(&part.data)?;
        }
        Ok(())
    }
}

//! `holdfast completion`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::CliError;
use crate::output::bytes;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  holdfast completion bash > /etc/bash_completion.d/holdfast")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "holdfast", &mut script);
        bytes(&script)
    }
}

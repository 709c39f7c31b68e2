//! `holdfast doctor`: hands over to `holdfastd doctor`, which knows what a node needs. No cluster is asked.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::commands::lab::become_program;
use crate::error::CliError;
use crate::output::Format;

const PROGRAM: &str = "holdfastd";

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The daemon's configuration [default: /etc/holdfast/holdfastd.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One JSON object, as with -o json
    #[arg(long)]
    pub(crate) json: bool,
}

impl Doctor {
    /// Becomes `holdfastd doctor`, whose exit status says whether there is a problem; returns only if
    /// that fails.
    pub(crate) fn run(self, format: Format) -> Result<(), CliError> {
        become_program(PROGRAM, self.words(format))
    }

    fn words(self, format: Format) -> Vec<OsString> {
        let mut words = vec![OsString::from("doctor")];
        if let Some(file) = self.config {
            words.extend(["--config".into(), file.into()]);
        }
        if self.json || format == Format::Json {
            words.push("--json".into());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_given_what_was_said() {
        let doctor =
            |config: Option<&str>, json| Doctor { config: config.map(PathBuf::from), json };
        assert_eq!(doctor(None, false).words(Format::Table), ["doctor"]);
        assert_eq!(doctor(None, false).words(Format::Json), ["doctor", "--json"]);
        let all = doctor(Some("/x"), true).words(Format::Table);
        assert_eq!(all, ["doctor", "--config", "/x", "--json"]);
    }
}

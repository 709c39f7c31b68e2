//! The lab, as the benches run it: release binaries, and a name of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;

/// The benches' lab.
const NAME: &str = "bench";

/// What the lab's programs are built of.
pub(crate) const PACKAGES: [&str; 5] =
    ["holdfast-daemon", "holdfast-fence", "holdfast-storage", "holdfast-lab", "holdfast-cli"];

/// The release programs.
pub(crate) struct Programs {
    dir: PathBuf,
}

/// Builds them, and those of other packages with them.
pub(crate) fn build(root: &Path, others: &[&str]) -> Result<Programs> {
    let mut build = run::cargo(root);
    build.args(["build", "--quiet", "--release", "--locked", "--bins"]);
    for package in PACKAGES.iter().chain(others) {
        build.arg("-p").arg(package);
    }
    run::succeed(&mut build)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(Programs { dir: target.join("release") })
}

impl Programs {
    /// One of them.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.dir.join(program));
        command.env("HOLDFAST_BIN_DIR", &self.dir).stdin(Stdio::null());
        command
    }

    /// A command of the benches' lab.
    pub(crate) fn lab(&self, args: &[&str]) -> Command {
        let mut command = self.command("holdfast-lab");
        command.args(["--name", NAME]).args(args);
        command
    }

    /// The client, talking to a node of the benches' lab.
    pub(crate) fn client(&self, node: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir.join("holdfast"));
        let address = format!("unix:/run/holdfast-{NAME}/{node}/holdfastd.sock");
        command.arg("--address").arg(address).args(args).stdin(Stdio::null());
        command
    }
}

/// Runs a command that prints one JSON value on standard output; `ok_only` also demands success.
pub(crate) fn json(command: &mut Command, ok_only: bool) -> Result<Value> {
    let out = command.stderr(Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    if ok_only && !out.status.success() {
        bail!("{command:?} ended with {}", out.status);
    }
    serde_json::from_slice(&out.stdout).with_context(|| format!("what {command:?} printed"))
}

//! The project's own chores: `cargo xtask verify|fix|arrows|codegen|bench|soak|guest`.

mod arrows;
mod bench;
mod codegen;
mod documents;
mod guest;
mod manifests;
mod run;
mod soak;
mod units;
mod verify;
mod workspace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::verify::Check;
use crate::workspace::Workspace;

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Check every executable rule; changes nothing.
    Verify {
        /// Run only these checks.
        #[arg(value_enum)]
        only: Vec<Check>,
        /// Fail, instead of skipping, where a tool is missing.
        #[arg(long)]
        ci: bool,
    },
    /// Repair what a program can: generated code, simple lints, formatting.
    Fix,
    /// Print which crate uses which; in brackets what it may use and does not.
    Arrows,
    /// Generate code from proto/.
    Codegen,
    /// Measure something, and print it beside what was asked for.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run a whole cluster under harm for long, and say whether anything was violated.
    #[command(subcommand)]
    Soak(soak::Soak),
    /// Run a command in a Debian guest under QEMU, where device-mapper and power cuts are real.
    Guest(guest::Guest),
}

fn main() -> ExitCode {
    match Task::parse().run(&root()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Task {
    fn run(self, root: &Path) -> Result<()> {
        match self {
            Task::Verify { only, ci } => verify::verify(root, &only, ci),
            Task::Fix => fix(root),
            Task::Arrows => {
                print!("{}", arrows::table(&Workspace::read(root)?));
                Ok(())
            }
            Task::Codegen => codegen::refresh(root),
            Task::Bench(bench) => bench.run(root),
            Task::Soak(soak) => soak.run(root),
            Task::Guest(guest) => guest.run(root),
        }
    }
}

fn fix(root: &Path) -> Result<()> {
    codegen::refresh(root)?;
    let clippy = ["clippy", "--fix", "--allow-dirty", "--allow-staged"];
    run::succeed(run::cargo(root).args(clippy).args(["--workspace", "--all-targets"]))?;
    run::succeed(run::cargo(root).args(["fmt", "--all"]))
}

/// The workspace root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

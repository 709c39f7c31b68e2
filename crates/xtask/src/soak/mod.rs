//! `cargo xtask soak NAME`: long runs. Those of a whole cluster under harm, as root, with release
//! programs, and what they hold against what, are in `chaos-tests/`; those of the fuzzer in `crates/fuzz`.

mod fuzz;

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::bench;

/// What to run.
#[derive(Subcommand)]
pub(crate) enum Soak {
    /// Clients of the replicated state, held against each other while nodes are killed, stopped and cut
    /// off. Fails on any violation, on harm that was not done, and on too few calls.
    Consensus {
        /// For how long.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        minutes: u64,
        /// Does the same harm again [default: another each time].
        #[arg(long)]
        seed: Option<u64>,
        /// Nodes with a vote: 3, 5 or 7.
        #[arg(long, default_value_t = 5)]
        nodes: usize,
        /// Nodes that get one when another is lost, which then happens too.
        #[arg(long, default_value_t = 0)]
        standbys: usize,
        /// Print one JSON object instead of tables.
        #[arg(long)]
        json: bool,
    },
    /// Everything that reads bytes of a peer, a user or a disk, against inputs that libFuzzer makes up,
    /// guided by what they reach. Needs a nightly toolchain and `cargo install cargo-fuzz`. Fails on any
    /// finding, whose input is kept.
    Fuzz(fuzz::Options),
}

impl Soak {
    pub(crate) fn run(self, root: &Path) -> Result<()> {
        let (minutes, seed, nodes, standbys, json) = match self {
            Self::Consensus { minutes, seed, nodes, standbys, json } => {
                (minutes, seed, nodes, standbys, json)
            }
            Self::Fuzz(options) => return fuzz::run(root, &options),
        };
        let programs = bench::build(root, &["holdfast-chaos-tests"])?;
        let mut soak = programs.command("holdfast-soak");
        soak.args(["consensus", "--minutes", &minutes.to_string(), "--nodes", &nodes.to_string()]);
        soak.args(["--standbys", &standbys.to_string()]);
        if let Some(seed) = seed {
            soak.args(["--seed", &seed.to_string()]);
        }
        soak.args(json.then_some("--json"));
        let status = soak.status().context("running holdfast-soak")?;
        if !status.success() {
            bail!("the soak did not pass");
        }
        Ok(())
    }
}

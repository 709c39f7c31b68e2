//! `cargo xtask bench NAME`: measurements, as a table or as one JSON object. Never part of the
//! tests: a figure that is missed is a fact to report, not a failure.

mod consensus;
mod failover;
mod idle;
mod lab;
mod machine;
mod replicate;
mod report;
mod statistics;

pub(crate) use lab::{PACKAGES, build};

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// RTO and RPO for the loss of a worker, a follower and the leader, on a lab with default
    /// settings; then what an idle node costs.
    Failover {
        /// Rounds for each role.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Print one JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Full copies and deltas beside a raw copy, btrfs and rsync, and what a writer notices of a
    /// snapshot. As root; some 20 minutes with the default settings.
    Replicate {
        #[command(flatten)]
        options: replicate::Options,
        /// Print one JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Durable writes, linearizable reads, flushes and new leaders beside etcd, and what many
    /// workers cost a leader. As root; some 10 minutes with the default settings.
    Consensus {
        #[command(flatten)]
        options: consensus::Options,
        /// Print one JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// What an idle node costs: the last rows of `failover`, alone.
    Idle {
        /// Print one JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
}

impl Bench {
    pub(crate) fn run(self, root: &Path) -> Result<()> {
        match self {
            Self::Failover { rounds, json } => {
                let bin = lab::build(root, &[])?;
                let mut rows = failover::measure(&bin, rounds)?;
                rows.extend(idle::measure(&bin)?);
                report::Report::new("failover", rows).print(json)
            }
            Self::Replicate { options, json } => {
                let rows = replicate::measure(root, &options)?;
                report::Report::new("replicate", rows).print(json)
            }
            Self::Consensus { options, json } => {
                let rows = consensus::measure(root, &options)?;
                let rival = consensus::rival()?;
                report::Report::new("consensus", rows).beside(rival).print(json)
            }
            Self::Idle { json } => {
                let rows = idle::measure(&lab::build(root, &[])?)?;
                report::Report::new("idle", rows).print(json)
            }
        }
    }
}

/// Whether a program is there to be run by root.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin".into(), "/sbin".into()]);
    dirs.iter().any(|dir| dir.join(program).is_file())
}

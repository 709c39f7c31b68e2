//! `holdfast-soak`: runs for as long as it is told to, and says what it found. `cargo xtask soak` builds
//! and runs it.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser};
use holdfast_chaos_tests::consensus::{Options, soak};
use holdfast_lab::{LabError, Programs, check_machine, wall_ms};

/// Long runs of a whole cluster under harm.
#[derive(Debug, Parser)]
#[command(name = "holdfast-soak", version)]
enum Soak {
    /// Clients of the replicated state, held against each other while nodes are killed, stopped and cut
    /// off.
    Consensus(Consensus),
}

#[derive(Debug, Args)]
struct Consensus {
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
    /// Clients at a time.
    #[arg(long, default_value_t = 128)]
    clients: usize,
    /// The run fails with fewer calls than this.
    #[arg(long, default_value_t = 200_000)]
    least: u64,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// The lab's name.
const NAME: &str = "soak";

fn main() -> ExitCode {
    let Soak::Consensus(args) = Soak::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("holdfast-soak: {}: {error}", error.code());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Consensus) -> Result<bool, LabError> {
    check_machine()?;
    let options = Options {
        name: NAME.to_owned(),
        programs: Programs::find()?,
        voters: args.nodes,
        standbys: args.standbys,
        clients: args.clients,
        duration: Duration::from_secs(args.minutes * 60),
        seed: args.seed.unwrap_or_else(wall_ms),
        least_calls: args.least,
    };
    let report = soak(&options, &|line| eprintln!("soak: {line}"))?;
    if args.json {
        println!("{}", serde_json::json!(report));
    } else {
        println!("{report}");
    }
    Ok(report.ok)
}

//! `quickstart` and `observe`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use holdfast_lab::observe::Observer;
use holdfast_lab::quickstart::{ImageKind, QuickstartOptions, Target, quickstart};
use holdfast_lab::{Lab, LabError, Pace, Programs, check_machine};
use holdfast_types::ByteSize;
use nix::sys::signal::{SigSet, Signal};

#[derive(Debug, Args)]
pub(super) struct Rehearsal {
    /// Which node loses its power; the container is placed there [default: any, at random].
    #[arg(long, value_enum)]
    kill: Option<Target>,
    /// How often.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
    /// Leave the lab up.
    #[arg(long)]
    keep: bool,
    /// When something goes wrong, leave the nodes' logs in this directory.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// What the container is made of.
    #[arg(long, value_enum, default_value = "busybox")]
    image: ImageKind,
    /// A blank disk for each node's pool, which becomes an LVM volume group; without any the pools
    /// are files on XFS.
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<PathBuf>,
    /// This machine is so many times slower than usual: the lease and all waits get longer by that.
    #[arg(long, default_value_t, value_name = "FACTOR")]
    slow: Pace,
    /// Let the container rewrite this much every second besides its records.
    #[arg(long, default_value = "0")]
    noise: ByteSize,
}

pub(super) fn run(name: &str, args: &Rehearsal) -> Result<ExitCode, LabError> {
    check_machine()?;
    let options = QuickstartOptions {
        kill: args.kill,
        rounds: args.rounds,
        keep: args.keep,
        logs: args.logs.clone(),
        image: args.image,
        devices: args.devices.clone(),
        pace: args.slow,
        noise_bytes_per_s: args.noise.bytes(),
        ..QuickstartOptions::new(name, Programs::find()?)
    };
    take_down_when_interrupted(name)?;
    let report = quickstart(&options).inspect_err(|error| {
        if args.json {
            let error = super::one_line(error);
            println!("{}", serde_json::json!({ "ok": false, "rounds": [], "error": error }));
        }
    })?;
    if args.json {
        println!("{}", serde_json::json!(report));
    } else {
        report.rounds.iter().for_each(|round| println!("\n{round}"));
        println!("\n{}", what_next(args.keep));
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn what_next(kept: bool) -> &'static str {
    if kept {
        "The lab is still up. What to type next:
  holdfast cluster status          the nodes, as the leader sees them
  holdfast show web                the container, its copies and their age
  holdfast events                  what happened
  holdfast lab kill NODE           do it again, by hand
  holdfast lab poweron NODE
  holdfast lab down                remove everything"
    } else {
        "Everything is removed again. What to type next:
  deploy/quickstart --keep         the same, and the lab stays up
  deploy/quickstart --kill leader --rounds 5
  holdfast lab up                  a lab to play with; holdfast lab down removes it"
    }
}

pub(super) fn observe(lab: &Lab, seconds: u64) -> Result<(), LabError> {
    let observer = Observer::start(lab.layout(), lab.pace())?;
    std::thread::sleep(Duration::from_secs(seconds));
    let seen = observer.observation();
    let verdicts: BTreeMap<_, _> =
        seen.runs.keys().map(|uid| (uid.to_string(), seen.verdict(*uid))).collect();
    println!("{}", serde_json::json!({ "seen": seen, "verdicts": verdicts }));
    Ok(())
}

/// From here on Ctrl-C and SIGTERM remove the lab and end the program.
fn take_down_when_interrupted(name: &str) -> Result<(), LabError> {
    let sys = |source| LabError::Sys { what: "cannot set up signals", source };
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Blocked here, and so in every thread started from now on: only the one below takes them.
    signals.thread_block().map_err(sys)?;
    let name = name.to_owned();
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            eprintln!("interrupted: removing the lab");
            let _ = Lab::down(&name, None);
            std::process::exit(130);
        }
    });
    Ok(())
}

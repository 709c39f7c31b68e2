//! The rehearsal of a machine's loss, from nothing: a cluster, a container that serves, a power
//! cut, and the proof of what became of it.
//!
//! ```text
//! stage: lab up → cluster formed → image imported
//! round: create on the victim → replica current → cut → answers again → judge → power → caught up
//! ```
//!
//! What is measured comes from outside: a client that keeps asking one address, and an observer of
//! the container's tasks. What the cluster *says* (its events) is held against that.

mod aftermath;
mod cut;
mod options;
mod report;
mod round;
mod scene;
mod stage;
mod story;

use std::time::Instant;

pub use aftermath::account;
pub use cut::{Cut, too_early};
pub use options::{ImageKind, QuickstartOptions, Target};
pub use report::{Report, RoundReport};
pub use round::play;
pub use scene::Scene;
pub use stage::Stage;
pub use story::{Account, Moment, Silence, Story};

use crate::LabError;

/// Where the rehearsal tells how far it is, for people.
#[derive(Debug)]
pub struct Narrator {
    begin: Instant,
}

impl Default for Narrator {
    fn default() -> Self {
        Self { begin: Instant::now() }
    }
}

impl Narrator {
    /// One line on standard error.
    pub fn say(&self, line: impl std::fmt::Display) {
        eprintln!("[{:6.1} s] {line}", self.begin.elapsed().as_secs_f64());
    }
}

/// Runs the whole rehearsal. The lab is gone afterwards, unless it was to be kept.
pub fn quickstart(options: &QuickstartOptions) -> Result<Report, LabError> {
    let narrator = Narrator::default();
    let stage = Stage::set(options, &narrator)?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let last = number == options.rounds;
        let report = play(&stage, options, &narrator, number).inspect_err(|_| stage.show_logs())?;
        let failed = !report.ok();
        report.problems.iter().for_each(|p| narrator.say(format_args!("PROBLEM: {p}")));
        rounds.push(report);
        if failed {
            stage.show_logs();
            break;
        }
        if !last {
            stage.clear(&narrator)?;
        }
    }
    if options.keep {
        stage.keep();
    }
    Ok(Report::of(rounds))
}

//! Clients of the replicated state while every kind of harm is done to its nodes.

use std::time::Duration;

use holdfast_chaos_tests::consensus::{Options, soak};
use holdfast_lab::{LabError, Programs, wall_ms};

/// I4-I7: whatever is killed, stopped or cut off, all answers fit one copy of every label, and all
/// nodes have the same state at the same entry.
#[test]
fn all_answers_fit_one_copy_whatever_fails() -> Result<(), LabError> {
    let options = Options {
        name: "t-consensus".to_owned(),
        programs: Programs::find()?,
        voters: 3,
        standbys: 0,
        clients: 48,
        duration: Duration::from_secs(75),
        seed: wall_ms(),
        least_calls: 3_000,
    };
    let report = soak(&options, &|line| eprintln!("{line}"))?;
    assert!(report.ok, "{report}");
    eprintln!("{report}");
    Ok(())
}

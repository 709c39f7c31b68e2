//! What must hold afterwards. Each panics with what it saw.

use std::time::Duration;

use holdfast_lab::quickstart::{Cut, account, too_early};
use holdfast_lab::workload::{Acked, Ledger, fetch_chain, parse_chain};
use holdfast_lab::{BootInstant, LabError, wait_until};

use crate::rig::Rig;

/// What the observer's polls and a loaded machine's scheduling may add to a measured instant.
const SLACK: Duration = Duration::from_millis(150);
/// Well beyond any takeover.
const LIMIT: Duration = Duration::from_secs(45);

/// I8: at no time did two nodes run the container.
///
/// # Panics
/// If two did.
pub fn never_two(rig: &Rig) {
    let verdict = rig.stage.observer.observation().verdict(rig.scene.uid);
    assert!(verdict.holds(), "two nodes ran the container at once: {verdict:?}");
}

/// The fence (DESIGN section 5, rule 3): whatever was stopped at `from`, the container's last run
/// on its node ended no later than the lease and the fence budget after.
///
/// # Panics
/// If it ran on.
pub fn stopped_in_time(rig: &Rig, from: BootInstant) -> Result<(), LabError> {
    let lease = &rig.scene.lease;
    let allowed = Duration::from_millis(lease.lease_ms + lease.fence_budget_ms) + SLACK;
    let last = || {
        let seen = rig.stage.observer.observation();
        seen.last_run(rig.scene.uid, rig.node()).unwrap_or_default()
    };
    // Quiet for longer than a poll takes: it has ended.
    wait_until("the end of the run", LIMIT, || {
        Ok(BootInstant::now().since(last()) > Duration::from_millis(500))
    })?;
    let ran_on = last().since(from);
    assert!(ran_on <= allowed, "it ran for {ran_on:?} after, where {allowed:?} are allowed");
    Ok(())
}

/// L2: the service answers again, to a request sent after `from`.
pub fn answers_again(rig: &Rig, from: BootInstant) -> Result<Acked, LabError> {
    wait_until("an answer", LIMIT, || Ok(rig.scene.probe.first_after(from).is_some()))?;
    rig.scene
        .probe
        .first_after(from)
        .ok_or_else(|| LabError::Deadline { what: "an answer".into(), seconds: LIMIT.as_secs() })
}

/// DESIGN section 5, rule 4: the takeover from `node` came, with evidence, and no sooner than that
/// allows.
///
/// # Panics
/// If there was none, or it was too early.
pub fn taken_over_in_order(rig: &Rig, node: &str, cut: Cut) -> Result<(), LabError> {
    let told = account(&rig.stage, node, &rig.scene.uid.to_string(), cut.revision)?;
    let problems = too_early(&told, &rig.scene.lease, cut);
    assert!(problems.is_empty(), "{problems:?}: {told:?}");
    Ok(())
}

/// I17, I22: the chain is whole, and what it lacks was acknowledged after what the takeover since
/// `cut` stated (`None`: there was none, so nothing may be missing).
///
/// # Panics
/// If the chain is damaged, or lacks more than was said.
pub fn nothing_lost_unsaid(rig: &Rig, cut: Option<Cut>) -> Result<(), LabError> {
    let as_of = match cut {
        None => None,
        Some(cut) => {
            let uid = rig.scene.uid.to_string();
            account(&rig.stage, rig.node(), &uid, cut.revision)?.data_as_of_ms
        }
    };
    let acked = rig.scene.probe.acked();
    let text = fetch_chain(rig.lab().layout(), rig.scene.address, rig.lab().pace())?;
    let chain = parse_chain(&text).unwrap_or_else(|fault| panic!("the chain is damaged: {fault}"));
    let mut ledger = Ledger::default();
    ledger.extend(acked);
    let judged = ledger.judge(&chain, as_of);
    assert_eq!(judged.unreported, 0, "{judged:?}");
    Ok(())
}

//! Named snapshots on this node, and the way back to one.

use std::collections::BTreeSet;

use holdfast_types::{KeptView, RestoreView, SnapshotUuid};

use crate::next::step;
use crate::{Action, Observed, Step, Why};

/// What is to be kept, let go, or told, but for what failed lately. A snapshot that is kept here and
/// not named was removed: its name was known here before it came.
pub(crate) fn next(named: &[KeptView], observed: &Observed) -> Option<Step> {
    let volume = observed.volume.as_ref()?;
    let is_named = |uuid: &SnapshotUuid| named.iter().any(|kept| kept.uuid == *uuid);
    let nameless = volume.kept.iter().copied().filter(|uuid| !is_named(uuid));
    let let_go = nameless.map(|snapshot| Action::LetGo { snapshot });
    let here = |uuid: SnapshotUuid| volume.snapshots.iter().any(|id| id.uuid == uuid);
    let bare = |kept: &&KeptView| here(kept.uuid) && !volume.kept.contains(&kept.uuid);
    let keep = |kept: &KeptView| Action::Keep { snapshot: kept.uuid, name: kept.name.clone() };
    let keep = named.iter().filter(bare).map(keep);
    if let Some(action) = let_go.chain(keep).find(|action| !observed.resting.contains(action)) {
        return step(action, Why::Named);
    }
    let taken = || named.iter().filter(|kept| !kept.wanted);
    let held: BTreeSet<_> = taken().map(|kept| kept.uuid).filter(|uuid| here(*uuid)).collect();
    let told: BTreeSet<_> = taken().filter(|kept| kept.held).map(|kept| kept.uuid).collect();
    let report = Action::ReportKept { held: held.iter().copied().collect() };
    match held == told || observed.resting.contains(&report) {
        true => None,
        false => step(report, Why::News),
    }
}

/// A container comes to rest, what it is now is kept (by whoever takes snapshots of it), and only
/// then does it begin anew.
pub(crate) fn restore(
    restore: &RestoreView,
    named: &[KeptView],
    observed: &Observed,
) -> Option<Step> {
    if observed.running {
        return step(Action::Stop, Why::Restoring);
    }
    if observed.active {
        return step(Action::Deactivate, Why::Restoring);
    }
    let operation = restore.operation;
    if observed.volume.as_ref().is_some_and(|volume| volume.restored == Some(operation)) {
        return step(Action::ReportRestored { operation }, Why::News);
    }
    match named.iter().any(|kept| kept.uuid == restore.before && !kept.wanted) {
        true => step(Action::Restore { from: restore.from, operation }, Why::Restoring),
        false => step(Action::Wait, Why::Restoring),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObservedVolume;
    use holdfast_types::{Epoch, OperationId, Seq, SnapshotId, VolumeUid};
    use uuid::Uuid;

    fn uuid(n: u128) -> SnapshotUuid {
        SnapshotUuid(Uuid::from_u128(n))
    }

    fn named(n: u128, wanted: bool, held: bool) -> KeptView {
        let name = format!("s{n}").parse().unwrap();
        KeptView { name, uuid: uuid(n), wanted, held, holders: Vec::new() }
    }

    fn seen(snapshots: &[u128], kept: &[u128]) -> Observed {
        let id = |n: &u128| SnapshotId {
            volume: VolumeUid(Uuid::from_u128(1)),
            epoch: Epoch(1),
            seq: Seq(*n as u64),
            uuid: uuid(*n),
            parent: None,
        };
        let volume = ObservedVolume {
            live: Some(Epoch(1)),
            snapshots: snapshots.iter().map(id).collect(),
            kept: kept.iter().map(|n| uuid(*n)).collect(),
            ..Default::default()
        };
        Observed { volume: Some(volume), ..Default::default() }
    }

    fn action(step: Option<Step>) -> Option<Action> {
        step.map(|s| s.action)
    }

    /// I18: what is named is kept as soon as it is here, and let go only when it is not named.
    #[test]
    fn names_are_followed_and_holdings_told() {
        let s2 = [named(2, false, false)];
        let keep = Action::Keep { snapshot: uuid(2), name: "s2".parse().unwrap() };
        assert_eq!(action(next(&s2, &seen(&[1, 2, 3], &[]))), Some(keep));
        let tell = Action::ReportKept { held: vec![uuid(2)] };
        assert_eq!(action(next(&s2, &seen(&[1, 2, 3], &[2]))), Some(tell));
        assert_eq!(next(&[named(2, false, true)], &seen(&[1, 2, 3], &[2])), None);
        let let_go = Action::LetGo { snapshot: uuid(2) };
        assert_eq!(action(next(&[], &seen(&[1, 2, 3], &[2]))), Some(let_go));
        // Gone, or rotten: the cluster hears of it, and it comes again.
        let tell = Action::ReportKept { held: vec![] };
        assert_eq!(action(next(&[named(2, false, true)], &seen(&[1, 3], &[2]))), Some(tell));
    }

    /// One that cannot be let go kept the others from being named, and the container from starting.
    #[test]
    fn a_chore_that_failed_held_up_the_others() {
        let named = [named(2, false, false)];
        let mut seen = seen(&[1, 2, 3], &[3]);
        let let_go = Action::LetGo { snapshot: uuid(3) };
        let keep = Action::Keep { snapshot: uuid(2), name: "s2".parse().unwrap() };
        let tell = Action::ReportKept { held: vec![uuid(2)] };
        for chore in [let_go, keep, tell] {
            assert_eq!(action(next(&named, &seen)), Some(chore.clone()));
            assert!(chore.is_chore());
            seen.resting.push(chore);
        }
        assert_eq!(next(&named, &seen), None);
    }

    /// It may come before the cluster knows that it was taken.
    #[test]
    fn what_is_only_wanted_is_kept_and_not_told_of() {
        let wanted = [named(2, true, false)];
        assert!(matches!(action(next(&wanted, &seen(&[2], &[]))), Some(Action::Keep { .. })));
        assert_eq!(next(&wanted, &seen(&[2], &[2])), None);
    }

    /// I21: nothing begins anew before what it was is kept; and it does once.
    #[test]
    fn a_restore_waits_for_the_snapshot_before_it() {
        let operation = OperationId(Uuid::from_u128(9));
        let view = RestoreView { operation, from: uuid(1), before: uuid(2) };
        let mut all = [named(1, false, true), named(2, true, false)];
        let mut seen = seen(&[1], &[1]);
        assert_eq!(action(restore(&view, &all, &seen)), Some(Action::Wait));
        all[1].wanted = false;
        let begin = Action::Restore { from: uuid(1), operation };
        assert_eq!(action(restore(&view, &all, &seen)), Some(begin));
        seen.active = true;
        assert_eq!(action(restore(&view, &all, &seen)), Some(Action::Deactivate));
        seen.active = false;
        seen.volume.as_mut().unwrap().restored = Some(operation);
        let report = Action::ReportRestored { operation };
        assert_eq!(action(restore(&view, &all, &seen)), Some(report));
    }
}

//! The next action.

use std::fmt;

use holdfast_types::{
    AssignedView, Chain, ContainerUid, DesiredState, Epoch, OperationId, Protection, ReplicaView,
    RunState, SnapshotId, SnapshotName, SnapshotUuid,
};

use crate::kept;
use crate::observed::{Observed, ObservedVolume};

/// What the cluster wants of this node about one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty<'a> {
    /// It holds the primary copy and runs it.
    Assigned(&'a AssignedView),
    /// It holds a replica.
    Replica(&'a ReplicaView),
    /// Its copy is to go.
    Remove(ContainerUid),
    /// Nothing: the cluster does not know of it.
    None(ContainerUid),
}

/// Whether a protected container may start (DESIGN section 5 rule 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// A live lease, held by a guardian, and a view that has reached the grant's revision.
    Open,
    /// Not all of that.
    Closed,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// End every task of it at once.
    Kill,
    /// Ask its init to end, then kill.
    Stop,
    /// Unmount its volume and take the device away.
    Deactivate,
    /// Make the volume a replica at the newest snapshot on the chain, keeping what was written
    /// beyond it as a labelled snapshot (I21).
    Demote {
        /// The newest snapshot of ours that is on the chain.
        to: Option<SnapshotId>,
    },
    /// Make the volume from the image.
    CloneImage {
        /// The image's snapshot.
        image: SnapshotId,
        /// The first epoch.
        epoch: Epoch,
    },
    /// Make the live part from the branch point.
    Promote {
        /// The snapshot that the epoch starts from.
        branch: SnapshotId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Let the live part go on under a higher epoch of the same assignment, running or not.
    GoOn {
        /// The epoch.
        epoch: Epoch,
    },
    /// Mount, attach the network, start, announce.
    Start,
    /// Grow the volume and the filesystem on it to what the spec says, and tell the cluster.
    Resize,
    /// Remove the volume with all that it has.
    Remove,
    /// Tell the cluster what it is doing.
    ReportRun(RunState),
    /// Tell the cluster that the copy is gone.
    ReportRemoved,
    /// Keep a snapshot under that name.
    Keep {
        /// The snapshot.
        snapshot: SnapshotUuid,
        /// The name.
        name: SnapshotName,
    },
    /// Keep a snapshot no longer for its name's sake.
    LetGo {
        /// The snapshot.
        snapshot: SnapshotUuid,
    },
    /// Tell the cluster which named snapshots are here.
    ReportKept {
        /// These, and no others.
        held: Vec<SnapshotUuid>,
    },
    /// Let the live part begin anew as a snapshot.
    Restore {
        /// The snapshot.
        from: SnapshotUuid,
        /// Which restore it is.
        operation: OperationId,
    },
    /// Tell the cluster that this restore is done.
    ReportRestored {
        /// Which one.
        operation: OperationId,
    },
    /// Nothing can be done until something else changes.
    Wait,
}

impl Action {
    /// Whether it can wait without keeping anything else back: what fails is tried again by itself.
    pub fn is_chore(&self) -> bool {
        match self {
            Self::Keep { .. } | Self::LetGo { .. } | Self::ReportKept { .. } | Self::Resize => true,
            Self::Kill | Self::Stop | Self::Deactivate | Self::Demote { .. } => false,
            Self::CloneImage { .. } | Self::Promote { .. } | Self::GoOn { .. } => false,
            Self::Start | Self::Remove | Self::ReportRun(_) | Self::ReportRemoved => false,
            Self::Restore { .. } | Self::ReportRestored { .. } | Self::Wait => false,
        }
    }

    /// Whether the container cannot run before it is done: the cluster is told when it fails.
    pub fn is_needed_to_run(&self) -> bool {
        matches!(self, Self::CloneImage { .. } | Self::Promote { .. } | Self::Start)
    }
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It runs under an assignment that is no longer ours.
    NotOurs,
    /// It is to be deleted.
    Deleted,
    /// It is to stop.
    DesiredStopped,
    /// It is to run.
    DesiredRunning,
    /// Its volume belongs to an epoch that moved on.
    Diverged,
    /// Its node was lost, and came back before a takeover.
    Returned,
    /// Its epoch has no volume here yet.
    NoVolume,
    /// The image is not here yet.
    NoImage,
    /// What it is to be made of is neither here nor on its way.
    NoOrigin,
    /// It had data, and its volume is not here any more.
    LostVolume,
    /// The branch point is not here: the cluster chose us by a copy that is gone.
    NoBranch,
    /// Protected containers may not start now.
    GateClosed,
    /// It is to begin anew as a snapshot.
    Restoring,
    /// A name was given to the snapshot, or taken from it.
    Named,
    /// It failed, and is tried again later.
    Failed,
    /// Its disk is to be larger.
    Short,
    /// The cluster should know.
    News,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOurs => "it is not ours any more",
            Self::Deleted => "it is to be deleted",
            Self::DesiredStopped => "it is to be stopped",
            Self::DesiredRunning => "it is to run",
            Self::Diverged => "its epoch has moved on",
            Self::Returned => "its node came back before a takeover",
            Self::NoVolume => "it has no volume here yet",
            Self::NoImage => "its image is not here yet",
            Self::NoOrigin => "what it is to be made of is neither here nor on its way",
            Self::LostVolume => "its volume is not on this node any more, and had data",
            Self::NoBranch => "the snapshot that it should start from is not here",
            Self::GateClosed => "there is no live lease",
            Self::Short => "its disk is to be larger",
            Self::Restoring => "it is being restored",
            Self::Named => "its name came or went",
            Self::Failed => "it failed and is tried again later",
            Self::News => "the cluster should know",
        })
    }
}

/// An action with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Why.
    pub why: Why,
}

pub(crate) fn step(action: Action, why: Why) -> Option<Step> {
    Some(Step { action, why })
}

/// The next action, or nothing when everything is as it should be.
pub fn next(duty: Duty<'_>, observed: &Observed, gate: Gate) -> Option<Step> {
    match duty {
        Duty::Assigned(view) => {
            or_idle(assigned(view, observed, gate), || kept::next(&view.kept, observed))
        }
        Duty::Replica(view) => {
            or_idle(replica(view, observed), || kept::next(&view.kept, observed))
        }
        Duty::Remove(_) => remove(observed),
        Duty::None(_) if observed.running => step(Action::Kill, Why::NotOurs),
        Duty::None(_) => None,
    }
}

/// What is not urgent is done when nothing else can be.
fn or_idle(first: Option<Step>, idle: impl FnOnce() -> Option<Step>) -> Option<Step> {
    match first {
        Some(step) if step.action != Action::Wait => Some(step),
        waits => idle().or(waits),
    }
}

fn assigned(view: &AssignedView, observed: &Observed, gate: Gate) -> Option<Step> {
    let epoch = view.chain.epoch;
    let live = observed.volume.as_ref().and_then(|v| v.live);
    if live.is_some_and(|live| view.chain.goes_on_from(live)) {
        return step(Action::GoOn { epoch }, Why::Returned);
    }
    if live != Some(epoch) {
        return take_up(view, observed);
    }
    if let Some(restore) = view.restore.filter(|_| view.desired != DesiredState::Deleted) {
        return kept::restore(&restore, &view.kept, observed);
    }
    match view.desired {
        DesiredState::Deleted => remove(observed),
        DesiredState::Stopped if observed.running => step(Action::Stop, Why::DesiredStopped),
        DesiredState::Stopped if observed.active => step(Action::Deactivate, Why::DesiredStopped),
        DesiredState::Stopped => {
            report(observed, RunState::Stopped).or_else(|| resize(view, observed))
        }
        DesiredState::Running if observed.running => {
            report(observed, RunState::Running).or_else(|| resize(view, observed))
        }
        DesiredState::Running => start(view, observed, gate),
    }
}

/// Brings the volume into the assignment's epoch. What runs under an older one is stale.
fn take_up(view: &AssignedView, observed: &Observed) -> Option<Step> {
    if observed.running {
        return step(Action::Kill, Why::NotOurs);
    }
    if observed.active {
        return step(Action::Deactivate, Why::Diverged);
    }
    let epoch = view.chain.epoch;
    match (&observed.volume, view.chain.branch()) {
        (Some(volume), _) if volume.live.is_some() => {
            let to = newest_on_chain(volume, &view.chain, view.uid);
            step(Action::Demote { to }, Why::Diverged)
        }
        (Some(volume), Some(branch)) => {
            match volume.snapshots.iter().any(|id| id.uuid == branch.uuid) {
                true => make(observed, Action::Promote { branch, epoch }),
                false => wait_or_report(observed, Why::NoBranch),
            }
        }
        (None, Some(_)) => wait_or_report(observed, Why::NoBranch),
        // Made anew it would be empty, and its copies would follow it.
        (_, None) if has_data(view) => wait_or_report(observed, Why::LostVolume),
        (_, None) if observed.image_held => {
            make(observed, Action::CloneImage { image: view.image, epoch })
        }
        (_, None) if observed.image_comes => step(Action::Wait, Why::NoImage),
        (_, None) => wait_or_report(observed, Why::NoOrigin),
    }
}

/// Whether anybody has heard of data of it, here or in a copy.
fn has_data(view: &AssignedView) -> bool {
    view.made || view.replicas.iter().any(|copy| copy.newest.is_some())
}

/// Makes its live part, unless that failed lately.
fn make(observed: &Observed, action: Action) -> Option<Step> {
    told_of_failure(observed).or_else(|| step(action, Why::NoVolume))
}

/// What failed is told once, and waits for its turn.
fn told_of_failure(observed: &Observed) -> Option<Step> {
    let failed = RunState::Failed { reason: observed.failed.clone()? };
    match observed.reported.as_ref() == Some(&failed) {
        true => step(Action::Wait, Why::Failed),
        false => step(Action::ReportRun(failed), Why::News),
    }
}

/// A state that nothing here can mend is told once, and then waited in.
fn wait_or_report(observed: &Observed, why: Why) -> Option<Step> {
    let failed = RunState::Failed { reason: why.to_string() };
    match observed.reported.as_ref() == Some(&failed) {
        true => step(Action::Wait, why),
        false => step(Action::ReportRun(failed), Why::News),
    }
}

fn start(view: &AssignedView, observed: &Observed, gate: Gate) -> Option<Step> {
    if observed.failed.is_some() {
        return told_of_failure(observed);
    }
    if view.spec.protection == Protection::Protected && gate == Gate::Closed {
        return step(Action::Wait, Why::GateClosed);
    }
    step(Action::Start, Why::DesiredRunning)
}

fn report(observed: &Observed, state: RunState) -> Option<Step> {
    match observed.reported.as_ref() == Some(&state) {
        true => None,
        false => step(Action::ReportRun(state), Why::News),
    }
}

/// After everything else: what cannot grow runs all the same.
fn resize(view: &AssignedView, observed: &Observed) -> Option<Step> {
    let short = observed.volume.as_ref().is_some_and(|volume| volume.short);
    let awaited = view.resizing && !observed.resized_told;
    let rests = observed.resting.contains(&Action::Resize);
    ((short || awaited) && !rests).then_some(Step { action: Action::Resize, why: Why::Short })
}

fn replica(view: &ReplicaView, observed: &Observed) -> Option<Step> {
    if observed.running {
        return step(Action::Kill, Why::NotOurs);
    }
    if observed.active {
        return step(Action::Deactivate, Why::Diverged);
    }
    let volume = observed.volume.as_ref()?;
    // The chain forgets its oldest branches; what the cluster names is on it.
    let named = |id: &SnapshotId| view.kept.iter().any(|kept| kept.uuid == id.uuid);
    let strays = |id: &&SnapshotId| !view.chain.contains(view.uid.into(), id) && !named(id);
    if volume.live.is_some() || volume.snapshots.iter().any(|id| strays(&id)) {
        let to = newest_on_chain(volume, &view.chain, view.uid);
        return step(Action::Demote { to }, Why::Diverged);
    }
    None
}

fn remove(observed: &Observed) -> Option<Step> {
    if observed.running {
        return step(Action::Kill, Why::Deleted);
    }
    if observed.active {
        return step(Action::Deactivate, Why::Deleted);
    }
    match observed.volume {
        Some(_) => step(Action::Remove, Why::Deleted),
        None => step(Action::ReportRemoved, Why::News),
    }
}

fn newest_on_chain(
    volume: &ObservedVolume,
    chain: &Chain,
    uid: ContainerUid,
) -> Option<SnapshotId> {
    let on_chain = volume.snapshots.iter().filter(|id| chain.contains(uid.into(), id));
    on_chain.max_by_key(|id| id.order()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{ContainerSpec, MacAddr, NodeId, Seq};
    use uuid::Uuid;

    const UID: ContainerUid = ContainerUid(Uuid::from_u128(1));

    fn snap(epoch: u64, seq: u64) -> SnapshotId {
        SnapshotId {
            volume: UID.into(),
            epoch: Epoch(epoch),
            seq: Seq(seq),
            uuid: SnapshotUuid(Uuid::from_u64_pair(epoch, seq)),
            parent: None,
        }
    }

    /// Epoch 1, or epoch 2 branched from (1, 3).
    fn chain(epoch: u64) -> Chain {
        let mut chain = Chain::begin(Epoch(1));
        if epoch > 1 {
            chain.advance(snap(1, 3));
        }
        chain
    }

    fn view(epoch: u64, desired: DesiredState) -> AssignedView {
        let address = "10.77.0.2".parse().unwrap();
        AssignedView {
            uid: UID,
            name: "web".parse().unwrap(),
            spec: ContainerSpec::default(),
            chain: chain(epoch),
            desired,
            resizing: false,
            resize_asked: holdfast_types::Revision::default(),
            made: false,
            image: snap(0, 1),
            address,
            mac: MacAddr::from_ipv4(address),
            replicas: Vec::new(),
            kept: Vec::new(),
            restore: None,
        }
    }

    fn replica_view(epoch: u64) -> ReplicaView {
        ReplicaView {
            uid: UID,
            name: "web".parse().unwrap(),
            chain: chain(epoch),
            primary: NodeId(2),
            keep: Vec::new(),
            origin: None,
            kept: Vec::new(),
        }
    }

    fn volume(live: Option<u64>, snapshots: &[SnapshotId]) -> Option<ObservedVolume> {
        let live = live.map(Epoch);
        Some(ObservedVolume { live, snapshots: snapshots.to_vec(), ..Default::default() })
    }

    fn action(step: Option<Step>) -> Option<Action> {
        step.map(|s| s.action)
    }

    fn is_told(step: &Option<Step>) -> bool {
        let action = step.as_ref().map(|s| &s.action);
        matches!(action, Some(Action::ReportRun(RunState::Failed { .. })))
    }

    #[test]
    fn a_new_container_is_cloned_started_and_reported() {
        let view = view(1, DesiredState::Running);
        let duty = Duty::Assigned(&view);
        let mut seen = Observed { image_held: true, ..Default::default() };
        let clone = Action::CloneImage { image: snap(0, 1), epoch: Epoch(1) };
        assert_eq!(action(next(duty, &seen, Gate::Open)), Some(clone));
        seen.volume = volume(Some(1), &[]);
        assert_eq!(action(next(duty, &seen, Gate::Open)), Some(Action::Start));
        seen.running = true;
        let report = Action::ReportRun(RunState::Running);
        assert_eq!(action(next(duty, &seen, Gate::Open)), Some(report));
        seen.reported = Some(RunState::Running);
        assert_eq!(next(duty, &seen, Gate::Open), None);
    }

    /// I9, rule 6: without an open gate nothing protected starts; a pinned one does.
    #[test]
    fn a_closed_gate_holds_back_protected_starts_alone() {
        let mut view = view(1, DesiredState::Running);
        let seen = Observed { volume: volume(Some(1), &[]), ..Default::default() };
        let closed = next(Duty::Assigned(&view), &seen, Gate::Closed);
        assert_eq!(closed, step(Action::Wait, Why::GateClosed));
        view.spec.protection = Protection::Pinned;
        let started = next(Duty::Assigned(&view), &seen, Gate::Closed);
        assert_eq!(action(started), Some(Action::Start));
    }

    #[test]
    fn a_takeover_promotes_exactly_the_branch_point() {
        let view = view(2, DesiredState::Running);
        let duty = Duty::Assigned(&view);
        let mut seen =
            Observed { volume: volume(None, &[snap(1, 2), snap(1, 3)]), ..Default::default() };
        let promote = Action::Promote { branch: snap(1, 3), epoch: Epoch(2) };
        assert_eq!(action(next(duty, &seen, Gate::Open)), Some(promote));
        seen.volume = volume(None, &[snap(1, 2)]);
        assert!(is_told(&next(duty, &seen, Gate::Open)));
    }

    /// A pool that takes no more snapshots promotes none: the takeover went nowhere, in silence.
    #[test]
    fn a_promotion_that_fails_for_ever_was_told_to_nobody() {
        let view = view(2, DesiredState::Running);
        let mut seen = Observed {
            volume: volume(None, &[snap(1, 3)]),
            failed: Some("the pool is worn".into()),
            ..Default::default()
        };
        let told = next(Duty::Assigned(&view), &seen, Gate::Open);
        assert!(is_told(&told));
        seen.reported = Some(RunState::Failed { reason: "the pool is worn".into() });
        let waits = next(Duty::Assigned(&view), &seen, Gate::Open);
        assert_eq!(waits, step(Action::Wait, Why::Failed));
    }

    /// Its node's pool was replaced. Made of its image again it would begin empty, and its copies
    /// would be made to follow.
    #[test]
    fn a_container_whose_volume_is_gone_is_not_begun_anew() {
        let mut known = view(1, DesiredState::Running);
        let seen = Observed { image_held: true, ..Default::default() };
        assert!(matches!(
            action(next(Duty::Assigned(&known), &seen, Gate::Open)),
            Some(Action::CloneImage { .. })
        ));
        let newest = Some(snap(1, 3).uuid);
        known.replicas = vec![holdfast_types::CopyView { node: NodeId(2), newest }];
        assert!(is_told(&next(Duty::Assigned(&known), &seen, Gate::Open)));
        let mut alone = view(1, DesiredState::Running);
        alone.made = true;
        assert!(is_told(&next(Duty::Assigned(&alone), &seen, Gate::Open)));
    }

    /// A clone's origin went before the clone was made: nobody ships it, and nobody heard of it.
    #[test]
    fn a_container_waited_for_ever_for_what_nobody_ships() {
        let view = view(1, DesiredState::Running);
        let mut seen = Observed { image_comes: true, ..Default::default() };
        let waits = next(Duty::Assigned(&view), &seen, Gate::Open);
        assert_eq!(waits, step(Action::Wait, Why::NoImage));
        seen.image_comes = false;
        assert!(is_told(&next(Duty::Assigned(&view), &seen, Gate::Open)));
        seen.reported = Some(RunState::Failed { reason: Why::NoOrigin.to_string() });
        let waits = next(Duty::Assigned(&view), &seen, Gate::Open);
        assert_eq!(waits, step(Action::Wait, Why::NoOrigin));
    }

    /// Rule 5: a node that was lost and returns before a takeover keeps what it runs.
    #[test]
    fn a_live_part_of_the_same_assignment_goes_on_running() {
        let mut view = view(2, DesiredState::Running);
        view.chain.go_on();
        let duty = Duty::Assigned(&view);
        let mut seen = Observed {
            running: true,
            active: true,
            volume: volume(Some(2), &[snap(1, 3), snap(2, 1)]),
            ..Default::default()
        };
        let go_on = Action::GoOn { epoch: Epoch(3) };
        assert_eq!(action(next(duty, &seen, Gate::Closed)), Some(go_on));
        seen.volume = volume(Some(1), &[snap(1, 3)]);
        assert_eq!(action(next(duty, &seen, Gate::Closed)), Some(Action::Kill));
    }

    /// I13, I21: a returned node kills, unmounts, keeps the tail, and only then is a replica.
    #[test]
    fn a_returned_primary_becomes_a_replica_in_order() {
        let view = replica_view(2);
        let duty = Duty::Replica(&view);
        let mut seen = Observed {
            running: true,
            active: true,
            volume: volume(Some(1), &[snap(1, 2), snap(1, 3), snap(1, 4)]),
            ..Default::default()
        };
        assert_eq!(action(next(duty, &seen, Gate::Open)), Some(Action::Kill));
        seen.running = false;
        assert_eq!(action(next(duty, &seen, Gate::Open)), Some(Action::Deactivate));
        seen.active = false;
        let demote = Action::Demote { to: Some(snap(1, 3)) };
        assert_eq!(action(next(duty, &seen, Gate::Open)), Some(demote));
        seen.volume = volume(None, &[snap(1, 2), snap(1, 3)]);
        assert_eq!(next(duty, &seen, Gate::Open), None);
    }

    /// I13: a container that moved away and back does not go on as it was.
    #[test]
    fn a_container_that_moved_away_and_back_is_promoted_anew() {
        let view = view(2, DesiredState::Running);
        let seen = Observed {
            running: true,
            active: true,
            volume: volume(Some(1), &[snap(1, 3)]),
            ..Default::default()
        };
        let step = next(Duty::Assigned(&view), &seen, Gate::Open);
        assert_eq!(step, super::step(Action::Kill, Why::NotOurs));
    }

    /// I14: what the cluster deleted goes, in an order that never removes a mounted volume; what
    /// the cluster does not know is stopped, and kept.
    #[test]
    fn deleted_goes_and_unknown_is_kept() {
        let mut seen = Observed {
            running: true,
            active: true,
            volume: volume(Some(1), &[]),
            ..Default::default()
        };
        let unknown = Duty::None(UID);
        assert_eq!(action(next(unknown, &seen, Gate::Open)), Some(Action::Kill));
        let duty = Duty::Remove(UID);
        let mut order = Vec::new();
        for _ in 0..4 {
            let action = action(next(duty, &seen, Gate::Closed)).unwrap();
            match action {
                Action::Kill => seen.running = false,
                Action::Deactivate => seen.active = false,
                Action::Remove => seen.volume = None,
                _ => {}
            }
            order.push(action);
        }
        let expected = [Action::Kill, Action::Deactivate, Action::Remove, Action::ReportRemoved];
        assert_eq!(order, expected);
        let kept = Observed { volume: volume(Some(1), &[]), ..Default::default() };
        assert_eq!(next(unknown, &kept, Gate::Open), None);
    }

    /// A disk that cannot grow keeps nothing from running or from being stopped.
    #[test]
    fn a_disk_grows_when_all_else_is_as_it_should_be() {
        let mut view = view(1, DesiredState::Running);
        view.resizing = true;
        let mut seen = Observed { volume: volume(Some(1), &[]), ..Default::default() };
        let mut order = Vec::new();
        for _ in 0..4 {
            let step = next(Duty::Assigned(&view), &seen, Gate::Open);
            match &step.as_ref().map(|s| &s.action) {
                Some(Action::Start) => seen.running = true,
                Some(Action::ReportRun(state)) => seen.reported = Some(state.clone()),
                Some(Action::Resize) => seen.resized_told = true,
                _ => {}
            }
            order.extend(action(step));
        }
        let report = Action::ReportRun(RunState::Running);
        assert_eq!(order, [Action::Start, report, Action::Resize]);
        // A copy that was taken before it grew, and was promoted since.
        view.resizing = false;
        seen.volume.as_mut().unwrap().short = true;
        let grows = next(Duty::Assigned(&view), &seen, Gate::Open);
        assert_eq!(action(grows), Some(Action::Resize));
        seen.resting.push(Action::Resize);
        assert_eq!(next(Duty::Assigned(&view), &seen, Gate::Open), None, "it failed lately");
        view.desired = DesiredState::Stopped;
        let stops = next(Duty::Assigned(&view), &seen, Gate::Open);
        assert_eq!(action(stops), Some(Action::Stop));
    }

    #[test]
    fn a_failed_start_is_told_once_and_waited_for() {
        let view = view(1, DesiredState::Running);
        let mut seen = Observed {
            volume: volume(Some(1), &[]),
            failed: Some("init exited".into()),
            ..Default::default()
        };
        let failed = RunState::Failed { reason: "init exited".into() };
        let told = next(Duty::Assigned(&view), &seen, Gate::Open);
        assert_eq!(action(told), Some(Action::ReportRun(failed.clone())));
        seen.reported = Some(failed);
        let waits = next(Duty::Assigned(&view), &seen, Gate::Open);
        assert_eq!(waits, step(Action::Wait, Why::Failed));
    }
}

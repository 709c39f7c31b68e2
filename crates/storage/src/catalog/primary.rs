//! What happens to a live part: it begins, goes on, grows, is snapshotted, and ends.

use holdfast_types::{ByteSize, Epoch, Seq, SnapshotId, SnapshotUuid, TimestampMs};

use super::promises::label_text;
use super::{Live, Promotion, SnapshotInfo, SnapshotKind, VolumeState, outcome};
use crate::members::Shape;
use crate::pool::{Outcome, Tail};
use crate::{Error, Result};

impl VolumeState {
    /// Gives the volume a live part that began as `branch`.
    pub(crate) fn begin_live(&mut self, branch: Option<SnapshotUuid>, epoch: Epoch) {
        self.scrub.begin_anew(None);
        self.live = Some(Live {
            epoch,
            branch,
            head: branch,
            next_seq: Seq(1),
            generation: self.next_generation,
            restored: None,
        });
        self.next_generation += 1;
        self.record.promoted = Some(Promotion { epoch, branch });
    }

    /// Whether `create` or `clone_volume` with these arguments has been done before.
    pub(crate) fn made_as(
        &self,
        branch: Option<SnapshotUuid>,
        shape: &Shape,
        epoch: Epoch,
    ) -> Result<Outcome> {
        let same = |live: &Live| live.branch == branch && live.epoch == epoch;
        match &self.live {
            Some(live) if same(live) && self.shape().is_like(shape) => Ok(Outcome::AlreadyThere),
            _ => Err(Error::VolumeExists(self.uid)),
        }
    }

    /// Promotes `from` under `epoch` (I10, I11).
    pub(crate) fn promote(&mut self, from: SnapshotUuid, epoch: Epoch) -> Result<Outcome> {
        if let Some(live) = &self.live {
            return match live.branch == Some(from) && live.epoch == epoch {
                true => Ok(Outcome::AlreadyThere),
                false => Err(self.wrong("it has a live part of another epoch or origin")),
            };
        }
        let snapshot = self.find(from).ok_or(Error::NoSnapshot(from))?;
        if !snapshot.kind.on_chain() {
            return Err(self.wrong("a diverged snapshot cannot be promoted"));
        }
        if self.is_rotten(from) {
            return Err(Error::Rotten(from));
        }
        let (taken_under, shape) = (snapshot.id.epoch, snapshot.shape());
        self.refuse_up_to(epoch, taken_under.max(self.start_floor()))?;
        (self.size, self.data) = (shape.root, shape.data);
        self.begin_live(Some(from), epoch);
        Ok(Outcome::Changed)
    }

    /// Lets the live part go on under a higher epoch.
    pub(crate) fn continue_live(&mut self, epoch: Epoch) -> Result<Outcome> {
        let live = self.live()?.clone();
        if live.epoch == epoch {
            return Ok(Outcome::AlreadyThere);
        }
        self.refuse_up_to(epoch, self.start_floor())?;
        self.record.promoted = Some(Promotion { epoch, branch: live.head });
        self.live = Some(Live { epoch, next_seq: Seq(1), branch: live.head, ..live });
        Ok(Outcome::Changed)
    }

    /// Whether the live part may be written under `epoch`.
    pub(crate) fn may_activate(&self, epoch: Epoch) -> Result<()> {
        let live = self.live()?;
        self.refuse_up_to(epoch, self.record.sealed.max(self.record.released))?;
        if epoch < live.epoch {
            return Err(self.stale(epoch, Epoch(live.epoch.0 - 1)));
        }
        match epoch == live.epoch {
            true => Ok(()),
            false => Err(self.wrong("its live part has not been promoted to that epoch")),
        }
    }

    /// Grows a member of the live part.
    pub(crate) fn resize(&mut self, member: usize, size: ByteSize) -> Result<Outcome> {
        self.live()?;
        let missing = self.wrong("it has no such member");
        let present = match member.checked_sub(1) {
            None => &mut self.size,
            Some(data) => &mut self.data.get_mut(data).ok_or(missing)?.size,
        };
        if size < *present {
            return Err(Error::BadSize { size, reason: "volumes only grow" });
        }
        let changed = size != *present;
        *present = size;
        Ok(outcome(changed))
    }

    /// Nothing is blank any more.
    pub(crate) fn filled(&mut self) -> Result<Outcome> {
        self.live()?;
        let blank = self.data.iter_mut().filter(|m| m.blank);
        Ok(outcome(blank.map(|m| m.blank = false).count() > 0))
    }

    /// Adds a snapshot of the live part. `Err` also for an identity that does not follow.
    pub(crate) fn add_snapshot(&mut self, id: &SnapshotId, taken: TimestampMs) -> Result<Outcome> {
        if let Some(known) = self.find(id.uuid) {
            return match known.id == *id {
                true => Ok(Outcome::AlreadyThere),
                false => Err(self.wrong("a snapshot of that uuid is another one")),
            };
        }
        let live = self.live()?;
        if id.epoch < live.epoch {
            return Err(self.stale(id.epoch, Epoch(live.epoch.0 - 1)));
        }
        self.refuse_up_to(id.epoch, self.record.sealed)?;
        if self.next_snapshot(id.uuid) != Some(*id) {
            return Err(self.wrong("the snapshot's identity does not follow from the live part"));
        }
        if self.data.iter().any(|m| m.blank) {
            return Err(self.wrong("a member of it has nothing on it yet"));
        }
        let (size, data, kind) = (self.size, self.data.clone(), SnapshotKind::Chain);
        self.snapshots.push(SnapshotInfo { id: *id, size, data, taken, kind });
        self.sort();
        if let Some(live) = &mut self.live {
            live.head = Some(id.uuid);
            live.next_seq = id.seq.next();
        }
        Ok(Outcome::Changed)
    }

    /// Makes the volume a replica at `to`. With a tail, the live part becomes that snapshot.
    pub(crate) fn demote(
        &mut self,
        to: Option<SnapshotUuid>,
        tail: Option<&Tail>,
    ) -> Result<Outcome> {
        let point = match to {
            Some(uuid) => Some(self.find(uuid).ok_or(Error::NoSnapshot(uuid))?.clone()),
            None => None,
        };
        if point.as_ref().is_some_and(|p| !p.kind.on_chain()) {
            return Err(self.wrong("it cannot be rolled back to a diverged snapshot"));
        }
        let label = match tail {
            Some(tail) => label_text(&tail.label)?.to_owned(),
            None => "after the point that the cluster went on from".to_owned(),
        };
        let after = point.as_ref().map(|p| p.id.order());
        let mut changed = false;
        for s in &mut self.snapshots {
            if s.kind.on_chain() && after.is_none_or(|order| s.id.order() > order) {
                let label = match &s.kind {
                    SnapshotKind::Kept { label: name } => name,
                    SnapshotKind::Chain | SnapshotKind::Diverged { .. } => &label,
                };
                s.kind = SnapshotKind::Diverged { label: label.clone() };
                changed = true;
            }
        }
        changed |= self.live.is_some();
        if let (Some(tail), Some(live)) = (tail, self.live.take()) {
            let id = SnapshotId {
                volume: self.uid,
                epoch: live.epoch,
                seq: live.next_seq,
                uuid: tail.uuid,
                parent: live.head,
            };
            let kind = SnapshotKind::Diverged { label };
            let (size, data) = (self.size, self.data.clone());
            self.snapshots.push(SnapshotInfo { id, size, data, taken: tail.taken, kind });
            self.sort();
        }
        if let Some(point) = point {
            (self.size, self.data) = (point.size, point.data);
        }
        Ok(outcome(changed))
    }

    /// The refusal to drop what no snapshot holds (I21).
    pub(crate) fn unkept(&self) -> Error {
        self.wrong("its live part was written after its newest snapshot: keep that first")
    }

    /// The live part, which must be there.
    pub(crate) fn live(&self) -> Result<&Live> {
        self.live.as_ref().ok_or_else(|| self.wrong("it has no live part here"))
    }
}

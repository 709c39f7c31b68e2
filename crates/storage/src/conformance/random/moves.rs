//! What gives a volume another content, or another place.

use holdfast_types::{ByteSize, Epoch, OperationId, SnapshotUuid, VolumeUid};

use super::{Life, Shot, compare};
use crate::conformance::{NOW, offer, remove, ship, snap};
use crate::{Member, Outcome, Tail};

impl Life<'_> {
    /// Removes a snapshot on one side that is neither its newest nor anybody's next base.
    pub(super) fn forget(&mut self) {
        let side = self.dice.below(2) as usize;
        let kept = [self.newest_common(), self.head()];
        let spare: Vec<usize> = self
            .those(|s| s.on[side])
            .into_iter()
            .filter(|at| !kept.contains(&Some(*at)))
            .collect();
        if let Some(at) = self.dice.pick(&spare) {
            self.forget_at(side, at);
        }
    }

    pub(super) fn forget_oldest(&mut self) -> bool {
        let kept = [self.newest_common(), self.head()];
        let oldest = (0..self.shots.len()).find(|at| !kept.contains(&Some(*at)));
        let Some(at) = oldest else { return false };
        let side = usize::from(!self.shots[at].on[0]);
        self.forget_at(side, at);
        true
    }

    pub(super) fn forget_at(&mut self, side: usize, at: usize) {
        let uuid = self.shots[at].id.uuid;
        self.tell(format!("forget {uuid} on {side}"));
        assert_eq!(self.rig(side).pool().remove_snapshot(uuid).unwrap(), Outcome::Changed);
        self.shots[at].on[side] = false;
        self.shots.retain(|s| s.on != [false; 2]);
    }

    pub(super) fn restore(&mut self) {
        let here = self.primary;
        let candidates = self.those(|s| s.on[here] && !s.diverged);
        let Some(at) = self.dice.pick(&candidates) else { return };
        let from = self.shots[at].id;
        if self.dirty {
            self.snapshot();
        }
        // Making room for it may have taken this one.
        let Some(shot) = self.shots.iter().find(|s| s.id == from && s.on[here]) else { return };
        let content = shot.content.clone();
        self.tell(format!("restore {}", from.uuid));
        let pool = self.rig(here).pool();
        pool.deactivate(self.uid).unwrap();
        let restored = pool.restore(self.uid, from.uuid, self.epoch, OperationId::generate());
        assert_eq!(restored.unwrap(), Outcome::Changed);
        pool.activate(self.uid, self.epoch).unwrap();
        (self.live, self.dirty) = (content, true);
    }

    /// A clone lives by itself, is shipped as a delta against its origin where that is, and goes.
    pub(super) fn clone_one(&mut self) {
        let (here, there) = (self.primary, self.other());
        let candidates = self.those(|s| s.on[here]);
        let Some(at) = self.dice.pick(&candidates) else { return };
        let origin = &self.shots[at];
        let (from, mut shape, on_both) = (origin.id.uuid, origin.shape.clone(), origin.on[there]);
        let mut content = origin.content.clone();
        if self.dice.one_in(2) {
            shape.root = ByteSize(shape.root.bytes() + (4 << 20));
        }
        if self.dice.one_in(3) {
            shape.data.push(Member::new("more".parse().unwrap(), ByteSize::mib(4)));
        }
        let uid = VolumeUid::generate();
        self.tell(format!("clone {from}, {} data members", shape.data.len()));
        let pool = self.rig(here).pool();
        assert_eq!(pool.clone_set(from, uid, &shape, Epoch(1)).unwrap(), Outcome::Changed);
        pool.filled(uid).unwrap();
        pool.activate(uid, Epoch(1)).unwrap();
        for _ in 0..2 {
            let (at, data) = self.range(&shape);
            self.rig(here).write(uid, at, &data);
            content.write(at, &data);
        }
        let id = snap(self.rig(here), uid);
        let base = (on_both && !self.dice.one_in(4)).then_some(from);
        ship(self.rig(here), self.rig(there), &offer(self.rig(here), &id, base)).unwrap();
        for side in [here, there] {
            compare(self.rig(side), id.uuid, &content, &shape);
            remove(self.rig(side), uid);
        }
        self.check(here, at);
    }

    /// The other side goes on from the newest snapshot; this one keeps what it never shipped.
    pub(super) fn move_over(&mut self) {
        if self.dirty || self.head().is_none() {
            self.snapshot();
        }
        let (old, new) = (self.primary, self.other());
        let Some(at) = self.head() else { return };
        if !self.shots[at].on[new] {
            let base = self.base_for(at);
            self.deliver(at, base, false);
            if !self.shots[at].on[new] {
                return;
            }
        }
        let point = self.shots[at].id;
        let (content, tail) = (self.shots[at].content.clone(), self.dice.one_in(2));
        self.tell(format!("move to {new} at {}, a tail: {tail}", point.uuid));
        if tail {
            self.write();
            if self.dice.one_in(2) {
                self.snapshot();
                self.write();
            }
        }
        let label = "never shipped".to_owned();
        let kept = Tail { uuid: SnapshotUuid::generate(), taken: NOW, label };
        let next = self.epoch.next();
        self.rig(new).pool().seal(self.uid, self.epoch).unwrap();
        self.rig(new).pool().promote(self.uid, point.uuid, next).unwrap();
        let pool = self.rig(old).pool();
        pool.deactivate(self.uid).unwrap();
        if tail {
            assert!(pool.demote(self.uid, Some(point.uuid), None).is_err(), "it drops the tail");
        }
        let shape = self.shape();
        pool.demote(self.uid, Some(point.uuid), tail.then_some(&kept)).unwrap();
        if tail {
            let state = pool.volume(self.uid).unwrap().state;
            let id = state.find(kept.uuid).unwrap().id;
            let mut on = [false; 2];
            on[old] = true;
            let content = std::mem::take(&mut self.live);
            self.shots.push(Shot { id, content, shape, diverged: true, on });
            let after = |s: &&mut Shot| s.id.order() > point.order();
            self.shots.iter_mut().filter(after).for_each(|s| s.diverged = true);
        }
        self.rig(new).pool().activate(self.uid, next).unwrap();
        (self.primary, self.epoch, self.live, self.dirty) = (new, next, content, false);
    }
}

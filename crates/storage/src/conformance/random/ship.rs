//! From one side to the other, through interruptions.

use holdfast_types::SnapshotUuid;

use super::{Life, Shot};
use crate::conformance::{begin, offer, ship};
use crate::stream::send;
use crate::{Begin, Offer};

impl Life<'_> {
    /// A snapshot that both have, that `at` is no smaller than; or nothing.
    pub(super) fn base_for(&mut self, at: usize) -> Option<SnapshotUuid> {
        let wanted = &self.shots[at];
        let fits = |s: &Shot| wanted.shape.require_at_least(&s.shape, "").is_ok();
        let bases = self.those(|s| s.on == [true; 2] && s.id != wanted.id && fits(s));
        let base = match self.dice.below(8) {
            0 => None,
            1 => self.dice.pick(&bases),
            _ => bases.last().copied(),
        };
        base.map(|base| self.shots[base].id.uuid)
    }

    pub(super) fn ship_newest(&mut self) {
        if self.head().is_none() || (self.dirty && !self.dice.one_in(4)) {
            self.snapshot();
        }
        let Some(at) = self.head() else { return };
        if self.shots[at].on[self.other()] {
            let offer = offer(self.rig(self.primary), &self.shots[at].id, None);
            let again = self.rig(self.other()).pool().begin_receive(&offer).unwrap();
            assert!(matches!(again, Begin::AlreadyThere(info) if info.id == offer.snapshot));
            return;
        }
        let base = self.base_for(at);
        self.deliver(at, base, false);
    }

    /// What is kept for somebody comes after what is newer, and on any base.
    pub(super) fn ship_history(&mut self) {
        let Some(newest) = self.newest_common() else { return };
        let (order, here, there) = (self.shots[newest].id.order(), self.primary, self.other());
        let lacking =
            self.those(|s| s.on[here] && !s.on[there] && !s.diverged && s.id.order() < order);
        if let Some(at) = self.dice.pick(&lacking) {
            let base = self.base_for(at);
            self.deliver(at, base, true);
        }
    }

    /// Ships one, through interruptions; or gives it up after one.
    pub(super) fn deliver(&mut self, at: usize, base: Option<SnapshotUuid>, history: bool) {
        let id = self.shots[at].id;
        let offer = Offer { history, ..offer(self.rig(self.primary), &id, base) };
        self.tell(format!("ship {} on {base:?}, history {history}", id.uuid));
        while self.dice.one_in(3) {
            self.interrupt(&offer);
            if self.dice.one_in(4) {
                self.tell("given up".into());
                return;
            }
        }
        let info = ship(self.rig(self.primary), self.rig(self.other()), &offer).unwrap();
        assert_eq!(info.shape(), self.shots[at].shape);
        let there = self.other();
        self.shots[at].on[there] = true;
        self.check(there, at);
    }

    /// The sender or the receiver dies somewhere in the stream, and nothing of it is a snapshot.
    pub(super) fn interrupt(&mut self, offer: &Offer) {
        let (whole, part, dies) = (self.dice.below(4), self.dice.below(100), self.dice.one_in(2));
        self.tell(format!("cut after {whole} frames and {part} %, the receiver dies: {dies}"));
        let (source, target) = (self.rig(self.primary), self.rig(self.other()));
        let mut receiver = begin(target, offer).unwrap();
        let mut frames = send(source.pool(), offer, receiver.resume_at()).unwrap();
        for frame in frames.by_ref().take(whole as usize) {
            receiver.feed(&frame.unwrap()).unwrap();
        }
        if let Some(frame) = frames.next() {
            let frame = frame.unwrap();
            receiver.feed(&frame[..frame.len() * part as usize / 100]).unwrap();
        }
        drop(receiver);
        let there = self.other();
        if dies {
            self.rigs[there].reopen();
        }
        let pool = self.rig(there).pool();
        assert!(pool.volume(self.uid).unwrap().state.find(offer.snapshot.uuid).is_none());
        assert!(pool.open_snapshot(offer.snapshot.uuid).is_err());
    }
}

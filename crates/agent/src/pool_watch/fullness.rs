//! What the last look at the pool says to those who would fill it further, or make room in it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the last look says to those who would fill the pool further.
#[derive(Debug, Default)]
pub(crate) struct Fullness {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    filling: bool,
    full: bool,
    exhausted: bool,
    looks: u64,
    /// How many looks there had been when it was found full, or something was last given up.
    waiting_since: u64,
    /// How many looks there had been when room was last made.
    made_room_at: Option<u64>,
}

impl Fullness {
    /// Whether the pool is past the mark at which operators are told. What was given up at the
    /// threshold comes again below this alone.
    pub(crate) fn is_filling(&self) -> bool {
        let inner = self.lock();
        inner.filling || inner.full
    }

    /// Whether the pool is past its threshold.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().full
    }

    /// Whether nothing is left of it: what waits for a write may wait for ever.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.lock().exhausted
    }

    /// Whether to make room now. Yes to one caller at a time, and to the next one only when a whole
    /// look since has found the pool as full as before: no more is given up than must be.
    pub(crate) fn make_room(&self) -> bool {
        let mut inner = self.lock();
        let seen_since = inner.made_room_at.is_none_or(|at| inner.looks >= at + 2);
        let now = inner.full && seen_since;
        if now {
            // Who was told before did give something up.
            inner.waiting_since = inner.waiting_since.max(inner.made_room_at.unwrap_or(0));
            inner.made_room_at = Some(inner.looks);
        }
        now
    }

    /// Whether the pool has been full for so long, and nobody found a base to give up, that other
    /// copies must go. Yes once, and again only when that was of no use either.
    pub(super) fn nothing_else_goes(&self) -> bool {
        const PATIENCE_LOOKS: u64 = 8;
        let mut inner = self.lock();
        let since = inner.waiting_since.max(inner.made_room_at.unwrap_or(0));
        let now = inner.full && inner.looks >= since + PATIENCE_LOOKS;
        if now {
            inner.waiting_since = inner.looks;
        }
        now
    }

    /// The caller that was told to make room had nothing to give up: the next may try at once.
    pub(crate) fn made_none(&self) {
        self.lock().made_room_at = None;
    }

    pub(super) fn fills(&self, filling: bool) {
        self.lock().filling = filling;
    }

    pub(super) fn looked(&self, full: bool, exhausted: bool) {
        let mut inner = self.lock();
        if !inner.full {
            inner.waiting_since = inner.looks;
        }
        inner.full = full;
        inner.exhausted = exhausted;
        inner.looks += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I20: bases go one volume at a time, and only while the pool is found as full as before.
    #[test]
    fn room_is_made_once_between_two_looks() {
        let fullness = Fullness::default();
        fullness.looked(false, false);
        assert!(!fullness.is_full() && !fullness.make_room(), "there is room");
        fullness.looked(true, false);
        assert!(fullness.is_full() && fullness.make_room());
        assert!(!fullness.make_room(), "nobody has looked since");
        fullness.looked(true, false);
        assert!(!fullness.make_room(), "the look may have begun before");
        fullness.looked(true, false);
        assert!(fullness.make_room());
        fullness.looked(true, false);
        fullness.looked(false, false);
        assert!(!fullness.make_room(), "it was enough");
    }

    /// A volume with nothing to give kept the others from being asked.
    #[test]
    fn who_has_nothing_to_give_up_does_not_hold_the_others_back() {
        let fullness = Fullness::default();
        fullness.looked(true, false);
        assert!(fullness.make_room());
        fullness.made_none();
        assert!(fullness.make_room());
    }

    /// I20: bases go first, and what a person named only when for some time no base was left.
    #[test]
    fn named_copies_go_when_no_base_is_left() {
        let fullness = Fullness::default();
        let look = |full, gives_a_base: bool| {
            fullness.looked(full, false);
            if fullness.make_room() && !gives_a_base {
                fullness.made_none();
            }
            fullness.nothing_else_goes()
        };
        assert!((0..30).all(|_| !look(false, false)), "there is room");
        assert!((0..30).all(|_| !look(true, true)), "there are bases");
        let after = (1..30).find(|_| look(true, false)).unwrap();
        assert!(after >= 4, "{after}");
        assert!(!look(true, false), "one at a time");
        assert!((0..8).any(|_| look(true, false)));
        assert!((0..30).all(|_| !look(false, false)), "it was enough");
    }
}

//! The search: depth first over configurations.
//!
//! A configuration is a set of operations that have been given their instants (*placed*) and the value
//! that the register holds then. The next one to be placed must have been called before the first end
//! among those that are left. What changes nothing and fits (a read of the value held, a refusal of
//! another) is placed at once: it can never be in the way, so there is no other choice to go back to.
//!
//! ```text
//!            place it                         its end is next, and it fits nowhere
//! candidate ──────────▶ configuration, new ──────────────────────────────────────▶ back, next candidate
//!     ▲                      │      └── seen before: back
//!     └──────────────────────┘          all with an end placed: linearizable
//! ```

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use super::prepare::Prepared;
use super::{ABSENT, Action, Broken, Limits, Operation, Value, Verdict};
use crate::dice::mix;

/// The clock is looked at once in so many configurations.
const LOOK_EVERY: u64 = 4096;

pub(super) fn search(prepared: &Prepared, limits: Limits) -> Verdict {
    let deadline = Instant::now() + limits.time;
    let mut search = Search::new(prepared);
    let mut stack = Vec::new();
    let mut placed = search.settle();
    let mut looked_at = 0_u64;
    loop {
        if search.left == 0 {
            return Verdict::Holds;
        }
        looked_at += 1;
        let late = looked_at.is_multiple_of(LOOK_EVERY) && Instant::now() > deadline;
        if late || looked_at > limits.configurations {
            return Verdict::Undecided;
        }
        let new = search.seen.insert(search.configuration());
        let candidates = if new { search.candidates() } else { Vec::new() };
        let value = search.value;
        stack.push(Frame { placed: std::mem::take(&mut placed), value, candidates });
        // Back to the last configuration from which there is another way.
        let next = loop {
            let Some(frame) = stack.last_mut() else {
                return Verdict::Broken(search.broken());
            };
            if let Some(candidate) = frame.candidates.pop() {
                break candidate;
            }
            search.take_back(&frame.placed);
            stack.pop();
            if let Some(before) = stack.last() {
                search.value = before.value;
            }
        };
        search.place(next);
        placed = search.settle();
        placed.insert(0, next);
    }
}

/// A configuration on the way to the present one.
struct Frame {
    /// What was placed to come to it, in this order.
    placed: Vec<usize>,
    value: Value,
    /// What has not been tried from it, the likeliest last.
    candidates: Vec<usize>,
}

struct Search<'a> {
    operations: &'a [Operation],
    events: Events,
    /// How many operations are left that need a value which one operation alone can put there.
    needs: BTreeMap<Value, u32>,
    value: Value,
    /// How many operations with an end are left.
    left: usize,
    placed: usize,
    /// Names the set of those placed: all their own random numbers, combined.
    set: u128,
    /// Two different configurations have the same number once in 2^128.
    seen: HashSet<u128>,
    furthest: Broken,
}

impl<'a> Search<'a> {
    fn new(prepared: &'a Prepared) -> Self {
        let operations = &prepared.operations;
        Self {
            operations,
            events: Events::of(operations),
            needs: prepared.needs.clone(),
            value: ABSENT,
            left: operations.iter().filter(|operation| operation.end.is_some()).count(),
            placed: 0,
            set: 0,
            seen: HashSet::new(),
            furthest: Broken { placed: 0, value: ABSENT, stuck: Vec::new(), needed: None },
        }
    }

    fn configuration(&self) -> u128 {
        self.set ^ name(u64::MAX - self.value)
    }

    /// Whether it can come next, after which the register holds this.
    fn fits(&self, operation: &Operation) -> Option<Value> {
        match operation.action {
            Action::Write(value) => Some(value),
            Action::Read(value) => (self.value == value).then_some(value),
            Action::Swap { expect, new, done } => match (operation.end, done) {
                (Some(_), false) => (self.value != expect).then_some(self.value),
                (Some(_), true) | (None, _) => (self.value == expect).then_some(new),
            },
        }
    }

    /// Places whatever fits and changes nothing.
    fn settle(&mut self) -> Vec<usize> {
        let mut placed = Vec::new();
        let mut before = START;
        while let Some(Event::Call(operation)) = self.events.get(self.events.after(before)) {
            let found = &self.operations[operation];
            let idle = matches!(found.action, Action::Read(_) | Action::Swap { done: false, .. });
            if idle && found.end.is_some() && self.fits(found).is_some() {
                self.place(operation);
                placed.push(operation);
            } else {
                before = self.events.after(before);
            }
        }
        placed
    }

    /// What may come next, the likeliest last: that which must be done soonest. What may never be done
    /// at all comes after all others.
    fn candidates(&mut self) -> Vec<usize> {
        let (mut found, mut open) = (Vec::new(), Vec::new());
        let mut pending = Vec::new();
        let mut at = self.events.after(START);
        while let Some(event) = self.events.get(at) {
            let index = match event {
                Event::Call(index) => index,
                Event::End(index) if pending.contains(&index) => break,
                // What it put there was seen before it was called.
                Event::End(index) => {
                    pending.push(index);
                    break;
                }
            };
            let operation = &self.operations[index];
            pending.push(index);
            if self.fits(operation).is_some() && !self.destroys(operation) {
                if operation.end.is_some() { found.push(index) } else { open.push(index) }
            }
            at = self.events.after(at);
        }
        if self.placed >= self.furthest.placed {
            let stuck = pending.iter().map(|index| self.operations[*index]).collect();
            self.furthest = Broken { placed: self.placed, value: self.value, stuck, needed: None };
        }
        found.sort_by_key(|index| std::cmp::Reverse(self.operations[*index].end));
        open.extend(found);
        open
    }

    /// Where the search that came furthest ended.
    fn broken(self) -> Broken {
        let mut broken = self.furthest;
        let next_end = broken.stuck.iter().filter_map(|operation| operation.end).min();
        let mut later = self.operations.iter().filter(|operation| Some(operation.call) > next_end);
        let needs = self.needs.contains_key(&broken.value);
        let needed = later.rfind(|o| needs && o.needs() == Some(broken.value));
        broken.needed = needed.copied();
        broken
    }

    /// Whether it would replace a value that others still need and that nobody can put there again.
    fn destroys(&self, operation: &Operation) -> bool {
        let needs = self.needs.get(&self.value).copied().unwrap_or(0);
        needs > u32::from(operation.needs() == Some(self.value))
    }

    fn place(&mut self, index: usize) {
        let operation = &self.operations[index];
        self.value = self.fits(operation).unwrap_or(self.value);
        self.count(index, false);
        self.events.remove(index);
    }

    /// Undoes placing them, the last one first. The value is the caller's.
    fn take_back(&mut self, placed: &[usize]) {
        for index in placed.iter().rev() {
            self.count(*index, true);
            self.events.put_back(*index);
        }
    }

    fn count(&mut self, index: usize, back: bool) {
        let operation = &self.operations[index];
        let by = |number: usize| if back { number + 1 } else { number - 1 };
        if operation.end.is_some() {
            self.left = by(self.left);
        }
        if let Some(needs) = operation.needs().and_then(|value| self.needs.get_mut(&value)) {
            *needs = if back { *needs + 1 } else { *needs - 1 };
        }
        self.placed = if back { self.placed - 1 } else { self.placed + 1 };
        self.set ^= name(index as u64);
    }
}

/// A number of its own.
fn name(of: u64) -> u128 {
    u128::from(mix(of)) << 64 | u128::from(mix(of ^ 0xA5A5_5A5A_0F0F_F0F0))
}

/// What stands before all events.
const START: usize = 0;

/// A call or an end.
#[derive(Debug, Clone, Copy)]
enum Event {
    Call(usize),
    End(usize),
}

/// The calls and ends that are left, in the order of time: a list of two directions, from which what is
/// taken out can be put back in the opposite order.
#[derive(Debug)]
struct Events {
    /// None at [`START`].
    events: Vec<Option<Event>>,
    after: Vec<usize>,
    before: Vec<usize>,
    /// Where each operation's call and end are.
    places: Vec<(usize, Option<usize>)>,
}

impl Events {
    fn of(operations: &[Operation]) -> Self {
        let calls = operations.iter().enumerate().map(|(i, o)| (o.call, false, i));
        let ends = operations.iter().enumerate();
        let ends = ends.filter_map(|(i, o)| o.end.map(|end| (end, true, i)));
        let mut order: Vec<_> = calls.chain(ends).collect();
        // At one instant calls come first: what touches may have overlapped.
        order.sort_unstable();
        let mut events = vec![None];
        let mut places = vec![(0, None); operations.len()];
        for (at, (_, is_end, index)) in order.into_iter().enumerate() {
            events.push(Some(if is_end { Event::End(index) } else { Event::Call(index) }));
            match is_end {
                true => places[index].1 = Some(at + 1),
                false => places[index].0 = at + 1,
            }
        }
        let count = events.len();
        let after = (1..=count).map(|next| next % count).collect();
        let before = (0..count).map(|at| (at + count - 1) % count).collect();
        Self { events, after, before, places }
    }

    fn after(&self, at: usize) -> usize {
        self.after[at]
    }

    fn get(&self, at: usize) -> Option<Event> {
        self.events[at]
    }

    fn remove(&mut self, index: usize) {
        let (call, end) = self.places[index];
        for at in [Some(call), end].into_iter().flatten() {
            let (before, after) = (self.before[at], self.after[at]);
            self.after[before] = after;
            self.before[after] = before;
        }
    }

    fn put_back(&mut self, index: usize) {
        let (call, end) = self.places[index];
        for at in [end, Some(call)].into_iter().flatten() {
            let (before, after) = (self.before[at], self.after[at]);
            self.after[before] = at;
            self.before[after] = at;
        }
    }
}

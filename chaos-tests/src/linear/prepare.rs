//! What follows without any search from a value that one operation alone can have put there.
//!
//! - Whoever needs that value (a read that saw it, a swap that replaced it) ended after it was put
//!   there. So the operation that put it there took effect before the first of them ended, whether its
//!   own outcome is known or not.
//! - If nobody ever needed it, nor may have, and its outcome is not known, it may as well never have taken effect:
//!   where it did, nobody could tell. Only a swap that was refused could, so with one of these in the
//!   history it stays.
//!
//! With it, the operations of unknown outcome of a history whose values are all different have ends
//! like all others, and a search never drags them along.

use std::collections::{BTreeMap, BTreeSet};

use super::{ABSENT, Action, Operation, Value};

/// A history that a search can begin with.
#[derive(Debug)]
pub(super) struct Prepared {
    /// In the order of their calls. An end may be earlier than the answer came.
    pub(super) operations: Vec<Operation>,
    /// For each value that one operation alone can have put there (or nobody, but it was there to begin
    /// with): how many need it.
    pub(super) needs: BTreeMap<Value, u32>,
}

#[derive(Debug, Default)]
struct Use {
    writers: u32,
    needs: u32,
    first_needed: Option<u64>,
}

pub(super) fn prepare(history: &[Operation]) -> Prepared {
    let mut operations = history.to_vec();
    let mut uses = uses(&operations);
    // What is known to have been done needs what it replaced, and so on.
    while settle(&mut operations, &uses) {
        uses = self::uses(&operations);
    }
    let refusals = operations.iter().any(Operation::is_refusal);
    let wanted = wanted(&operations, &uses);
    operations.retain_mut(|operation| {
        let found = operation.puts().and_then(|value| uses.get(&value));
        if let Some(found) = found {
            operation.end = operation.end.into_iter().chain(found.first_needed).min();
        }
        match (operation.end, operation.action) {
            (Some(_), _) => true,
            // Of a read without an answer nothing can be said.
            (None, Action::Read(_)) => false,
            (None, _) => {
                let wanted = operation.puts().is_some_and(|value| wanted.contains(&value));
                refusals || wanted || found.is_none()
            }
        }
    });
    operations.sort_by_key(|operation| operation.call);
    let needs = uses.into_iter().map(|(value, found)| (value, found.needs)).collect();
    Prepared { operations, needs }
}

/// The values that at most one operation can have put there.
fn uses(operations: &[Operation]) -> BTreeMap<Value, Use> {
    let mut uses: BTreeMap<Value, Use> = BTreeMap::new();
    uses.entry(ABSENT).or_default().writers = 1;
    for operation in operations {
        if let Some(value) = operation.puts() {
            uses.entry(value).or_default().writers += 1;
        }
        if let (Some(value), Some(end)) = (operation.needs(), operation.end) {
            let found = uses.entry(value).or_default();
            found.needs += 1;
            found.first_needed = Some(found.first_needed.map_or(end, |first| first.min(end)));
        }
    }
    uses.retain(|_, found| found.writers <= 1);
    uses
}

/// What swaps may have replaced that stay although nobody knows whether they were done.
fn wanted(operations: &[Operation], uses: &BTreeMap<Value, Use>) -> BTreeSet<Value> {
    let mut wanted = BTreeSet::new();
    loop {
        let open = operations.iter().filter(|operation| operation.end.is_none());
        let more = open.filter_map(|operation| match operation.action {
            Action::Swap { expect, new, .. } => {
                (!uses.contains_key(&new) || wanted.contains(&new)).then_some(expect)
            }
            Action::Write(_) | Action::Read(_) => None,
        });
        let more: BTreeSet<Value> = more.collect();
        if more == wanted {
            return wanted;
        }
        wanted = more;
    }
}

/// Gives ends to the operations of unknown outcome whose values were needed; says whether there was any.
fn settle(operations: &mut [Operation], uses: &BTreeMap<Value, Use>) -> bool {
    let mut any = false;
    for operation in operations.iter_mut().filter(|operation| operation.end.is_none()) {
        let found = operation.puts().and_then(|value| uses.get(&value));
        let Some(needed) = found.and_then(|found| found.first_needed) else { continue };
        operation.end = Some(needed);
        if let Action::Swap { done, .. } = &mut operation.action {
            *done = true;
        }
        any = true;
    }
    any
}

impl Operation {
    /// What it may have put there.
    pub(super) fn puts(&self) -> Option<Value> {
        match self.action {
            Action::Write(value) => Some(value),
            Action::Swap { new, done, .. } => (done || self.end.is_none()).then_some(new),
            Action::Read(_) => None,
        }
    }

    /// What must have been there, if it is known to have been done.
    pub(super) fn needs(&self) -> Option<Value> {
        match self.action {
            Action::Read(value) => Some(value),
            Action::Swap { expect, done: true, .. } => self.end.map(|_| expect),
            Action::Write(_) | Action::Swap { .. } => None,
        }
    }

    /// Whether it changed nothing because something else was there.
    fn is_refusal(&self) -> bool {
        self.end.is_some() && matches!(self.action, Action::Swap { done: false, .. })
    }
}

//! Whether a history of a register's clients is linearizable (I6): whether each operation can be
//! given one instant between its call and its end, so that a single copy, doing them one after
//! another at these instants, would have answered the same.
//!
//! Histories are checked object by object, since a history is linearizable if and only if that of each
//! object is (Herlihy and Wing, *Linearizability*, 1990, theorem 1). The search is that of Wing and Gong
//! (*Testing and Verifying Concurrent Objects*, 1993) with Lowe's memory of configurations (*Testing
//! for linearizability*, 2017): depth first, one operation more at a time, never twice into the same
//! set of operations with the same value.
//!
//! An operation without an end is one whose outcome nobody knows: it may take effect at any time after
//! its call, or never. A search that has not ended within its [`Limits`] is [`Verdict::Undecided`],
//! which is no pass.
//!
//! - [`prepare`]: what follows from values that only one operation writes, without any search;
//! - [`search`]: the search.

mod prepare;
mod search;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

/// What a register holds. [`ABSENT`] is no value, which every register begins with.
pub type Value = u64;

/// No value.
pub const ABSENT: Value = 0;

/// What an operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Was to put this there.
    Write(Value),
    /// Was answered that this was there.
    Read(Value),
    /// Was to put `new` there if `expect` was; where the outcome is known, `done` says whether it was.
    Swap {
        /// What had to be there.
        expect: Value,
        /// What is there afterwards.
        new: Value,
        /// Whether it was. Without a meaning where the outcome is not known.
        done: bool,
    },
}

/// One operation on one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Before it was asked for, on the clock that all operations share.
    pub call: u64,
    /// After its answer came, on the same clock; `None` if no answer came that says what it did.
    pub end: Option<u64>,
    /// What it did.
    pub action: Action,
}

/// How long a search may go on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Configurations looked at, an object.
    pub configurations: u64,
    /// For one object.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { configurations: 20_000_000, time: Duration::from_secs(60) }
    }
}

/// What a history is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Linearizable.
    Holds,
    /// Not linearizable.
    Broken(Broken),
    /// The search was given up.
    Undecided,
}

/// Where the search that came furthest could not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// How many operations had been given their instant.
    pub placed: usize,
    /// What the register held then.
    pub value: Value,
    /// Those that had to come next, and none of which could, in the order of their calls.
    pub stuck: Vec<Operation>,
    /// A later one that needs what the register held, which nobody could have put there again.
    pub needed: Option<Operation>,
}

/// Judges the history of one register, in any order.
pub fn check(history: &[Operation], limits: Limits) -> Verdict {
    search::search(&prepare::prepare(history), limits)
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.end.map_or_else(|| "...".to_owned(), |end| end.to_string());
        write!(f, "[{} {end}] ", self.call)?;
        match (self.action, self.end) {
            (Action::Write(value), _) => write!(f, "write {value}"),
            (Action::Read(value), _) => write!(f, "read {value}"),
            (Action::Swap { expect, new, .. }, None) => write!(f, "swap {expect} for {new}"),
            (Action::Swap { expect, new, done: true }, _) => {
                write!(f, "swapped {expect} for {new}")
            }
            (Action::Swap { expect, new, done: false }, _) => {
                write!(f, "swapped no {expect} for {new}")
            }
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "after {} operations it held {}, and none of these fits:",
            self.placed, self.value
        )?;
        self.stuck.iter().try_for_each(|operation| write!(f, " {operation};"))?;
        match self.needed {
            Some(later) => write!(f, " later comes {later}"),
            None => Ok(()),
        }
    }
}

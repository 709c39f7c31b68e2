//! What clients did to the labels of nodes, and what that says of each label by itself.

use std::collections::BTreeMap;

use crate::linear::{Action, Operation, Value};

/// One call of one client, as it saw it. Times are in nanoseconds since the run began.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// Which node's labels, by its place in the list of nodes.
    pub(super) node: usize,
    /// Before the first message left.
    pub(super) call: u64,
    /// After the answer came; `None` if there was none that says what became of it.
    pub(super) end: Option<u64>,
    pub(super) what: What,
}

/// What it did.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    /// Saw all labels of the node, and its version.
    Read { values: Vec<Value>, version: u64 },
    /// Gave one label this value; the version is that which the node had then.
    Write { key: usize, value: Value, version: Option<u64> },
    /// The same, if the node was of that version, at which the label had been seen to be `expect`.
    Swap { key: usize, expect: Value, at: u64, value: Value, version: Option<u64> },
    /// It was not, so nothing was changed. Any label may have been the reason: nothing follows for this one.
    Refused,
}

/// The history of each label of each node, by node and label.
pub(super) fn registers(calls: &[Call]) -> BTreeMap<(usize, usize), Vec<Operation>> {
    let mut registers: BTreeMap<_, Vec<Operation>> = BTreeMap::new();
    for Call { node, call, end, what } in calls {
        let mut put = |key: usize, action| {
            let operation = Operation { call: *call, end: *end, action };
            registers.entry((*node, key)).or_default().push(operation);
        };
        match what {
            What::Read { values, .. } => {
                values.iter().enumerate().for_each(|(key, value)| put(key, Action::Read(*value)));
            }
            What::Write { key, value, .. } => put(*key, Action::Write(*value)),
            What::Swap { key, expect, value, .. } => {
                put(*key, Action::Swap { expect: *expect, new: *value, done: end.is_some() });
            }
            What::Refused => {}
        }
    }
    registers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_one_of_every_label() {
        let call = |call, end, what| Call { node: 1, call, end, what };
        let calls = [
            call(0, Some(1), What::Write { key: 0, value: 7, version: Some(3) }),
            call(2, Some(3), What::Read { values: vec![7, 0], version: 3 }),
            call(4, None, What::Swap { key: 1, expect: 0, at: 3, value: 8, version: None }),
            call(5, Some(6), What::Refused),
        ];
        let registers = registers(&calls);
        let actions = |key| -> Vec<_> { registers[&(1, key)].iter().map(|o| o.action).collect() };
        assert_eq!(actions(0), [Action::Write(7), Action::Read(7)]);
        let swap = Action::Swap { expect: 0, new: 8, done: false };
        assert_eq!(actions(1), [Action::Read(0), swap]);
        assert_eq!(registers.len(), 2);
    }
}

//! What is applied: entries, and above all the reports of nodes, which are put into entries as they come.
//! Whatever they say, the state stays one that can be written and read again.
//!
//! The first byte of an input says what the rest is, one behind the other: reports of a node, or entries.

use std::sync::LazyLock;

use holdfast_core::{Command, Entry, RecordReport, State, apply};
use holdfast_types::{Report, RequestId, TimestampMs};
use openraft::EntryPayload;
use rmp_serde::Deserializer;
use serde::Deserialize;

use super::{all_kept, kept};
use crate::codec::{decode, encode, unseal};
use crate::types::LogEntry;

/// More in one input would be the same once more.
const MOST: u64 = 4;

/// What the kept entries make, and the index of the next one.
static BEFORE: LazyLock<(State, u64)> = LazyLock::new(|| {
    let mut state = State::default();
    let mut next = 1;
    for entry in kept_entries() {
        let _answer = apply(&mut state, next, entry);
        next += 1;
    }
    (state, next)
});

/// Applies what is in an input.
pub fn read(input: &[u8]) {
    let [which, rest @ ..] = input else { return };
    let (mut state, first) = BEFORE.clone();
    let mut read = Deserializer::from_read_ref(rest);
    for index in first..first + MOST {
        let entry = match which % 2 {
            0 => Report::deserialize(&mut read).ok().map(|report| of_node(&state, index, report)),
            _ => Entry::deserialize(&mut read).ok(),
        };
        let Some(entry) = entry else { break };
        let _answer = apply(&mut state, index, entry);
    }
    let bytes = encode(&state).expect("a state can be written");
    assert!(decode::<State>(&bytes).is_ok_and(|again| again == state));
}

/// In the present life of one of the nodes.
fn of_node(state: &State, index: u64, report: Report) -> Entry {
    let nodes: Vec<_> = state.nodes.values().collect();
    let node = nodes.get(index as usize % nodes.len().max(1));
    let (node, incarnation) = node.map(|node| (node.id, node.incarnation)).unwrap_or_default();
    Entry {
        request: request(index as u8),
        at: TimestampMs(2_000_000_000_000),
        command: Command::RecordReport(RecordReport { node, incarnation, report }),
    }
}

/// One that nobody made before.
fn request(number: u8) -> RequestId {
    RequestId::try_from(&[number; 16][..]).expect("16 bytes")
}

fn kept_entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for name in all_kept().into_iter().filter(|name| name.starts_with("entry-")) {
        if let Ok(LogEntry { payload: EntryPayload::Normal(bytes), .. }) = unseal(&kept(&name)) {
            // Those that are named after their index come in its order.
            let index = name.rsplit('-').next().and_then(|n| n.parse::<u64>().ok());
            entries.push((index, bytes.decode().expect("a kept entry")));
        }
    }
    entries.sort_by_key(|(index, _)| *index);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Each kept entry and each kept report.
pub fn seeds() -> Vec<Vec<u8>> {
    let bytes = |which: u8, body: Vec<u8>| [&[which], &body[..]].concat();
    let mut seeds = Vec::new();
    for entry in kept_entries() {
        if let Command::RecordReport(RecordReport { report, .. }) = &entry.command {
            seeds.push(bytes(0, encode(report).expect("a report can be written")));
        }
        let entry = Entry { request: request(0xff), ..entry };
        seeds.push(bytes(1, encode(&entry).expect("an entry can be written")));
    }
    seeds
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_entries_are_applied_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 1_500, super::read);
    }
}

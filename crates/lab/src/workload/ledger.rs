//! The client's memory of what it was answered, held against the disk. Pure.

use std::collections::HashMap;

use super::chain::Record;
use crate::clock::BootInstant;

/// A record that the client was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acked {
    /// The record.
    pub record: Record,
    /// When the request was sent.
    pub sent: BootInstant,
    /// When the answer was whole.
    pub acked: BootInstant,
    /// The same moment on the wall clock, in milliseconds.
    pub acked_wall_ms: u64,
}

/// What holding the ledger against a chain showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Records that were to be there.
    pub acked: usize,
    /// Those that are not.
    pub lost: usize,
    /// Those of them that were acknowledged before the moment that the takeover stated as *data
    /// as of*, or are missing without any takeover: loss that nobody reported (I22).
    pub unreported: usize,
    /// The oldest lost one.
    pub oldest_lost: Option<BootInstant>,
}

/// Acknowledged records that must be on the disk, until a takeover has reported them lost.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    expected: Vec<Acked>,
}

impl Ledger {
    /// Takes note of more.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Acked>) {
        self.expected.extend(more);
    }

    /// Holds it against the disk's chain. `data_as_of_ms` is what the takeover since the last
    /// judgement said, if there was one. What is missing is no longer expected afterwards.
    pub fn judge(&mut self, chain: &[Record], data_as_of_ms: Option<u64>) -> Judgement {
        let disk: HashMap<u64, &str> = chain.iter().map(|r| (r.number, r.hash.as_str())).collect();
        let mut out = Judgement { acked: self.expected.len(), ..Judgement::default() };
        self.expected.retain(|acked| {
            if disk.get(&acked.record.number) == Some(&acked.record.hash.as_str()) {
                return true;
            }
            out.lost += 1;
            // In the same millisecond as the snapshot is still reported.
            if data_as_of_ms.is_none_or(|as_of| acked.acked_wall_ms < as_of) {
                out.unreported += 1;
            }
            let oldest = out.oldest_lost.map_or(acked.acked, |known| known.min(acked.acked));
            out.oldest_lost = Some(oldest);
            false
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::testing::chain;
    use super::*;

    fn acked(records: &[Record]) -> Vec<Acked> {
        let ack = |r: &Record| {
            let at = BootInstant(r.number * 1_000_000);
            Acked { record: r.clone(), sent: at, acked: at, acked_wall_ms: 1000 + r.number }
        };
        records.iter().map(ack).collect()
    }

    fn ledger(length: u64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.extend(acked(&chain(length)));
        ledger
    }

    #[test]
    fn what_is_there_is_not_lost() {
        let verdict = ledger(10).judge(&chain(12), None);
        assert_eq!((verdict.acked, verdict.lost, verdict.unreported), (10, 0, 0));
    }

    /// I22: what was acknowledged after the stated moment is reported loss, before it is not.
    #[test]
    fn loss_is_unreported_when_older_than_the_stated_moment() {
        let verdict = ledger(10).judge(&chain(7), Some(1008));
        assert_eq!((verdict.lost, verdict.unreported), (3, 0));
        assert_eq!(verdict.oldest_lost, Some(BootInstant(8_000_000)));
        let verdict = ledger(10).judge(&chain(7), Some(1009));
        assert_eq!((verdict.lost, verdict.unreported), (3, 1));
    }

    #[test]
    fn loss_without_a_takeover_is_unreported() {
        assert_eq!(ledger(10).judge(&chain(9), None).unreported, 1);
    }

    /// After a takeover numbers are used again: another record with the same number is a loss.
    #[test]
    fn a_number_with_another_hash_is_another_record() {
        let mut disk = chain(10);
        disk[9].hash = "other".into();
        assert_eq!(ledger(10).judge(&disk, Some(0)).lost, 1);
    }

    #[test]
    fn a_reported_loss_is_counted_once() {
        let mut ledger = ledger(10);
        assert_eq!(ledger.judge(&chain(9), Some(0)).lost, 1);
        assert_eq!(ledger.judge(&chain(9), None), Judgement { acked: 9, ..Default::default() });
    }
}

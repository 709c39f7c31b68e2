//! The record chain: `number previous-hash time hash`, one line each. A record's hash is the
//! SHA-256 of the first three, so that no line can be missing, changed, torn or moved unseen.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The previous hash of the first record.
const GENESIS: &str = "0";

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts from 1.
    pub number: u64,
    /// The hash of the record before.
    pub previous: String,
    /// Seconds since the Unix epoch, as the container saw them.
    pub time: String,
    /// Over the three others.
    pub hash: String,
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// A line that is no whole record.
    #[error("line {0} is torn")]
    Torn(usize),
    /// A record whose hash is not its content's.
    #[error("record {0} does not match its hash")]
    BadHash(u64),
    /// A record that does not follow the one before it.
    #[error("record {0} does not follow the one before it")]
    Broken(u64),
}

impl Record {
    /// Reads one line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next().map(str::to_owned);
        let record = Self {
            number: next()?.parse().ok()?,
            previous: next()?,
            time: next()?,
            hash: next()?.trim_end().to_owned(),
        };
        words.next().is_none().then_some(record)
    }

    fn is_sound(&self) -> bool {
        self.hash == digest(&format!("{} {} {}", self.number, self.previous, self.time))
    }
}

/// Reads a whole chain, and checks it link by link.
pub fn parse_chain(text: &str) -> Result<Vec<Record>, ChainFault> {
    let mut chain: Vec<Record> = Vec::new();
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let whole = line.strip_suffix('\n').and_then(Record::parse);
        let record = whole.ok_or(ChainFault::Torn(at + 1))?;
        if !record.is_sound() {
            return Err(ChainFault::BadHash(record.number));
        }
        let (number, previous) =
            chain.last().map_or((1, GENESIS), |last| (last.number + 1, last.hash.as_str()));
        if record.number != number || record.previous != previous {
            return Err(ChainFault::Broken(record.number));
        }
        chain.push(record);
    }
    Ok(chain)
}

fn digest(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A sound chain of this many records.
    pub(in super::super) fn chain(length: u64) -> Vec<Record> {
        let mut previous = GENESIS.to_owned();
        let make = |number| {
            let hash = digest(&format!("{number} {previous} 7"));
            let record = Record { number, previous: previous.clone(), time: "7".into(), hash };
            previous.clone_from(&record.hash);
            record
        };
        (1..=length).map(make).collect()
    }

    pub(super) fn text(chain: &[Record]) -> String {
        let line = |r: &Record| format!("{} {} {} {}\n", r.number, r.previous, r.time, r.hash);
        chain.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{chain, text};
    use super::*;

    #[test]
    fn a_sound_chain_is_read_whole() {
        assert_eq!(parse_chain(&text(&chain(3))), Ok(chain(3)));
        assert_eq!(parse_chain(""), Ok(vec![]));
    }

    #[test]
    fn every_kind_of_damage_is_named() {
        let sound = text(&chain(3));
        assert_eq!(parse_chain(&sound[..sound.len() - 1]), Err(ChainFault::Torn(3)));
        assert_eq!(parse_chain(&format!("{sound}\0\0\0\n")), Err(ChainFault::Torn(4)));
        let mut changed = chain(3);
        changed[1].time = "8".into();
        assert_eq!(parse_chain(&text(&changed)), Err(ChainFault::BadHash(2)));
        let mut gap = chain(3);
        gap.remove(1);
        assert_eq!(parse_chain(&text(&gap)), Err(ChainFault::Broken(3)));
    }
}

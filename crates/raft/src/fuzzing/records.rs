//! What the log has, and its tail beside it. Where a checksum would stop all but one input in four
//! billion, the true one is put in as well, so that what lies behind it is tried.
//!
//! The first byte of an input says what the rest is.

use holdfast_core::Entry;
use openraft::EntryPayload;

use super::{all_kept, kept};
use crate::codec::{decode, encode, unseal};
use crate::store::is_record;
use crate::types::{EntryBytes, LogEntry, LogId, Vote};

const READERS: [fn(&[u8]); 4] = [entry, mark, content, slot];

/// Reads one record.
pub fn read(input: &[u8]) {
    let [which, record @ ..] = input else { return };
    READERS[usize::from(*which) % READERS.len()](record);
}

fn entry(record: &[u8]) {
    drop(unseal::<LogEntry>(record));
    drop(unseal::<LogEntry>(&with_crc(record)));
}

fn mark(record: &[u8]) {
    let sealed = with_crc(record);
    drop((unseal::<Vote>(&sealed), unseal::<Option<LogId>>(&sealed)));
}

/// What an entry says.
fn content(record: &[u8]) {
    if let Ok(entry) = decode::<Entry>(record) {
        let again = encode(&entry).and_then(|bytes| decode::<Entry>(&bytes));
        assert_eq!(again, Ok(entry));
    }
    drop(decode::<EntryBytes>(record).map(|bytes| bytes.decode()));
}

fn slot(record: &[u8]) {
    let sealed = with_crc(record);
    let len = u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_le_bytes();
    let _whole = [is_record(record), is_record(&[&len[..], &sealed].concat())];
}

fn with_crc(body: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(body).to_le_bytes()[..], body].concat()
}

/// Each that is kept, without its checksum, and what is in it.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![[&[3], &kept("node/log.tail")[..]].concat()];
    for name in all_kept() {
        let record = kept(&name);
        let which = match name.as_str() {
            n if n.starts_with("entry-") => 0,
            n if n.starts_with("sealed-") => 1,
            _ => continue,
        };
        let entry = unseal::<LogEntry>(&record).ok().map(|entry| entry.payload);
        if let Some(EntryPayload::Normal(bytes)) = entry {
            let entry = encode(&bytes.decode().expect("a kept entry"));
            seeds.push([&[2], &entry.expect("it was encoded before")[..]].concat());
        }
        seeds.push([&[which], &record[4..]].concat());
    }
    seeds
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_records_are_read_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 100_000, super::read);
    }
}

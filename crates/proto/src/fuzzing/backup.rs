//! A backup file, in whatever pieces it comes: what is taken for one is whole, and its state lies in it.
//!
//! The first byte of an input says in pieces of what size; its lowest bit, whether the true hash is put
//! behind the rest.

use std::io::Write;

use crate::backup::{Backup, BackupCheck, BackupError, BackupWriter, FORMAT};
use crate::v1::BackupHeader;

/// Reads one file.
pub fn read(input: &[u8]) {
    let [how, file @ ..] = input else { return };
    let mut file = file.to_vec();
    if how & 1 == 1 {
        let hash = blake3::hash(&file);
        file.extend_from_slice(hash.as_bytes());
    }
    let Ok(Backup { header, state, hash }) = check(&file, 1 + usize::from(*how >> 1) * 3) else {
        return;
    };
    assert!(header.format <= FORMAT && state.start <= state.end);
    let body = file.len() - blake3::OUT_LEN;
    assert_eq!((state.end, hash), (body as u64, blake3::hash(&file[..body]).to_hex().to_string()));
}

fn check(file: &[u8], piece: usize) -> Result<Backup, BackupError> {
    let mut check = BackupCheck::default();
    file.chunks(piece).try_for_each(|part| check.push(part))?;
    check.finish()
}

/// Whole files, and one without its hash.
pub fn seeds() -> Vec<Vec<u8>> {
    let header =
        BackupHeader { format: FORMAT, index: 42, node: "n1".into(), ..Default::default() };
    let newer = BackupHeader { format: FORMAT + 1, ..header.clone() };
    let file = |header, state: &[u8]| {
        let mut writer = BackupWriter::begin(Vec::new(), header).expect("a vector takes all");
        writer.write_all(state).and_then(|()| writer.finish()).expect("a vector takes all")
    };
    let whole = [file(&header, b"the state"), file(&header, b""), file(&newer, &[7; 300])];
    let mut seeds: Vec<_> = whole.iter().map(|file| [&[6], &file[..]].concat()).collect();
    let hashless = whole.iter().map(|file| [&[7], &file[..file.len() - blake3::OUT_LEN]].concat());
    seeds.extend(hashless);
    seeds
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_backups_are_read_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 100_000, super::read);
    }
}

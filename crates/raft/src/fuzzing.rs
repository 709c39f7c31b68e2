//! Whatever a peer sends or a disk holds, read as the product reads it (I27): it may be refused, and
//! must not panic or take memory on a length's word. For the fuzzer in `fuzz`, which alone sets
//! `cfg(fuzzing)` (see cargo-fuzz), and for a short run of the same in the tests.

#[cfg(test)]
pub(crate) mod spoil;

use std::fs;
use std::path::Path;

use holdfast_core::{Entry, State, apply};
use holdfast_types::ClusterId;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesResponse, SnapshotResponse, VoteResponse};

use crate::codec::{decode, encode, unseal};
use crate::machine::Machine;
use crate::published::Hashes;
use crate::snapshot::SnapshotFile;
use crate::store::{Health, is_record};
use crate::types::{EntryBytes, LogEntry, LogId, TypeConfig, Vote};
use crate::{dir, net};

/// What an input is read as. Where a hash or a checksum would stop all but one input in four
/// billion, the true one is put in as well, so that what lies behind it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Append,
    Vote,
    Transfer,
    Install,
    Answer,
    SealedEntry,
    SealedMark,
    Entry,
    State,
    TailSlot,
    Snapshot,
    SnapshotWithItsHash,
    Identity,
}

impl Kind {
    /// All of them, in the order of an input's first byte.
    pub const ALL: [Self; 13] = [
        Self::Append,
        Self::Vote,
        Self::Transfer,
        Self::Install,
        Self::Answer,
        Self::SealedEntry,
        Self::SealedMark,
        Self::Entry,
        Self::State,
        Self::TailSlot,
        Self::Snapshot,
        Self::SnapshotWithItsHash,
        Self::Identity,
    ];
}

/// Reads `input`; what is a file of its own is put into `place` first.
pub fn read(kind: Kind, input: &[u8], place: &Path) {
    match kind {
        Kind::Append => passes(net::Call::Append, input),
        Kind::Vote => passes(net::Call::Vote, input),
        Kind::Transfer => passes(net::Call::Transfer, input),
        Kind::Install => passes(net::Call::Install, input),
        Kind::Answer => {
            drop(decode::<AppendEntriesResponse<TypeConfig>>(input));
            drop(decode::<VoteResponse<TypeConfig>>(input));
            drop(decode::<SnapshotResponse<TypeConfig>>(input));
        }
        Kind::SealedEntry => {
            drop(unseal::<LogEntry>(input));
            drop(unseal::<LogEntry>(&with_crc(input)));
        }
        Kind::SealedMark => {
            drop(unseal::<Vote>(&with_crc(input)));
            drop(unseal::<Option<LogId>>(&with_crc(input)));
        }
        Kind::Entry => {
            drop(decode::<Entry>(input));
            drop(decode::<EntryBytes>(input).map(|bytes| bytes.decode()));
        }
        Kind::State => drop(decode::<State>(input)),
        Kind::TailSlot => {
            let sealed = with_crc(input);
            let len = u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_le_bytes();
            let _whole = [is_record(input), is_record(&[&len[..], &sealed].concat())];
        }
        Kind::Snapshot => snapshot(input, place),
        Kind::SnapshotWithItsHash => {
            let body = [SNAPSHOT_MAGIC, input].concat();
            let hash = blake3::hash(&body);
            snapshot(&[&body[..], hash.as_bytes()].concat(), place);
        }
        Kind::Identity => {
            identity(input, place);
            let hash = blake3::hash(input).to_hex();
            identity(&[input, b"blake3 ", hash.as_bytes(), b"\n"].concat(), place);
        }
    }
}

const SNAPSHOT_MAGIC: &[u8] = b"HFSNAP1\n";

fn passes(call: net::Call, input: &[u8]) {
    let _passes = net::well_formed(call, input);
}

fn with_crc(body: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(body).to_le_bytes()[..], body].concat()
}

fn snapshot(content: &[u8], place: &Path) {
    let path = place.join("snapshot");
    fs::write(&path, content).expect("a file");
    let cluster = ClusterId::try_from(&[0x11; 16][..]).expect("16 bytes");
    let health = Health::new();
    if let Ok((file, found)) = SnapshotFile::open(path, cluster, health.clone()) {
        drop(Machine::new(file, found, Hashes::new(0), health));
    }
}

fn identity(content: &[u8], place: &Path) {
    fs::write(dir::identity_file(place), content).expect("a file");
    drop(dir::read_identity(place));
}

/// What to begin with: of each kind what `tests/golden` keeps, with the names there.
pub fn seeds() -> Vec<(String, Kind, Vec<u8>)> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/level-1");
    let read = |name: &str| fs::read(kept.join(name)).expect("a kept file");
    let mut seeds = Vec::new();
    let mut state = State::default();
    let mut index = 0;
    let mut names: Vec<_> = fs::read_dir(&kept)
        .expect("kept files")
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|name| name != "node")
        .collect();
    names.sort();
    for name in names {
        let content = read(&name);
        let kind = match name.as_str() {
            n if n.contains("-answer") => Kind::Answer,
            n if n.starts_with("rpc-append") => Kind::Append,
            n if n.starts_with("rpc-vote") => Kind::Vote,
            n if n.starts_with("rpc-transfer") => Kind::Transfer,
            n if n.starts_with("rpc-install") => Kind::Install,
            n if n.starts_with("entry-") => Kind::SealedEntry,
            _ => Kind::SealedMark,
        };
        if [Kind::SealedEntry, Kind::SealedMark].contains(&kind) {
            let entry = unseal::<LogEntry>(&content).ok().map(|entry| entry.payload);
            if let Some(EntryPayload::Normal(bytes)) = entry {
                let entry = bytes.decode().expect("a kept entry");
                seeds.push((
                    format!("content-of-{name}"),
                    Kind::Entry,
                    encode(&entry).unwrap_or_default(),
                ));
                index += 1;
                let _answer = apply(&mut state, index, entry);
            }
            // The checksum is put in.
            seeds.push((name, kind, content[4..].to_vec()));
        } else {
            seeds.push((name, kind, content));
        }
    }
    seeds.push(("state".into(), Kind::State, encode(&state).unwrap_or_default()));
    let snapshot = read("node/snapshot");
    let bare = snapshot[SNAPSHOT_MAGIC.len()..snapshot.len() - blake3::OUT_LEN].to_vec();
    seeds.push(("snapshot".into(), Kind::Snapshot, snapshot));
    seeds.push(("snapshot-hashed".into(), Kind::SnapshotWithItsHash, bare));
    seeds.push(("tail".into(), Kind::TailSlot, read("node/log.tail")));
    seeds.push(("identity".into(), Kind::Identity, read("node/identity")));
    seeds
}

#[cfg(test)]
mod tests {
    use super::spoil::Random;
    use super::*;

    /// Of each kind; `HOLDFAST_FUZZ_ROUNDS` asks for more.
    const ROUNDS: usize = 600;

    #[test]
    fn what_is_spoiled_is_read_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let asked = std::env::var("HOLDFAST_FUZZ_ROUNDS").ok();
        let rounds = asked.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
        let seeds = seeds();
        let mut random = Random(0x0DD_BA11);
        for kind in Kind::ALL {
            let of_kind: Vec<_> = seeds.iter().filter(|(_, k, _)| *k == kind).collect();
            assert!(!of_kind.is_empty(), "nothing to begin {kind:?} with");
            for (name, _, content) in &of_kind {
                read(kind, content, dir.path());
                assert!(!content.is_empty(), "{name}");
            }
            for _ in 0..rounds {
                let mut input = of_kind[random.below(of_kind.len())].2.clone();
                for _ in 0..=random.below(5) {
                    random.spoil(&mut input);
                }
                read(kind, &input, dir.path());
            }
        }
    }

    /// Not a test: `HOLDFAST_FUZZ_CORPUS` says where the fuzzer's first inputs go.
    #[test]
    fn seeds_for_the_fuzzer() {
        let Ok(corpus) = std::env::var("HOLDFAST_FUZZ_CORPUS") else { return };
        fs::create_dir_all(&corpus).unwrap();
        for (name, kind, content) in seeds() {
            let first = Kind::ALL.iter().position(|k| *k == kind).unwrap() as u8;
            fs::write(Path::new(&corpus).join(name), [&[first], &content[..]].concat()).unwrap();
        }
    }
}

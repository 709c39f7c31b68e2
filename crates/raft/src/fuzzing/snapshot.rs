//! The replicated state as a whole: a snapshot's file, which is also what a leader sends; the state in a
//! backup; and the file that says whose they are. Where a hash would stop all others, the true one is put
//! in as well.
//!
//! The first byte of an input says what the rest is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use holdfast_core::{State, apply};
use holdfast_types::ClusterId;
use openraft::EntryPayload;

use super::{all_kept, kept};
use crate::codec::{decode, encode, unseal};
use crate::dir;
use crate::machine::Machine;
use crate::published::Hashes;
use crate::snapshot::SnapshotFile;
use crate::store::Health;
use crate::types::LogEntry;

const READERS: [fn(&[u8], &Path); 4] = [
    |state, _| drop(decode::<State>(state)),
    snapshot,
    |body, place| {
        let body = [MAGIC, body].concat();
        let hash = blake3::hash(&body);
        snapshot(&[&body[..], hash.as_bytes()].concat(), place);
    },
    |text, place| {
        identity(text, place);
        let hash = blake3::hash(text).to_hex();
        identity(&[text, b"blake3 ", hash.as_bytes(), b"\n"].concat(), place);
    },
];

const MAGIC: &[u8] = b"HFSNAP1\n";

/// Where files are.
static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
    let place = std::env::temp_dir().join(format!("holdfast-snapshot-{}", std::process::id()));
    fs::create_dir_all(&place).expect("a directory");
    place
});

/// Reads one of them.
pub fn read(input: &[u8]) {
    let [which, content @ ..] = input else { return };
    READERS[usize::from(*which) % READERS.len()](content, &PLACE);
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

/// What is kept, and the state that the kept entries make.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut state = State::default();
    let entries = all_kept().into_iter().filter(|name| name.starts_with("entry-"));
    for (index, name) in (1..).zip(entries) {
        if let Ok(LogEntry { payload: EntryPayload::Normal(bytes), .. }) = unseal(&kept(&name)) {
            let _answer = apply(&mut state, index, bytes.decode().expect("a kept entry"));
        }
    }
    let state = encode(&state).expect("a state can be encoded");
    let snapshot = kept("node/snapshot");
    let bare = &snapshot[MAGIC.len()..snapshot.len() - blake3::OUT_LEN];
    let identity = kept("node/identity");
    let seeds = [(0, &state[..]), (1, &snapshot), (2, bare), (3, &identity)];
    seeds.map(|(which, content)| [&[which], content].concat()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoiled_snapshots_are_read_or_refused() {
        holdfast_fuzz::spoiled(&seeds(), 1_000, read);
        fs::remove_dir_all(&*PLACE).unwrap();
    }
}

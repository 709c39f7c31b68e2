//! Whatever a peer sends or a disk holds, against what reads it (I27). The first byte of an input
//! says what the rest is: see `Kind` in `holdfast_raft::fuzzing`.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use holdfast_raft::fuzzing::{self, Kind};
use libfuzzer_sys::fuzz_target;

/// For what is read from a file; in memory where the machine has such a place.
static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let place = base.join(format!("holdfast-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a directory");
    place
});

fuzz_target!(|input: &[u8]| {
    let [kind, rest @ ..] = input else { return };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    fuzzing::read(kind, rest, &PLACE);
});

//! Whatever a peer sends or a disk holds, read as the product reads it: it may be refused, and must not
//! panic or take memory on a length's word. For the fuzzer: see `crates/fuzz`.

pub mod consensus;
pub mod entries;
pub mod records;
pub mod snapshot;

use std::fs;
use std::path::Path;

/// What `tests/golden` keeps: real bytes of everything that is on disks and between nodes.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/level-1");

fn kept(name: &str) -> Vec<u8> {
    fs::read(Path::new(KEPT).join(name)).expect("a kept file")
}

/// Those that are files by themselves, by their names.
fn all_kept() -> Vec<String> {
    let names = fs::read_dir(KEPT).expect("kept files");
    let names = names.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name != "node").collect();
    names.sort();
    names
}

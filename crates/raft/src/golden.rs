//! What each version has written, kept as real bytes, and that this one still reads all of it as
//! what it meant (DESIGN section 9).
//!
//! ```text
//! tests/golden/level-1/entry-*    sealed log entries: each command, each report, openraft's own
//!                      sealed-*   the vote and the marks beside the log
//!                      rpc-*      bodies of what nodes say to each other
//!                      node/      a whole data directory: identity, log, tail, snapshot
//! ```
//!
//! A level is a feature level. What has been in a release is never written again: a test that fails
//! here has found that the new code does not read what is on disks already, or reads it as something
//! else. Something new to keep (a command, a field that old bytes lack) is one more sample, at the
//! newest level, whose files are made by
//! `HOLDFAST_GOLDEN=write cargo nextest run -p holdfast-raft golden`, which adds missing files
//! and touches no others.

mod bodies;
mod entries;
mod node;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::codec::{decode, encode, seal, unseal};

/// The level of a sample that is made today.
const NEWEST: u32 = 1;

/// Says what bytes mean other than they should, if they do.
type Differs = Box<dyn Fn(&[u8]) -> Option<String>>;

/// Something that is kept: one file, and what it means.
struct Sample {
    level: u32,
    name: String,
    write: Box<dyn Fn() -> Vec<u8>>,
    differs: Differs,
}

impl Sample {
    /// A value in named MessagePack.
    fn body<T>(name: &str, value: T) -> Self
    where
        T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug + 'static,
    {
        let value = std::rc::Rc::new(value);
        let same = value.clone();
        Self {
            level: NEWEST,
            name: format!("rpc-{name}"),
            write: Box::new(move || encode(&*value).unwrap()),
            differs: Box::new(move |bytes| differs(decode::<T>(bytes), same.as_ref())),
        }
    }

    /// A value behind its checksum, as the store keeps it.
    fn sealed<T>(name: &str, value: T) -> Self
    where
        T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug + 'static,
    {
        let value = std::rc::Rc::new(value);
        let same = value.clone();
        Self {
            level: NEWEST,
            name: format!("sealed-{name}"),
            write: Box::new(move || seal(&*value).unwrap()),
            differs: Box::new(move |bytes| differs(unseal::<T>(bytes), same.as_ref())),
        }
    }

    fn file(&self, root: &Path) -> PathBuf {
        root.join(format!("level-{}", self.level)).join(&self.name)
    }
}

fn differs<T: PartialEq + std::fmt::Debug, E: std::fmt::Display>(
    read: Result<T, E>,
    meant: &T,
) -> Option<String> {
    match read {
        Err(e) => Some(format!("it {e}")),
        Ok(read) if read != *meant => Some(format!("it reads {read:?}, but meant {meant:?}")),
        Ok(_) => None,
    }
}

fn samples() -> Vec<Sample> {
    [entries::samples(), bodies::samples()].into_iter().flatten().collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Whether files that are missing are to be made.
fn may_write() -> bool {
    std::env::var("HOLDFAST_GOLDEN").is_ok_and(|how| how == "write")
}

/// Adds the files of samples that have none.
fn write_missing(root: &Path, samples: &[Sample]) {
    for sample in samples {
        let file = sample.file(root);
        if !file.exists() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, (sample.write)()).unwrap();
        }
    }
}

/// What is wrong with the files, one line for each.
fn check(root: &Path, samples: &[Sample]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for sample in samples {
        let file = sample.file(root);
        match fs::read(&file) {
            Err(e) => wrong.push(format!("{}: {e}", file.display())),
            Ok(bytes) => {
                let what = (sample.differs)(&bytes);
                wrong.extend(what.map(|what| format!("{}: {what}", file.display())));
            }
        }
        assert!(known.insert(file), "two samples are called {}", sample.name);
    }
    for level in fs::read_dir(root).into_iter().flatten().map(Result::unwrap) {
        for file in fs::read_dir(level.path()).unwrap().map(|file| file.unwrap().path()) {
            if file.is_file() && !known.contains(&file) {
                wrong.push(format!("{}: nobody says what it means", file.display()));
            }
        }
    }
    wrong
}

#[test]
fn what_was_written_is_still_read_as_what_it_meant() {
    let samples = samples();
    if may_write() {
        write_missing(&root(), &samples);
    }
    let wrong = check(&root(), &samples);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The next level is added beside the old one, whose files stay as they are.
#[test]
fn a_new_level_touches_no_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut samples = vec![Sample::body("number", 7u64)];
    write_missing(dir.path(), &samples);
    let old = samples[0].file(dir.path());
    let bytes = fs::read(&old).unwrap();

    // A sample that changes its mind about old bytes is found out, and does not change them.
    let changed = vec![Sample::body("number", 8u64)];
    write_missing(dir.path(), &changed);
    assert_eq!(fs::read(&old).unwrap(), bytes);
    assert!(check(dir.path(), &changed)[0].contains("reads 7, but meant 8"));

    samples.push(Sample { level: NEWEST + 1, ..Sample::body("number", 8u64) });
    assert!(check(dir.path(), &samples)[0].contains("level-2"));
    write_missing(dir.path(), &samples);
    assert_eq!(check(dir.path(), &samples), [""; 0]);
    assert_eq!(fs::read(&old).unwrap(), bytes);
    // And no file outlives the knowledge of what it means.
    assert!(check(dir.path(), &samples[..1])[0].contains("nobody says"));
}

/// Damage is no other meaning: the checks can fail.
#[test]
fn changed_bytes_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let samples = samples();
    write_missing(dir.path(), &samples);
    assert_eq!(check(dir.path(), &samples), [""; 0]);
    for sample in samples {
        let bytes = (sample.write)();
        let tried = (0..bytes.len()).step_by(1 + bytes.len() / 100);
        let noticed = tried.clone().filter(|at| {
            let mut bytes = bytes.clone();
            bytes[*at] ^= 0x01;
            (sample.differs)(&bytes).is_some()
        });
        // A changed letter in the name of a field that is empty anyway means nothing else.
        let noticed = noticed.count();
        assert!(noticed > tried.len() / 2, "{}: {noticed} of {}", sample.name, tried.len());
    }
}

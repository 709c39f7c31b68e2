//! Small checksummed files that are replaced in one step: temp, fsync, rename, fsync directory.
//!
//! ```text
//! holdfast <kind> 1 <BLAKE3 of the rest, hex>\n
//! JSON
//! ```

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Largest file of this form that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Durably makes `value` the content of `path`: after a crash it is the old one or the new one.
pub(crate) fn store<T: Serialize>(path: &Path, kind: &str, value: &T) -> Result<()> {
    let corrupt =
        |e: serde_json::Error| Error::Corrupt { path: path.into(), reason: e.to_string() };
    let body = serde_json::to_vec(value).map_err(corrupt)?;
    let temp = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temp)?;
        let mut text = format!("holdfast {kind} 1 {}\n", blake3::hash(&body)).into_bytes();
        text.extend_from_slice(&body);
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&temp, path)
    };
    write().map_err(Error::io("writing", path))?;
    sync_dir(path.parent().unwrap_or(Path::new("/")))
}

/// Reads what [`store`] wrote. `None` if there is no such file; damage names it.
pub(crate) fn load<T: DeserializeOwned>(path: &Path, kind: &str) -> Result<Option<T>> {
    let corrupt = |reason: String| Error::Corrupt { path: path.into(), reason };
    match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("reading", path)(e)),
        Ok(meta) if meta.len() > MAX_FILE => return Err(corrupt("it is too large".into())),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(Error::io("reading", path))?;
    let split = bytes.iter().position(|b| *b == b'\n');
    let (head, body) = match split {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => return Err(corrupt("its first line is missing".into())),
    };
    if head != format!("holdfast {kind} 1 {}", blake3::hash(body)).as_bytes() {
        return Err(corrupt("its checksum or kind does not match".into()));
    }
    serde_json::from_slice(body).map(Some).map_err(|e| corrupt(e.to_string()))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("syncing", dir))
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("removing", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        assert_eq!(load::<Vec<u32>>(&path, "test").unwrap(), None);
        store(&path, "test", &vec![1, 2, 3]).unwrap();
        assert_eq!(load(&path, "test").unwrap(), Some(vec![1, 2, 3]));
        assert!(matches!(load::<Vec<u32>>(&path, "other"), Err(Error::Corrupt { .. })));

        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let err = load::<Vec<u32>>(&path, "test").unwrap_err();
            assert!(matches!(err, Error::Corrupt { path: p, .. } if p == path), "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(load::<Vec<u32>>(&path, "test").is_err(), "cut at {at}");
        }
    }
}

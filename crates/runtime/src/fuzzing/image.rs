//! Unpacking an image: whatever it holds, nothing beside the target changes, and no more is made in it
//! than the budget allows.
//!
//! The first byte of an input says what the rest is: the archive as it comes, or a plain one, whose
//! headers get true checksums.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::image::{Budget, unpack};

/// Few entries, so that each input is short work; an image of two files is as hostile as one of many.
const BUDGET: Budget = Budget { max_entries: 12, max_bytes: 1 << 20 };

/// A block of an archive (pax(1), ustar): a header is one, and its checksum lies there.
const BLOCK: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;

thread_local! {
    static GROUND: RefCell<Ground> = RefCell::new(Ground::new());
}

/// Unpacks one archive.
pub fn read(input: &[u8]) {
    let [how, archive @ ..] = input else { return };
    GROUND.with_borrow_mut(|ground| match how % 2 {
        0 => ground.unpack(archive),
        _ => ground.unpack(&with_checksums(archive)),
    });
}

/// What images hold, plain and in each way that it may be packed.
pub fn seeds() -> Vec<Vec<u8>> {
    use EntryType::{Char, Continuous, Directory, Fifo, Link, Regular, Symlink};
    let tree = archive(&[
        (Directory, "./", "", b""),
        (Directory, "usr/bin/", "", b""),
        (Symlink, "bin", "usr/bin", b""),
        (Regular, "usr/bin/su", "", b"su!"),
        (Link, "usr/bin/sulink", "./usr/bin/su", b""),
        (Fifo, "run/initctl", "", b""),
        (Char, "./dev/null", "", b""),
    ]);
    let tricks = archive(&[
        (Symlink, "a", "../outside", b""),
        (Regular, "a", "", b"x"),
        (Symlink, "b", "/", b""),
        (Directory, "b/c", "", b""),
        (Link, "d", "a", b""),
        (Continuous, "a/b/c/d", "", &[0; 600]),
    ]);
    let plain = [tree, tricks, extended()];
    let packed = plain.iter().flat_map(|tar| [gzipped(tar), xzipped(tar), zstandard(tar)]);
    let as_it_is = packed.chain(plain.clone()).map(|archive| [&[0], &archive[..]].concat());
    as_it_is.chain(plain.iter().map(|archive| [&[1], &archive[..]].concat())).collect()
}

/// Long names, records for the next file, and for all of them.
fn extended() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let name = "n".repeat(200);
    let records = [("SCHILY.xattr.user.note", &b"kept"[..]), ("path", b"p/q"), ("mtime", b"1.5")];
    builder.append_pax_extensions(records).expect("a vector takes all");
    builder
        .append(&header(EntryType::Regular, "f", "", 2), &b"hi"[..])
        .expect("a vector takes all");
    let mut long = header(EntryType::Regular, "", "", 0);
    builder.append_data(&mut long, &name, &b""[..]).expect("a vector takes all");
    let mut link = header(EntryType::Symlink, "", "", 0);
    builder.append_link(&mut link, "l", &name).expect("a vector takes all");
    let sparse = header(EntryType::GNUSparse, "s", "", 0);
    builder.append(&sparse, &b""[..]).expect("a vector takes all");
    builder.into_inner().expect("a vector takes all")
}

fn archive(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, link, content) in entries {
        let header = header(*kind, name, link, content.len() as u64);
        builder.append(&header, *content).expect("a vector takes all");
    }
    builder.into_inner().expect("a vector takes all")
}

/// With names as they are: the crate's own setters refuse some.
fn header(kind: EntryType, name: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(plain).and_then(|()| gz.finish()).expect("a vector takes all")
}

fn xzipped(plain: &[u8]) -> Vec<u8> {
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(plain, 0).read_to_end(&mut xz).expect("a vector takes all");
    xz
}

fn zstandard(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).expect("a vector takes all")
}

/// Any block may be a header: each that has a checksum gets a true one.
fn with_checksums(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    for block in archive.chunks_exact_mut(BLOCK) {
        let looks_like_one = block[CHECKSUM].iter().all(|b| matches!(b, b'0'..=b'7' | b' ' | 0));
        if looks_like_one && block[CHECKSUM.start] != 0 {
            block[CHECKSUM].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    archive
}

/// A directory to unpack into, beside one that must not change.
struct Ground {
    place: PathBuf,
    target: PathBuf,
    outside: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let place = std::env::temp_dir().join(format!("holdfast-image-{}", std::process::id()));
        let (target, outside) = (place.join("target"), place.join("outside"));
        fs::create_dir_all(&outside).expect("a directory");
        fs::write(outside.join("file"), "untouched").expect("a file");
        Self { place, target, outside }
    }

    fn unpack(&mut self, archive: &[u8]) {
        fs::create_dir(&self.target).expect("an empty target");
        let unpacked = unpack(archive, &self.target, BUDGET);
        let (mut entries, mut bytes) = (0, 0);
        count(&self.target, &mut entries, &mut bytes);
        assert!(entries <= BUDGET.max_entries, "{entries} entries, {unpacked:?}");
        assert!(bytes <= BUDGET.max_bytes, "{bytes} bytes, {unpacked:?}");
        if let Ok(stats) = unpacked {
            assert!(stats.entries <= BUDGET.max_entries && stats.bytes <= BUDGET.max_bytes);
        }
        fs::remove_dir_all(&self.target).expect("what was unpacked can be removed");
        self.assert_outside_untouched();
    }

    fn assert_outside_untouched(&self) {
        let entries = |dir: &Path| fs::read_dir(dir).expect("a directory").count();
        assert_eq!((entries(&self.place), entries(&self.outside)), (1, 1));
        let file = fs::metadata(self.outside.join("file")).expect("the file outside");
        assert_eq!((file.nlink(), file.len()), (1, 9));
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What stays behind is a few bytes in a directory for such things.
        drop(fs::remove_dir_all(&self.place));
    }
}

/// Everything below a directory; a file with several names counts once for each.
fn count(dir: &Path, entries: &mut u64, bytes: &mut u64) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("its kind and length");
        *entries += 1;
        if meta.is_dir() {
            count(&entry.path(), entries, bytes);
        } else if meta.is_file() && meta.nlink() == 1 {
            *bytes += meta.len();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_images_are_unpacked_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 2_000, super::read);
    }
}

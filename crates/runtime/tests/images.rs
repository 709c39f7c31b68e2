//! Unpacking images: what must be kept, and what strangers may try.
#![allow(clippy::unwrap_used, reason = "a test's helper that fails has failed its test")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use holdfast_runtime::image::{Budget, ImageError, ImageStats, copy_dir, unpack};
use holdfast_types::Code;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

/// A directory to unpack into, between two neighbours that must not change.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/file"), "untouched").unwrap();
        Self(dir)
    }

    fn target(&self) -> std::path::PathBuf {
        self.0.path().join("target")
    }

    fn unpack(&self, archive: &[u8]) -> Result<ImageStats, ImageError> {
        unpack(archive, &self.target(), Budget { max_entries: 100, max_bytes: 10 << 20 })
    }

    fn assert_outside_untouched(&self) {
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(self.0.path()), ["outside", "target"]);
        assert_eq!(names(&self.0.path().join("outside")), ["file"]);
        let file = self.0.path().join("outside/file");
        assert_eq!(fs::read(&file).unwrap(), b"untouched");
        let meta = fs::metadata(&file).unwrap();
        assert_eq!((meta.nlink(), meta.mode() & 0o7777, meta.uid()), (1, 0o644, 0));
    }
}

/// A header whose name and link are put in as they are: the crate's own setters refuse `..`.
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

/// An archive of entries: kind, name, link, content.
fn archive(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, link, content) in entries {
        builder.append(&header(*kind, name, link, content.len() as u64), *content).unwrap();
    }
    builder.into_inner().unwrap()
}

use EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};

fn ordinary() -> Vec<u8> {
    let mut setuid = header(Regular, "usr/bin/su", "", 3);
    setuid.set_mode(0o4755);
    setuid.set_uid(7);
    setuid.set_gid(8);
    setuid.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header(Directory, "./", "", 0), &b""[..]).unwrap();
    builder.append(&header(Directory, "./usr/bin/", "", 0), &b""[..]).unwrap();
    builder.append(&header(Symlink, "bin", "usr/bin", 0), &b""[..]).unwrap();
    builder.append_pax_extensions([("SCHILY.xattr.user.note", &b"kept"[..])]).unwrap();
    builder.append(&setuid, &b"su!"[..]).unwrap();
    builder.append(&header(Link, "usr/bin/sulink", "./usr/bin/su", 0), &b""[..]).unwrap();
    builder.append(&header(Regular, "sbin/init", "", 2), &b"#!"[..]).unwrap();
    builder.append(&header(Fifo, "run/initctl", "", 0), &b""[..]).unwrap();
    builder.append(&header(Char, "./dev/null", "", 0), &b""[..]).unwrap();
    builder.into_inner().unwrap()
}

fn assert_ordinary(root: &Path) {
    let su = fs::metadata(root.join("usr/bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.nlink()), (0o4755, 7, 8, 2));
    assert_eq!(su.mtime(), 1_700_000_000);
    assert_eq!(fs::metadata(root.join("usr/bin")).unwrap().mtime(), 1_700_000_000);
    assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
    assert!(fs::metadata(root.join("run/initctl")).unwrap().file_type().is_fifo());
    let mut note = [0u8; 16];
    let len = rustix::fs::getxattr(root.join("usr/bin/su"), "user.note", &mut note).unwrap();
    assert_eq!(&note[..len], b"kept");
}

#[test]
fn an_ordinary_image_is_kept_as_it_is_however_it_is_compressed() {
    let plain = ordinary();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).unwrap();
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(&plain[..], 1).read_to_end(&mut xz).unwrap();
    let zst = zstd::encode_all(&plain[..], 1).unwrap();
    for packed in [plain.clone(), gz.finish().unwrap(), xz, zst] {
        let ground = Ground::new();
        let stats = ground.unpack(&packed).unwrap();
        assert_eq!(stats, ImageStats { entries: 7, bytes: 5, has_init: true });
        assert_ordinary(&ground.target());
        assert!(!ground.target().join("dev/null").exists());
    }
}

#[test]
fn a_directory_is_copied_like_an_archive() {
    let (first, second) = (Ground::new(), Ground::new());
    first.unpack(&ordinary()).unwrap();
    let stats = copy_dir(&first.target(), &second.target(), Budget::default()).unwrap();
    assert!(stats.has_init);
    assert_ordinary(&second.target());
    let missing = copy_dir(Path::new("/no/such/dir"), &second.target(), Budget::default());
    assert_eq!(missing.unwrap_err().code(), Code::DiskIo);
}

#[test]
fn long_names_and_holes_are_kept() {
    let name = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut builder = Builder::new(Vec::new());
    let mut content = vec![0u8; 1 << 20];
    content.push(b'x');
    let mut head = header(Regular, "", "", content.len() as u64);
    builder.append_data(&mut head, &name, content.as_slice()).unwrap();
    let ground = Ground::new();
    let stats = ground.unpack(&builder.into_inner().unwrap()).unwrap();
    assert!(!stats.has_init);
    let file = ground.target().join(name);
    assert!(fs::metadata(&file).unwrap().blocks() * 512 < 1 << 19);
    assert_eq!(fs::read(file).unwrap(), content);
}

/// I27 and "a name that leaves the root": each is refused by name, and nothing outside changes.
#[test]
fn hostile_archives_are_refused() {
    let evil = |entries: &[(EntryType, &str, &str, &[u8])]| archive(entries);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("dot dot", evil(&[(Regular, "../outside/file", "", b"x")])),
        ("inner dot dot", evil(&[(Regular, "a/../../outside/file", "", b"x")])),
        ("absolute", evil(&[(Regular, "/tmp/hf-evil", "", b"x")])),
        (
            "through a link",
            evil(&[(Symlink, "a", "../outside", b""), (Regular, "a/file", "", b"x")]),
        ),
        (
            "directory over a link",
            evil(&[(Symlink, "a", "../outside", b""), (Directory, "a", "", b"")]),
        ),
        (
            "through two links",
            evil(&[
                (Symlink, "a", "..", b""),
                (Symlink, "b", "a/outside", b""),
                (Regular, "b/file", "", b"x"),
            ]),
        ),
        ("hard link out", evil(&[(Link, "a", "../outside/file", b"")])),
        ("absolute hard link", evil(&[(Link, "a", "/etc/passwd", b"")])),
        (
            "hard link through a link",
            evil(&[(Symlink, "a", "../outside", b""), (Link, "b", "a/file", b"")]),
        ),
        ("hard link to a directory", evil(&[(Directory, "d", "", b""), (Link, "l", "d", b"")])),
        ("file over a directory", evil(&[(Directory, "d", "", b""), (Regular, "d", "", b"x")])),
        ("file as a directory", evil(&[(Regular, "f", "", b"x"), (Regular, "f/g", "", b"x")])),
        ("block device", evil(&[(Block, "dev/sda", "", b"")])),
        ("misplaced device", evil(&[(Char, "etc/null", "", b"")])),
        ("unknown kind", evil(&[(EntryType::new(b'Z'), "z", "", b"")])),
        ("no archive", b"#!/bin/sh\necho I am no archive\n".repeat(40)),
        ("nothing", Vec::new()),
        ("only zeros", vec![0; 4096]),
        ("truncated in a file", {
            let whole = archive(&[(Regular, "f", "", &[7; 2000])]);
            whole[..1024].to_vec()
        }),
        ("truncated between entries", {
            let whole = archive(&[(Regular, "f", "", b"x"), (Regular, "g", "", b"y")]);
            whole[..1024].to_vec()
        }),
        ("truncated compression", {
            let whole = zstd::encode_all(&ordinary()[..], 1).unwrap();
            whole[..whole.len() - 5].to_vec()
        }),
    ];
    for (what, bytes) in cases {
        let ground = Ground::new();
        let error = ground.unpack(&bytes).expect_err(what);
        assert_eq!(error.code(), Code::BadImage, "{what}: {error}");
        ground.assert_outside_untouched();
    }
    assert!(!Path::new("/tmp/hf-evil").exists());
}

/// A link may point anywhere: it means something inside the container only. A later file of its
/// name replaces the link, not what it points to.
#[test]
fn a_file_replaces_a_link_of_its_name() {
    let ground = Ground::new();
    let bytes = archive(&[(Symlink, "a", "../outside/file", b""), (Regular, "a", "", b"mine")]);
    ground.unpack(&bytes).unwrap();
    assert_eq!(fs::read(ground.target().join("a")).unwrap(), b"mine");
    ground.assert_outside_untouched();
}

#[test]
fn bombs_go_off_harmlessly() {
    let mut claimed = header(Regular, "big", "", 1 << 50);
    claimed.set_cksum();
    let mut sparse = header(EntryType::GNUSparse, "sparse", "", 0);
    if let Some(gnu) = sparse.as_gnu_mut() {
        gnu.set_real_size(1 << 32);
        gnu.sparse[0].set_offset(1 << 32);
        gnu.sparse[0].set_length(0);
    }
    sparse.set_cksum();
    let mut many = Builder::new(Vec::new());
    for n in 0..200 {
        many.append(&header(Regular, &format!("f{n}"), "", 0), &b""[..]).unwrap();
    }
    let mut long_name = header(EntryType::GNULongName, "././@LongLink", "", 1 << 30);
    long_name.set_cksum();
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zeros.write_all(long_name.as_bytes()).unwrap();
    zeros.write_all(&vec![b'a'; 8 << 20]).unwrap();
    let cases = [
        ("a claimed size", claimed.as_bytes().to_vec(), Code::TooLarge),
        ("a sparse file", [&sparse.as_bytes()[..], &[0; 1024]].concat(), Code::TooLarge),
        ("many entries", many.into_inner().unwrap(), Code::TooLarge),
        ("an endless name", zeros.finish().unwrap(), Code::BadImage),
    ];
    for (what, bytes, code) in cases {
        let ground = Ground::new();
        let error = ground.unpack(&bytes).expect_err(what);
        assert_eq!(error.code(), code, "{what}: {error}");
        ground.assert_outside_untouched();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// I27: whatever is changed in an archive, nothing panics and nothing outside is touched.
    #[test]
    fn mutated_archives_touch_nothing_outside(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        fix_sums in any::<bool>(),
    ) {
        let mut bytes = archive(&[
            (Directory, "d", "", b""),
            (Symlink, "out", "../outside", b""),
            (Regular, "d/out/file", "", b"content"),
            (Link, "l", "d/out/file", b""),
            (Symlink, "d/up", "../..", b""),
            (Regular, "up/outside/file", "", b"content"),
        ]);
        for (place, value) in edits {
            // Aim at the headers' names and kinds as often as at the rest.
            let at = place.index(bytes.len());
            bytes[at] = if value % 3 == 0 { b"./\x0012567"[usize::from(value) % 8] } else { value };
        }
        let whole = cut.index(bytes.len() * 3);
        bytes.truncate(whole.max(1));
        if fix_sums {
            for block in bytes.chunks_exact_mut(512).filter(|b| b[257..262] == *b"ustar") {
                let mut head = Header::new_old();
                head.as_mut_bytes().copy_from_slice(block);
                head.set_cksum();
                block.copy_from_slice(head.as_bytes());
            }
        }
        let ground = Ground::new();
        let _ = ground.unpack(&bytes);
        ground.assert_outside_untouched();
    }
}

#[test]
fn names_made_more_directories_than_entries_were_allowed() {
    let ground = Ground::new();
    let path = "d/".repeat(45);
    let entries: Vec<_> = (0..3).map(|n| format!("{n}/{path}")).collect();
    let entries: Vec<_> = entries.iter().map(|name| (Directory, &**name, "", &b""[..])).collect();
    let error = ground.unpack(&archive(&entries)).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { limit: 100, .. }), "{error}");
}

#[test]
fn a_file_without_permission_to_execute_is_no_init() {
    let ground = Ground::new();
    let mut head = header(Regular, "sbin/init", "", 0);
    head.set_mode(0o644);
    head.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&head, &b""[..]).unwrap();
    assert!(!ground.unpack(&builder.into_inner().unwrap()).unwrap().has_init);
    let mode = fs::metadata(ground.target().join("sbin/init")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
}

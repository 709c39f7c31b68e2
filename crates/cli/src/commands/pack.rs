//! A directory as a tar stream (POSIX pax with GNU long names, see tar(5)), made on the fly.
//!
//! It stays on the directory's filesystem, so that a mounted `/proc` in a root filesystem is an
//! empty directory; it keeps owners, modes, hard links, devices and the attributes that matter
//! (file capabilities, `user.*`). Sockets are left out, as tar does.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr, major, minor};
use tar::{Builder, EntryType, Header, HeaderMode};

use crate::error::CliError;

/// Linux's bound on the size of an attribute's value and of the list of names (xattr(7)).
const XATTR_MAX: usize = 64 << 10;

/// Packs what is in `root`, itself included as `./`.
pub(super) fn pack(root: &Path, out: impl Write) -> Result<(), CliError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::Pack { path, source }
    };
    let device = fs::symlink_metadata(root).map_err(failed(root))?.dev();
    let mut packer = Packer { builder: Builder::new(out), device, links: HashMap::new() };
    packer.builder.sparse(false);
    // Relative paths still to be packed; children are pushed in reverse, so that they come sorted.
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let path = root.join(&relative);
        let children = packer.add(&path, &relative).map_err(failed(&path))?;
        todo.extend(children.into_iter().rev().map(|name| relative.join(name)));
    }
    let finish = packer.builder.into_inner().and_then(|mut out| out.flush());
    finish.map_err(failed(root))
}

struct Packer<W: Write> {
    builder: Builder<W>,
    device: u64,
    /// The first name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    /// Adds one entry; returns the names of its children that are to be added.
    fn add(&mut self, path: &Path, relative: &Path) -> io::Result<Vec<PathBuf>> {
        let meta = fs::symlink_metadata(path)?;
        let kind = meta.file_type();
        let mut header = Header::new_gnu();
        header.set_metadata_in_mode(&meta, HeaderMode::Complete);
        header.set_size(0);
        if kind.is_socket() {
            return Ok(vec![]);
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                header.set_entry_type(EntryType::Link);
                self.builder.append_link(&mut header, relative, first)?;
                return Ok(vec![]);
            }
            self.links.insert((meta.dev(), meta.ino()), relative.to_owned());
        }
        self.add_attributes(path)?;
        if kind.is_dir() {
            let name = if relative.as_os_str().is_empty() { Path::new("./") } else { relative };
            self.builder.append_data(&mut header, name, io::empty())?;
            return if meta.dev() == self.device { children(path) } else { Ok(vec![]) };
        }
        if kind.is_symlink() {
            self.builder.append_link(&mut header, relative, fs::read_link(path)?)?;
        } else if kind.is_file() {
            self.add_content(header, path, relative, &meta)?;
        } else {
            if kind.is_char_device() || kind.is_block_device() {
                header.set_device_major(major(meta.rdev()))?;
                header.set_device_minor(minor(meta.rdev()))?;
            }
            self.builder.append_data(&mut header, relative, io::empty())?;
        }
        Ok(vec![])
    }

    fn add_content(
        &mut self,
        mut header: Header,
        path: &Path,
        relative: &Path,
        meta: &Metadata,
    ) -> io::Result<()> {
        header.set_size(meta.len());
        let mut content = File::open(path)?.take(meta.len());
        self.builder.append_data(&mut header, relative, &mut content)?;
        // The header has promised this many bytes.
        match content.limit() {
            0 => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it shrank while it was read")),
        }
    }

    fn add_attributes(&mut self, path: &Path) -> io::Result<()> {
        let mut names = vec![0; XATTR_MAX];
        let length = match llistxattr(path, &mut names[..]) {
            Err(rustix::io::Errno::NOTSUP) => 0,
            other => other?,
        };
        let mut records = Vec::new();
        for name in names[..length].split(|byte| *byte == 0) {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if name == "security.capability" || name.starts_with("user.") {
                let mut value = vec![0; XATTR_MAX];
                let length = lgetxattr(path, name, &mut value[..])?;
                value.truncate(length);
                records.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(records)
    }
}

/// The names in a directory, sorted.
fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(PathBuf::from(entry?.file_name())));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Name → (type, size, link name).
    fn listing(archive: &[u8]) -> BTreeMap<String, (EntryType, u64, String)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let link = entry.link_name().unwrap().map(|l| l.display().to_string());
            let header = entry.header();
            let value = (header.entry_type(), header.size().unwrap(), link.unwrap_or_default());
            (entry.path().unwrap().display().to_string(), value)
        });
        entries.collect()
    }

    #[test]
    fn a_directory_becomes_an_archive_with_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let long = "d".repeat(120);
        fs::create_dir_all(dir.path().join("etc").join(&long)).unwrap();
        fs::write(dir.path().join("etc/a"), b"hello").unwrap();
        fs::write(dir.path().join("etc").join(&long).join("b"), b"").unwrap();
        fs::hard_link(dir.path().join("etc/a"), dir.path().join("z")).unwrap();
        std::os::unix::fs::symlink("/etc/a", dir.path().join("s")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).unwrap();

        let mut archive = Vec::new();
        pack(dir.path(), &mut archive).unwrap();
        drop(socket);
        let found = listing(&archive);
        assert_eq!(found["etc/a"], (EntryType::Regular, 5, String::new()));
        assert_eq!(found["z"], (EntryType::Link, 0, "etc/a".into()));
        assert_eq!(found["s"], (EntryType::Symlink, 0, "/etc/a".into()));
        assert!(found.contains_key(&format!("etc/{long}/b")), "{found:?}");
        assert!(found.contains_key("./"), "{found:?}");
        assert!(!found.contains_key("sock"), "{found:?}");
    }

    #[test]
    fn attributes_travel() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, b"x").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::lsetxattr(&file, "user.colour", b"blue", flags).is_err() {
            return; // The temporary directory's filesystem has no attributes.
        }
        let mut archive = Vec::new();
        pack(dir.path(), &mut archive).unwrap();
        let mut archive = tar::Archive::new(&archive[..]);
        let found = archive.entries().unwrap().any(|entry| {
            let mut entry = entry.unwrap();
            let Some(records) = entry.pax_extensions().unwrap() else { return false };
            records
                .flatten()
                .any(|r| r.key() == Ok("SCHILY.xattr.user.colour") && r.value_bytes() == b"blue")
        });
        assert!(found);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let err = pack(Path::new("/nonexistent-dir"), io::sink()).unwrap_err();
        assert_eq!(err.to_string(), "cannot pack /nonexistent-dir");
    }
}

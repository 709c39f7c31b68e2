//! The tree that is written: every step beneath one directory, none through a symbolic link.
//!
//! A directory is opened with `openat2` and `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//! RESOLVE_NO_XDEV` (openat2(2)), a name in it is used with the `*at` calls that do not follow
//! links. So wherever an archive plants a link, the kernel refuses to go through it.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
    XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, futimens, linkat, mkdirat, mknodat,
    openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::ImageError;
use super::name::Name;

/// Owner, mode, time and attributes of an entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Meta {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) mtime_s: i64,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The directory that an image is unpacked into.
pub(super) struct Target {
    root: OwnedFd,
    path: PathBuf,
    /// Directories' times, set at the end because every entry made in one changes its time.
    times: Vec<(Name, i64)>,
    /// What may still be made: entries, and the directories that their names imply.
    left: Cell<u64>,
    limit: u64,
}

/// Directories whose time is kept; those past it have the time of unpacking.
const MAX_TIMES: usize = 100_000;

/// What is written at once; a block of zeros is left out (volumes are thin).
const BLOCK: usize = 64 << 10;

impl Target {
    pub(super) fn open(path: &Path, limit: u64) -> Result<Self, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty());
        let root = root.map_err(|e| target_error("open", path, e.into()))?;
        let (times, left) = (Vec::new(), Cell::new(limit));
        Ok(Self { root, path: path.to_owned(), times, left, limit })
    }

    /// Refuses one more than may be made.
    pub(super) fn count(&self) -> Result<(), ImageError> {
        let left = self.left.get().checked_sub(1);
        let left = left.ok_or(ImageError::TooLarge { limit: self.limit, what: "entries" })?;
        self.left.set(left);
        Ok(())
    }

    /// Makes a directory, or takes over the one that is there.
    pub(super) fn directory(&mut self, name: &Name, meta: &Meta) -> Result<(), ImageError> {
        let dir = match name.split() {
            None => self.descend(&[], name)?,
            Some((parent, last)) => {
                let parent = self.descend(parent, name)?;
                match mkdirat(&parent, last, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => (),
                    Err(e) => return Err(self.error("make a directory", name, e)),
                }
                self.step(&parent, last, name)?
            }
        };
        self.apply_by_path(&dir, meta)
            .map_err(|e| self.error("set a directory's owner", name, e))?;
        if self.times.len() < MAX_TIMES {
            self.times.push((name.clone(), meta.mtime_s));
        }
        Ok(())
    }

    /// Writes a file, in place of one of the same name. Returns how much `content` held.
    pub(super) fn file(
        &self,
        name: &Name,
        meta: &Meta,
        content: &mut dyn Read,
    ) -> Result<u64, FileError> {
        let (parent, last) = self.place(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&parent, last, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600));
        let file = File::from(file.map_err(|e| self.error("make a file", name, e))?);
        let len = self.fill(&file, name, content)?;
        self.apply_by_file(&file, meta).map_err(|e| self.error("set a file's owner", name, e))?;
        Ok(len)
    }

    pub(super) fn symlink(&self, name: &Name, to: &[u8], meta: &Meta) -> Result<(), ImageError> {
        let (parent, last) = self.place(name)?;
        let make = || {
            symlinkat(to, &parent, last)?;
            let (uid, gid) = owner(meta);
            chownat(&parent, last, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            utimensat(&parent, last, &times(meta.mtime_s), AtFlags::SYMLINK_NOFOLLOW)
        };
        make().map_err(|e| self.error("make a symbolic link", name, e))
    }

    /// Links to a file that the archive made before.
    pub(super) fn hard_link(&self, name: &Name, to: &Name) -> Result<(), ImageError> {
        let missing = || ImageError::Redirected { entry: self.shown(name) };
        let (to_parent, to_last) = to.split().ok_or_else(missing)?;
        let to_parent = self.descend(to_parent, to)?;
        let stat = statat(&to_parent, to_last, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|e| self.error("find the target of a link", to, e))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(missing());
        }
        if name == to {
            return Ok(());
        }
        let (parent, last) = self.place(name)?;
        linkat(&to_parent, to_last, &parent, last, AtFlags::empty())
            .map_err(|e| self.error("make a link", name, e))
    }

    pub(super) fn fifo(&self, name: &Name, meta: &Meta) -> Result<(), ImageError> {
        let (parent, last) = self.place(name)?;
        let mode = Mode::from_raw_mode(meta.mode & 0o7777);
        let make = || {
            mknodat(&parent, last, FileType::Fifo, mode, Dev::default())?;
            let (uid, gid) = owner(meta);
            chownat(&parent, last, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            chmodat(&parent, last, mode, AtFlags::empty())
        };
        make().map_err(|e| self.error("make a fifo", name, e))
    }

    /// Sets the directories' times.
    pub(super) fn finish(self) -> Result<(), ImageError> {
        for (name, mtime_s) in &self.times {
            let parts = name.split().map(|(parent, last)| [parent, &[last.to_vec()]].concat());
            // A later entry may have replaced nothing but its content; a directory stays one.
            let dir = self.descend(&parts.unwrap_or_default(), name)?;
            let set = utimensat(&dir, "", &times(*mtime_s), AtFlags::EMPTY_PATH);
            set.map_err(|e| self.error("set a directory's time", name, e))?;
        }
        Ok(())
    }

    /// The directory that an entry goes into, made free of a file of the same name.
    fn place<'n>(&self, name: &'n Name) -> Result<(OwnedFd, &'n [u8]), ImageError> {
        let redirected = || ImageError::Redirected { entry: self.shown(name) };
        let (parent, last) = name.split().ok_or_else(redirected)?;
        let parent = self.descend(parent, name)?;
        match unlinkat(&parent, last, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((parent, last)),
            Err(Errno::ISDIR) => Err(redirected()),
            Err(e) => Err(self.error("replace", name, e)),
        }
    }

    /// Opens a directory below the root, making what is missing on the way.
    fn descend(&self, parts: &[Vec<u8>], name: &Name) -> Result<OwnedFd, ImageError> {
        let path = if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') };
        match open_dir(&self.root, &path) {
            Ok(dir) => return Ok(dir),
            Err(Errno::NOENT) => (),
            Err(e) => return Err(self.error("open a directory", name, e)),
        }
        let mut dir = open_dir(&self.root, b".").map_err(|e| self.error("open", name, e))?;
        for part in parts {
            self.count()?;
            match mkdirat(&dir, part.as_slice(), Mode::from_raw_mode(0o755)) {
                Ok(()) => (),
                Err(Errno::EXIST) => self.left.set(self.left.get() + 1),
                Err(e) => return Err(self.error("make a directory", name, e)),
            }
            dir = self.step(&dir, part, name)?;
        }
        Ok(dir)
    }

    fn step(&self, dir: &OwnedFd, part: &[u8], name: &Name) -> Result<OwnedFd, ImageError> {
        open_dir(dir, part).map_err(|e| self.error("open a directory", name, e))
    }

    fn fill(&self, mut file: &File, name: &Name, content: &mut dyn Read) -> Result<u64, FileError> {
        let mut block = vec![0u8; BLOCK];
        let mut total = 0u64;
        loop {
            let len = read_block(content, &mut block).map_err(FileError::Content)?;
            let data = &block[..len];
            let written = if data.iter().all(|b| *b == 0) {
                file.seek(SeekFrom::Current(len as i64)).map(drop)
            } else {
                file.write_all(data)
            };
            written.map_err(|e| self.io("write", name, e))?;
            total += len as u64;
            if len < BLOCK {
                file.set_len(total).map_err(|e| self.io("write", name, e))?;
                return Ok(total);
            }
        }
    }

    /// Owner first: changing it clears the set-user-id bits and the capabilities.
    fn apply_by_file(&self, file: &File, meta: &Meta) -> rustix::io::Result<()> {
        let (uid, gid) = owner(meta);
        fchown(file, uid, gid)?;
        fchmod(file, Mode::from_raw_mode(meta.mode & 0o7777))?;
        for (key, value) in &meta.xattrs {
            fsetxattr(file, key.as_slice(), value, XattrFlags::empty())?;
        }
        futimens(file, &times(meta.mtime_s))
    }

    /// For a directory, which is open as a path only.
    fn apply_by_path(&self, dir: &OwnedFd, meta: &Meta) -> rustix::io::Result<()> {
        let (uid, gid) = owner(meta);
        chownat(dir, "", uid, gid, AtFlags::EMPTY_PATH)?;
        chmodat(dir, ".", Mode::from_raw_mode(meta.mode & 0o7777), AtFlags::empty())
    }

    fn error(&self, what: &'static str, name: &Name, errno: Errno) -> ImageError {
        match errno {
            // LOOP: a symbolic link. NOTDIR: another file. XDEV: a way out, or a mount point.
            Errno::LOOP | Errno::NOTDIR | Errno::XDEV | Errno::EXIST | Errno::ISDIR => {
                ImageError::Redirected { entry: self.shown(name) }
            }
            other => self.io(what, name, other.into()),
        }
    }

    fn io(&self, what: &'static str, name: &Name, source: io::Error) -> ImageError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::VolumeFull,
            _ => target_error(what, &self.path.join(self.shown(name)), source),
        }
    }

    fn shown(&self, name: &Name) -> String {
        match name.split() {
            None => ".".to_owned(),
            Some((parent, last)) => {
                super::name::shown(&[parent, &[last.to_vec()]].concat().join(&b'/'))
            }
        }
    }
}

/// A file could not be written: whose fault it was.
#[derive(Debug)]
pub(super) enum FileError {
    /// The content ended or broke.
    Content(io::Error),
    /// The target refused.
    Target(ImageError),
}

impl From<ImageError> for FileError {
    fn from(error: ImageError) -> Self {
        Self::Target(error)
    }
}

fn open_dir(at: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(at, path, flags, Mode::empty(), resolve)
}

/// Fills a block; less than a whole one is the end.
fn read_block(content: &mut dyn Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match content.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn owner(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
}

fn times(mtime_s: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime_s, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn target_error(what: &'static str, path: &Path, source: io::Error) -> ImageError {
    ImageError::Io { what, path: path.to_owned(), source }
}

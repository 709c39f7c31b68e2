//! A guest's disks: image files, or disks that lose what was not flushed when the power goes. QEMU
//! itself keeps all that the guest gave to a disk, so those are served to it by NBD from here.

mod cache;
mod dice;
mod nbd;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use self::cache::{BLOCK, Cached};
pub(crate) use self::dice::Dice;

/// A disk.
pub(crate) enum Disk {
    /// A raw image file, which keeps everything.
    File(PathBuf),
    /// One with a volatile cache.
    Volatile(Volatile),
}

/// A disk that is served for as long as this program runs.
pub(crate) struct Volatile {
    socket: PathBuf,
    disk: Arc<Mutex<Cached>>,
}

impl Disk {
    /// What QEMU opens.
    pub(crate) fn file(&self) -> OsString {
        match self {
            Self::File(path) => path.into(),
            Self::Volatile(disk) => {
                let mut url = OsString::from("nbd+unix:///?socket=");
                url.push(&disk.socket);
                url
            }
        }
    }

    /// The guest has gone; with its power, if so. Says how many block versions were at stake.
    pub(crate) fn settle(&self, cut: Option<&mut Dice>) -> Result<usize> {
        let Self::Volatile(disk) = self else { return Ok(0) };
        let mut disk = disk.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = disk.pending();
        match cut {
            Some(dice) => disk.cut(dice),
            None => disk.flush(),
        }
        .context("writing a disk's image")?;
        Ok(pending)
    }
}

impl Volatile {
    /// Serves the image at `path` on a socket that is made at `socket`.
    pub(crate) fn serve(path: &Path, socket: PathBuf) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path);
        let file = file.with_context(|| path.display().to_string())?;
        let size = file.metadata()?.len();
        anyhow::ensure!(size % BLOCK == 0, "{} is not of whole blocks", path.display());
        let listener = UnixListener::bind(&socket).context("an NBD socket")?;
        let disk = Arc::new(Mutex::new(Cached::new(file, size)));
        let served = disk.clone();
        std::thread::spawn(move || {
            // One boot after the other.
            for client in listener.incoming().map_while(std::result::Result::ok) {
                // A guest that is killed in the midst of a request is no error.
                let _ = nbd::serve(client, &served);
            }
        });
        Ok(Self { socket, disk })
    }
}

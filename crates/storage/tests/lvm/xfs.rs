//! A pool of the `xfs` driver on a whole disk, for what goes between drivers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_storage::Pool;
use holdfast_storage::conformance::{self, Rig};
use holdfast_storage::xfs::{XfsOptions, XfsPool};
use holdfast_types::{ClusterId, VolumeUid};
use uuid::Uuid;

/// The disk is blank again when this is dropped.
pub(crate) struct XfsRig {
    pool: Option<XfsPool>,
    options: XfsOptions,
    disk: PathBuf,
}

impl XfsRig {
    pub(crate) fn new(disk: &Path) -> Self {
        let dir = PathBuf::from("/run/xfs");
        std::fs::create_dir_all(&dir).unwrap();
        run("mkfs.xfs", &["-q", "-f", &text(disk)]);
        run("mount", &["-t", "xfs", &text(disk), &text(&dir)]);
        let options = XfsOptions {
            dir,
            cluster: ClusterId(Uuid::nil()),
            threshold_percent: 90,
            loop_backed: None,
            patience: Duration::from_secs(5),
        };
        Self { pool: Some(XfsPool::open(&options).unwrap()), options, disk: disk.into() }
    }
}

impl Rig for XfsRig {
    fn pool(&self) -> &dyn Pool {
        self.pool.as_ref().unwrap()
    }

    fn discard(&self, volume: VolumeUid, offset: u64, len: u64) {
        let (device, offset) = conformance::device(self, volume, offset);
        let (offset, len) = (offset.to_string(), len.to_string());
        run("blkdiscard", &["-o", &offset, "-l", &len, &text(&device)]);
    }

    fn reopen(&mut self) {
        self.pool = None;
        self.pool = Some(XfsPool::open(&self.options).unwrap());
    }
}

impl Drop for XfsRig {
    fn drop(&mut self) {
        self.pool = None;
        let _ = Command::new("umount").arg("-l").arg(&self.options.dir).output();
        let _ = Command::new("wipefs").args(["--all", "--quiet"]).arg(&self.disk).output();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let out = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {arguments:?}: {said}");
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

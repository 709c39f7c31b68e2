//! A pool on a whole disk.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_storage::Pool;
use holdfast_storage::conformance::{self, Rig};
use holdfast_storage::lvm::admin::{self, Plan, Request};
use holdfast_storage::lvm::{LvmOptions, LvmPool, WhenFull};
use holdfast_types::{ClusterId, VolumeUid};
use uuid::Uuid;

/// A group on one disk; gone when dropped.
pub(crate) struct LvmRig {
    pub(crate) pool: Option<LvmPool>,
    pub(crate) options: LvmOptions,
}

/// Makes a pool on a disk.
pub(crate) fn create(vg: &str, disk: &Path) {
    let request = Request::on_devices(vg.parse().unwrap(), vec![disk.into()], Vec::new());
    let request = Request { thin_pool: "pool".parse().unwrap(), ..request };
    admin::run(&plan(&request), &mut |_| ()).unwrap();
}

/// Makes a pool; nothing is to be done when it is asked for once more.
fn made(request: &Request) {
    admin::run(&plan(request), &mut |_| ()).unwrap();
    assert_eq!(plan(request).steps, []);
}

fn plan(request: &Request) -> Plan {
    admin::plan(request, &admin::look(request).unwrap()).unwrap()
}

/// LVM's own command, beside the driver.
pub(crate) fn lvm(arguments: &[&str]) {
    let out = Command::new("lvm").args(arguments).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

pub(crate) fn disks() -> Vec<PathBuf> {
    let named = std::env::var("HOLDFAST_TEST_DISKS").expect("HOLDFAST_TEST_DISKS");
    named.split(',').map(PathBuf::from).collect()
}

/// How every pool here is opened.
pub(crate) fn options(vg: &str) -> LvmOptions {
    LvmOptions {
        mountpoint: PathBuf::from("/run").join(vg),
        vg: vg.into(),
        thin_pool: "pool".into(),
        cluster: ClusterId(Uuid::nil()),
        threshold_percent: 90,
        when_full: WhenFull::Pause,
        patience: Duration::from_secs(5),
    }
}

impl LvmRig {
    pub(crate) fn new(disk: &Path) -> Self {
        let vg = format!("t-{}", disk.file_name().unwrap().to_str().unwrap());
        create(&vg, disk);
        let options = options(&vg);
        Self { pool: Some(LvmPool::open(&options).unwrap()), options }
    }

    /// A pool of 256 MiB, of which there is more to be had.
    pub(crate) fn small(disk: &Path, when_full: WhenFull) -> Self {
        let vg = format!("t-{}", disk.file_name().unwrap().to_str().unwrap());
        lvm(&["vgcreate", "-qq", "-y", &vg, disk.to_str().unwrap()]);
        let size = ["-L", "256m", "--poolmetadatasize", "64m", "-c", "64k", "-Zy"];
        let kind = ["--type", "thin-pool", "-n", "pool", &vg];
        lvm(&[&["lvcreate", "-qq", "-y"], &size[..], &kind].concat());
        made(&Request::in_group(vg.parse().unwrap(), Some("pool".parse().unwrap())));
        let options = LvmOptions { when_full, ..options(&vg) };
        Self { pool: Some(LvmPool::open(&options).unwrap()), options }
    }

    /// A pool on what is not a whole disk.
    pub(crate) fn on(device: &Path) -> Self {
        let vg = format!("t-{}", device.file_name().unwrap().to_str().unwrap());
        lvm(&["vgcreate", "-qq", "-y", &vg, device.to_str().unwrap()]);
        let request = Request::in_group(vg.parse().unwrap(), None);
        made(&Request { thin_pool: "pool".parse().unwrap(), ..request });
        let options = options(&vg);
        Self { pool: Some(LvmPool::open(&options).unwrap()), options }
    }

    /// Takes the pool away from the kernel, and back; what it had only in memory is lost.
    pub(crate) fn restart(&mut self) {
        self.pool = None;
        self.let_go();
        lvm(&["vgchange", "-qq", "-an", &self.options.vg]);
        lvm(&["vgchange", "-qq", "-ay", &self.options.vg]);
        self.pool = Some(LvmPool::open(&self.options).unwrap());
    }

    /// The thin pool's own device, as device-mapper names it.
    pub(crate) fn tpool(&self) -> String {
        format!("{}-pool-tpool", self.options.vg.replace('-', "--"))
    }

    /// Sends the thin pool a message, beside the driver.
    pub(crate) fn message(&self, text: &str) -> bool {
        let mut dmsetup = Command::new("dmsetup");
        dmsetup.args(["message", &self.tpool(), "0", text]).status().unwrap().success()
    }

    /// The thin devices of ours that the pool has.
    pub(crate) fn thin_ids(&self) -> Vec<u32> {
        assert!(self.message("reserve_metadata_snap"));
        let metadata = format!("/dev/mapper/{}", self.tpool().replace("-tpool", "_tmeta"));
        let mut list = Command::new("thin_ls");
        list.args(["-m", "--no-headers", "-o", "DEV", &metadata]);
        let listed = String::from_utf8(list.output().unwrap().stdout).unwrap();
        assert!(self.message("release_metadata_snap"));
        let ids = listed.lines().map(|line| line.trim().parse::<u32>().unwrap());
        ids.filter(|id| *id >= 1 << 23).collect()
    }

    pub(crate) fn file(&self, volume: VolumeUid) -> File {
        let device = self.pool().volume(volume).unwrap().device.unwrap();
        OpenOptions::new().read(true).write(true).open(device).unwrap()
    }
}

impl Rig for LvmRig {
    fn pool(&self) -> &dyn Pool {
        self.pool.as_ref().unwrap()
    }

    /// A thin pool takes whole chunks back; what is left of the range is zeroed.
    fn discard(&self, volume: VolumeUid, offset: u64, len: u64) {
        const CHUNK: u64 = 64 << 10;
        let (device, within) = conformance::device(self, volume, offset);
        let end = offset + len;
        let first = offset.next_multiple_of(CHUNK).min(end);
        let last = (end - end % CHUNK).max(first);
        self.write(volume, offset, &vec![0; (first - offset) as usize]);
        self.write(volume, last, &vec![0; (end - last) as usize]);
        if first < last {
            let first_at = within + (first - offset);
            let (at, len) = (first_at.to_string(), (last - first).to_string());
            let discarded =
                Command::new("blkdiscard").args(["-o", &at, "-l", &len]).arg(device).status();
            assert!(discarded.unwrap().success());
        }
    }

    fn reopen(&mut self) {
        self.pool = None;
        self.pool = Some(LvmPool::open(&self.options).unwrap());
    }
}

impl LvmRig {
    /// Removes every device of ours, with what is mounted of it, and unmounts the catalog.
    pub(crate) fn let_go(&self) {
        let run =
            |program: &str, arguments: &[&str]| Command::new(program).args(arguments).output();
        let listed = run("dmsetup", &["ls"]).map(|out| out.stdout).unwrap_or_default();
        for line in String::from_utf8_lossy(&listed).lines() {
            if let Some(name) =
                line.split_whitespace().next().filter(|n| n.starts_with("holdfast-"))
            {
                // What a failed test left suspended or mounted must not fail all that come next.
                let _ = run("dmsetup", &["resume", name]);
                let _ = run("umount", &["-A", &format!("/dev/mapper/{name}")]);
                let _ = run("dmsetup", &["remove", name]);
            }
        }
        let _ = run("umount", &[self.options.mountpoint.to_str().unwrap_or_default()]);
    }
}

impl Drop for LvmRig {
    /// Whatever a failed test left: what cannot go is seen by the test that comes next.
    fn drop(&mut self) {
        self.pool = None;
        self.let_go();
        let _ =
            Command::new("lvm").args(["vgremove", "-qq", "-ff", "-y", &self.options.vg]).output();
    }
}

/// Programs that stand in for others, in a directory that is gone when this is dropped.
pub(crate) struct Stubs(PathBuf);

impl Stubs {
    /// Each has a name, and a line of shell.
    pub(crate) fn new(programs: &[(&str, &str)]) -> Self {
        let dir = PathBuf::from("/run").join(format!("stubs-{}", Uuid::now_v7()));
        fs::create_dir(&dir).unwrap();
        for (name, does) in programs {
            fs::write(dir.join(name), format!("#!/bin/sh\n{does}\n")).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir)
    }

    /// A PATH in which they come first.
    pub(crate) fn path(&self) -> String {
        format!("{}:{}", self.0.display(), std::env::var("PATH").unwrap())
    }

    /// A PATH in which they are all there is.
    pub(crate) fn alone(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Stubs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

//! A snapshot holds its device, and nothing that dies leaves it held.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_storage::fsys::{self, FreezeHelper, FreezeWindow};
use holdfast_storage::lvm::LvmPool;
use holdfast_storage::{Error, Pool, Quiesce};
use holdfast_types::{ByteSize, Epoch, SnapshotUuid, TimestampMs, VolumeUid};
use uuid::Uuid;

use crate::rig::{LvmRig, disks, options};

const VICTIM: &str = "HOLDFAST_TEST_VICTIM";
const UID: VolumeUid = VolumeUid(Uuid::from_u128(7));
/// For what takes a moment, also where all is emulated.
const SOON: Duration = Duration::from_secs(20);

/// The helper, which the guest has in its PATH.
fn helper() -> FreezeHelper {
    FreezeHelper::new("holdfast-freeze", &[])
}

/// Stays in the window for as long as its helper allows.
struct Lingering(FreezeWindow);

impl Quiesce for Lingering {
    fn freeze(&mut self, hold: &[&str]) -> Result<(), Error> {
        self.0.freeze(hold)?;
        println!("held");
        std::thread::sleep(Duration::from_secs(9));
        Ok(())
    }
    fn thaw(&mut self) -> Result<(), Error> {
        self.0.thaw()
    }
}

/// Takes snapshots until it is killed. Started by the test below.
#[test]
#[ignore = "the daemon that the test below kills"]
fn daemon() {
    let Ok(victim) = std::env::var(VICTIM) else { return };
    let (vg, mountpoint) = victim.split_once(' ').unwrap();
    let pool = LvmPool::open(&options(vg)).unwrap();
    for n in 0.. {
        let state = pool.volume(UID).unwrap().state;
        let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
        println!("taking");
        let window = helper().window(&[mountpoint], Duration::from_secs(8));
        match n {
            0 => pool.snapshot(&id, TimestampMs(1), &mut { window }).unwrap(),
            _ => pool.snapshot(&id, TimestampMs(1), &mut Lingering(window)).unwrap(),
        };
    }
}

/// One that ends with the test, whatever becomes of that.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The daemon, up to the `n`th time that it says `word`.
fn daemon_at(vg: &str, mountpoint: &Path, word: &str, n: usize) -> Daemon {
    let mut daemon = Command::new(std::env::current_exe().unwrap());
    daemon.args(["--ignored", "--exact", "held::daemon", "--nocapture"]);
    daemon.env(VICTIM, format!("{vg} {}", mountpoint.display())).stdout(Stdio::piped());
    let mut daemon = Daemon(daemon.spawn().unwrap());
    let said = BufReader::new(daemon.0.stdout.as_mut().unwrap()).lines().map_while(Result::ok);
    let heard = said.filter(|line| line.ends_with(word)).nth(n - 1);
    assert!(heard.is_some(), "it ended before it said {word}");
    daemon
}

fn suspended() -> bool {
    let mut list = Command::new("dmsetup");
    list.args(["info", "-c", "--noheadings", "-o", "suspended"]);
    let listed = String::from_utf8(list.output().unwrap().stdout).unwrap();
    listed.lines().any(|line| line.trim() == "Suspended")
}

/// A helper whose daemon is gone may have yet to freeze, and to see that nobody waits for it.
fn helpers_end() -> bool {
    let running = || Command::new("pgrep").args(["-x", "holdfast-freeze"]).output().unwrap();
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if running().stdout.is_empty() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Writes through the filesystem; whether it came back in time.
fn writes(mountpoint: &Path) -> bool {
    let (sender, receiver) = mpsc::channel();
    let target = mountpoint.join("written");
    std::thread::spawn(move || {
        std::fs::write(&target, "x").unwrap();
        fsys::sync(target.parent().unwrap()).unwrap();
        let _ = sender.send(());
    });
    receiver.recv_timeout(SOON).is_ok()
}

/// A daemon that is killed while it holds a container's disk, or anywhere near, does not keep the
/// container waiting for the next one.
#[test]
fn a_killed_daemon_leaves_no_disk_held() {
    let mut rig = LvmRig::new(&disks()[0]);
    let pool = rig.pool.take().unwrap();
    let vg = rig.options.vg.clone();
    pool.create(UID, ByteSize::mib(64), Epoch(1)).unwrap();
    let device = pool.activate(UID, Epoch(1)).unwrap();
    fsys::mkfs(&device).unwrap();
    let mountpoint = rig.options.mountpoint.with_extension("fs");
    fsys::mount(&device, &mountpoint).unwrap();
    drop(pool);

    let kill = |daemon: Daemon| {
        drop(daemon);
        assert!(helpers_end(), "a helper stays");
        assert!(writes(&mountpoint), "the disk stays held");
        assert!(!suspended());
    };
    let daemon = daemon_at(&vg, &mountpoint, "held", 1);
    assert!(suspended(), "a snapshot is taken of a device that takes requests");
    kill(daemon);
    for delay_ms in [0, 10, 40, 100, 200] {
        let daemon = daemon_at(&vg, &mountpoint, "taking", 1);
        std::thread::sleep(Duration::from_millis(delay_ms));
        kill(daemon);
    }
    let pool = LvmPool::open(&options(&vg)).unwrap();
    fsys::unmount(&mountpoint, SOON).unwrap();
    pool.deactivate(UID).unwrap();
    pool.remove_volume(UID).unwrap();
    pool.close().unwrap();
}

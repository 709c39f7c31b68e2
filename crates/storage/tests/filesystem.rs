//! What is done to the filesystem on a volume, on a real pool. Needs root and loop devices.
#![allow(clippy::unwrap_used)] // Clippy tells tests by their attribute; helpers have none.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_storage::fsys::{self, FreezeHelper};
use holdfast_storage::xfs::{LoopBacked, XfsOptions, XfsPool};
use holdfast_storage::{AlreadyQuiet, Error, Outcome, Pool, Quiesce};
use holdfast_types::{ByteSize, ClusterId, Epoch, SnapshotUuid, TimestampMs, VolumeUid};

const SIZE: ByteSize = ByteSize::mib(64);
const LIMIT: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(10);
const NOW: TimestampMs = TimestampMs(1);

/// A pool with one volume that holds a mounted ext4.
struct Bench {
    pool: Option<XfsPool>,
    options: XfsOptions,
    uid: VolumeUid,
    device: PathBuf,
    mountpoint: PathBuf,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = XfsOptions {
            dir: dir.path().into(),
            cluster: ClusterId::generate(),
            threshold_percent: 90,
            loop_backed: Some(LoopBacked {
                size: ByteSize::gib(1),
                mountpoint: dir.path().join("pool"),
            }),
            patience: SOON,
        };
        let pool = XfsPool::open(&options).unwrap();
        let uid = VolumeUid::generate();
        pool.create(uid, SIZE, Epoch(1)).unwrap();
        let device = pool.activate(uid, Epoch(1)).unwrap();
        let mountpoint = dir.path().join("mnt");
        let bench = Self { pool: Some(pool), options, uid, device, mountpoint, dir };
        fsys::mkfs(&bench.device).unwrap();
        assert_eq!(fsys::mount(&bench.device, &bench.mountpoint).unwrap(), Outcome::Changed);
        bench
    }

    fn pool(&self) -> &XfsPool {
        self.pool.as_ref().unwrap()
    }

    fn snap(&self, quiesce: &mut dyn Quiesce) -> Result<SnapshotUuid, Error> {
        let state = self.pool().volume(self.uid).unwrap().state;
        let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
        self.pool().snapshot(&id, NOW, quiesce).map(|_| id.uuid)
    }

    /// Whether a write gets through within a moment.
    fn writable(&self) -> bool {
        let path = self.mountpoint.join("probe");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            fs::write(path, "x").unwrap();
            let _ = sender.send(());
        });
        receiver.recv_timeout(Duration::from_millis(300)).is_ok()
    }

    fn wait_writable(&self) {
        let deadline = Instant::now() + SOON;
        while !self.writable() {
            assert!(Instant::now() < deadline, "still frozen");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // In the order of use, whatever state a failed test has left.
        let _ = helper().thaw(&self.mountpoint);
        let _ = fsys::unmount(&self.mountpoint, SOON);
        self.pool = None;
        let _ = fsys::unmount(&self.dir.path().join("pool"), SOON);
    }
}

fn helper() -> FreezeHelper {
    FreezeHelper::new(env!("CARGO_BIN_EXE_holdfast-freeze"), &[])
}

/// The helper as its parent starts it, with `sleep` for a parent that holds the pipe.
fn frozen_by_a_doomed_parent(mountpoint: &Path) -> (std::process::Child, std::process::Child) {
    let mut parent = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut freezer = Command::new(env!("CARGO_BIN_EXE_holdfast-freeze"))
        .args(["freeze", "9000", "1"])
        .arg(mountpoint)
        .stdin(parent.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(freezer.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "frozen\n");
    (parent, freezer)
}

#[test]
fn a_snapshot_of_a_busy_filesystem_is_consistent_and_the_pause_is_short() {
    let bench = Bench::new();
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let mut pauses = Vec::new();
    let snapshots: Vec<(u64, SnapshotUuid)> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = File::create(bench.mountpoint.join("log")).unwrap();
            while !stop.load(Ordering::Relaxed) {
                writeln!(log, "{}", written.load(Ordering::Relaxed)).unwrap();
                log.sync_data().unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        let out = (0..8)
            .map(|_| {
                let mut window = helper().window(&[&bench.mountpoint], LIMIT);
                let before = written.load(Ordering::Relaxed);
                let uuid = bench.snap(&mut window).unwrap();
                pauses.push(window.pause().unwrap());
                (before, uuid)
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        out
    });
    pauses.sort();
    println!("pauses: {pauses:?}");
    for (before, uuid) in snapshots {
        let scratch = bench.pool().scratch(uuid).unwrap();
        // Frozen means that not even the journal has to be replayed.
        let check = Command::new("e2fsck").args(["-f", "-n"]).arg(scratch.device()).output();
        let check = check.unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
        let target = bench.dir.path().join("scratch");
        fsys::mount(scratch.device(), &target).unwrap();
        let lines = BufReader::new(File::open(target.join("log")).unwrap()).lines().count() as u64;
        fsys::unmount(&target, SOON).unwrap();
        assert!(lines >= before, "{lines} of {before} acknowledged lines");
    }
}

#[test]
fn a_killed_parent_leaves_nothing_frozen() {
    let bench = Bench::new();
    let (mut parent, mut freezer) = frozen_by_a_doomed_parent(&bench.mountpoint);
    assert!(!bench.writable());
    parent.kill().unwrap();
    let began = Instant::now();
    assert!(freezer.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(2));
    bench.wait_writable();
    parent.wait().unwrap();
}

#[test]
fn a_window_closes_by_itself_and_fails_the_snapshot() {
    struct Dawdler(holdfast_storage::fsys::FreezeWindow);
    impl Quiesce for Dawdler {
        fn freeze(&mut self, hold: &[&str]) -> Result<(), Error> {
            self.0.freeze(hold)?;
            std::thread::sleep(Duration::from_millis(200));
            Ok(())
        }
        fn thaw(&mut self) -> Result<(), Error> {
            self.0.thaw()
        }
    }
    let bench = Bench::new();
    let window = helper().window(&[&bench.mountpoint], Duration::from_millis(50));
    assert!(matches!(bench.snap(&mut Dawdler(window)), Err(Error::Timeout(_))));
    assert!(bench.pool().volume(bench.uid).unwrap().state.snapshots.is_empty());
    bench.wait_writable();
    bench.snap(&mut helper().window(&[&bench.mountpoint], LIMIT)).unwrap();
}

/// The helper itself was killed in the middle: what starts next undoes it.
#[test]
fn what_a_killed_helper_left_frozen_is_thawed() {
    let bench = Bench::new();
    let (mut parent, mut freezer) = frozen_by_a_doomed_parent(&bench.mountpoint);
    freezer.kill().unwrap();
    freezer.wait().unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(!bench.writable());
    assert_eq!(helper().thaw(&bench.mountpoint).unwrap(), Outcome::Changed);
    assert_eq!(helper().thaw(&bench.mountpoint).unwrap(), Outcome::AlreadyThere);
    bench.wait_writable();
}

/// A node's power cut in the middle of a freeze: its mounts are gone, but the frozen filesystem
/// would keep the pool's file attached for ever.
#[test]
fn a_pool_cut_off_while_frozen_opens_again() {
    let mut bench = Bench::new();
    fs::write(bench.mountpoint.join("kept"), "kept").unwrap();
    fsys::sync(&bench.mountpoint).unwrap();
    let (mut parent, mut freezer) = frozen_by_a_doomed_parent(&bench.mountpoint);
    freezer.kill().unwrap();
    freezer.wait().unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    bench.pool = None;
    for target in [&bench.mountpoint, &bench.dir.path().join("pool")] {
        rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    bench.options.patience = Duration::from_secs(8);
    bench.pool = Some(XfsPool::open(&bench.options).unwrap());
    let device = bench.pool().activate(bench.uid, Epoch(1)).unwrap();
    fsys::mount(&device, &bench.mountpoint).unwrap();
    assert_eq!(fs::read_to_string(bench.mountpoint.join("kept")).unwrap(), "kept");
}

#[test]
fn an_idle_volume_counts_no_writes() {
    let bench = Bench::new();
    fs::write(bench.mountpoint.join("a"), "a").unwrap();
    let mut window = helper().window(&[&bench.mountpoint], LIMIT);
    bench.snap(&mut window).unwrap();
    let after_thaw = fsys::write_counter(&bench.device).unwrap();
    std::thread::sleep(Duration::from_secs(7)); // Past ext4's commit interval of 5 s.
    fsys::sync(&bench.mountpoint).unwrap();
    assert_eq!(fsys::write_counter(&bench.device).unwrap(), after_thaw);
    fs::write(bench.mountpoint.join("b"), "b").unwrap();
    fsys::sync(&bench.mountpoint).unwrap();
    assert!(fsys::write_counter(&bench.device).unwrap() > after_thaw);
}

#[test]
fn a_clone_gets_its_own_uuid_and_grows() {
    let bench = Bench::new();
    fs::write(bench.mountpoint.join("from-image"), "x").unwrap();
    fsys::unmount(&bench.mountpoint, SOON).unwrap();
    assert_eq!(fsys::unmount(&bench.mountpoint, SOON).unwrap(), Outcome::AlreadyThere);
    let image = bench.snap(&mut AlreadyQuiet).unwrap();
    let clone = VolumeUid::generate();
    bench.pool().clone_volume(image, clone, ByteSize::mib(256), Epoch(1)).unwrap();
    let device = bench.pool().activate(clone, Epoch(1)).unwrap();
    fsys::new_uuid(&device).unwrap();
    fsys::grow(&device).unwrap();
    fsys::mount(&device, &bench.mountpoint).unwrap();
    assert_eq!(fsys::mount(&device, &bench.mountpoint).unwrap(), Outcome::AlreadyThere);
    let size = rustix::fs::statvfs(&bench.mountpoint).unwrap();
    assert!(size.f_blocks * size.f_frsize > 200 << 20);
    assert!(bench.mountpoint.join("from-image").exists());
    fsys::trim(&bench.mountpoint).unwrap();
    let elsewhere = fsys::mount(&bench.device, &bench.mountpoint);
    assert!(matches!(elsewhere, Err(Error::InUse(_))), "the mount point has another volume");
    // Mounted: neither detached nor removed under its user.
    assert!(matches!(bench.pool().deactivate(clone), Err(Error::InUse(_))));
    assert!(matches!(bench.pool().remove_volume(clone), Err(Error::InUse(_))));
    fsys::unmount(&bench.mountpoint, SOON).unwrap();
    // A mount namespace that somebody made meanwhile holds the mount until it is gone.
    let deadline = Instant::now() + SOON;
    while let Err(error) = bench.pool().deactivate(clone) {
        assert!(matches!(error, Error::InUse(_)) && Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The agent lists volumes in its loops: a filesystem that is slow to freeze must not stop them.
#[test]
fn listing_does_not_wait_for_a_freeze() {
    struct Listing<'a>(&'a Bench);
    impl Quiesce for Listing<'_> {
        fn freeze(&mut self, _hold: &[&str]) -> Result<(), Error> {
            assert_eq!(self.0.pool().volumes().len(), 1);
            self.0.pool().capacity().map(drop)
        }
        fn thaw(&mut self) -> Result<(), Error> {
            Ok(())
        }
    }
    let bench = Bench::new();
    let uuid = bench.snap(&mut Listing(&bench)).unwrap();
    assert!(bench.pool().volume(bench.uid).unwrap().state.find(uuid).is_some());
}

/// Of several filesystems none stays frozen: not when one of them cannot be frozen, not when the
/// parent dies, and not beyond the one deadline that they have.
#[test]
fn several_filesystems_freeze_and_thaw_together() {
    let (one, two) = (Bench::new(), Bench::new());
    let both = [&one.mountpoint, &two.mountpoint];
    let mut window = helper().window(&both, LIMIT);
    window.freeze(&[]).unwrap();
    assert!(!one.writable() && !two.writable());
    window.thaw().unwrap();
    one.wait_writable();
    two.wait_writable();

    // The second is no filesystem that freezes: the first thaws again.
    let proc = PathBuf::from("/proc");
    let mut window = helper().window(&[&one.mountpoint, &proc], LIMIT);
    assert!(matches!(window.freeze(&[]), Err(Error::Tool { .. })));
    one.wait_writable();

    let mut window = helper().window(&both, LIMIT);
    window.freeze(&[]).unwrap();
    drop(window);
    one.wait_writable();
    two.wait_writable();

    let mut window = helper().window(&both, Duration::from_millis(50));
    window.freeze(&[]).unwrap();
    one.wait_writable();
    two.wait_writable();
    assert!(matches!(window.thaw(), Err(Error::Timeout(_))));
}

/// The kernel lets only CAP_SYS_RESOURCE do this, which a container of CI may lack.
#[test]
fn a_mounted_filesystem_grows_where_the_kernel_lets_it() {
    let bench = Bench::new();
    assert_eq!(bench.pool().resize(bench.uid, ByteSize::mib(128)).unwrap(), Outcome::Changed);
    match fsys::grow_mounted(&bench.device, &bench.mountpoint) {
        Ok(outcome) => assert_eq!(outcome, Outcome::Changed),
        Err(error) => {
            assert!(matches!(error, Error::NotPermitted(_)), "{error}");
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap();
            let effective = u64::from_str_radix(line.trim(), 16).unwrap();
            assert_eq!(effective & (1 << 24), 0, "{error}");
        }
    }
}

/// A daemon that was killed finds its mounted volumes again, on the same devices.
#[test]
fn a_restarted_daemon_adopts_what_is_mounted() {
    let mut bench = Bench::new();
    bench.pool = None;
    bench.pool = Some(XfsPool::open(&bench.options).unwrap());
    let info = bench.pool().volume(bench.uid).unwrap();
    assert_eq!(info.device.as_ref(), Some(&bench.device));
    assert_eq!(bench.pool().activate(bench.uid, Epoch(1)).unwrap(), bench.device);
    assert!(matches!(bench.pool().deactivate(bench.uid), Err(Error::InUse(_))));
    fsys::unmount(&bench.mountpoint, SOON).unwrap();
    assert_eq!(bench.pool().deactivate(bench.uid).unwrap(), Outcome::Changed);
}

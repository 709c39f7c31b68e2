//! A disk that grows while it is written, which needs CAP_SYS_RESOURCE: the machine outside may lack it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_storage::conformance::Rig;
use holdfast_storage::fsys::{self, FreezeHelper};
use holdfast_storage::{Begin, Offer, Outcome, Pool, SnapshotInfo, stream};
use holdfast_types::{ByteSize, Epoch, SnapshotUuid, TimestampMs, VolumeUid};

use crate::rig::{LvmRig, disks};

const SIZES: [ByteSize; 3] = [ByteSize::mib(48), ByteSize::mib(96), ByteSize::mib(176)];
/// More than the first size, less than the last.
const LARGE: usize = 80 << 20;
const FILES: u64 = 16;
/// For what takes a while where all is emulated.
const SOON: Duration = Duration::from_secs(120);

/// Rewrites a few files, durably, and counts.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<io::Result<()>>,
}

impl Writer {
    fn start(dir: &Path) -> Self {
        let (stop, written) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (ending, count, dir) = (stop.clone(), written.clone(), dir.to_owned());
        let thread = std::thread::spawn(move || {
            for n in (0..).take_while(|_| !ending.load(Ordering::SeqCst)) {
                write(&dir, n)?;
                count.store(n + 1, Ordering::SeqCst);
            }
            Ok(())
        });
        Self { stop, written, thread }
    }

    /// Waits until it has gone on.
    fn goes_on(&self) {
        let (from, deadline) = (self.written.load(Ordering::SeqCst), Instant::now() + SOON);
        while self.written.load(Ordering::SeqCst) < from + 3 {
            assert!(Instant::now() < deadline && !self.thread.is_finished(), "it writes no more");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it; how much it wrote.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap().expect("a write failed");
        self.written.load(Ordering::SeqCst)
    }
}

fn name(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("file-{}", n % FILES))
}

fn content(n: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn write(dir: &Path, n: u64) -> io::Result<()> {
    let mut file = File::create(name(dir, n))?;
    file.write_all(&content(n, 100_000))?;
    file.sync_all()
}

/// What the filesystem has for files, and its own tables not: nearly all of the disk.
fn fills(at: &Path, disk: ByteSize) -> bool {
    let seen = rustix::fs::statvfs(at).unwrap();
    let seen = seen.f_blocks * seen.f_frsize;
    (disk.bytes() / 10 * 8..=disk.bytes()).contains(&seen)
}

fn snapshot(rig: &LvmRig, uid: VolumeUid, at: &Path) -> SnapshotInfo {
    let id = rig.pool().volume(uid).unwrap().state.next_snapshot(SnapshotUuid::generate()).unwrap();
    let mut window = FreezeHelper::new("holdfast-freeze", &[]).window(&[at], SOON);
    rig.pool().snapshot(&id, TimestampMs(1), &mut window).unwrap();
    rig.pool().volume(uid).unwrap().state.find(id.uuid).unwrap().clone()
}

fn ship(from: &LvmRig, to: &LvmRig, snapshot: &SnapshotInfo, base: Option<SnapshotUuid>) {
    let offer = Offer::of(snapshot, base);
    let Begin::Receive(mut receiver) = to.pool().begin_receive(&offer).unwrap() else {
        panic!("it was there already");
    };
    for frame in stream::send(from.pool(), &offer, 0).unwrap() {
        receiver.feed(&frame.unwrap()).unwrap();
    }
    receiver.finish().unwrap();
}

/// The container writes on while its disk grows, sees the room, and the replica, which held the
/// smaller disk, has all of it.
#[test]
fn a_mounted_disk_grows_while_it_is_written() {
    let disks = disks();
    let (rig, replica) = (LvmRig::new(&disks[0]), LvmRig::new(&disks[1]));
    let uid = VolumeUid::generate();
    rig.pool().create(uid, SIZES[0], Epoch(1)).unwrap();
    let device = rig.pool().activate(uid, Epoch(1)).unwrap();
    fsys::mkfs(&device).unwrap();
    let at = rig.options.mountpoint.with_extension("grow");
    fsys::mount(&device, &at).unwrap();
    assert!(fills(&at, SIZES[0]));
    let writer = Writer::start(&at);
    writer.goes_on();
    let small = snapshot(&rig, uid, &at);
    ship(&rig, &replica, &small, None);
    for size in &SIZES[1..] {
        assert_eq!(rig.pool().resize(uid, *size).unwrap(), Outcome::Changed);
        writer.goes_on();
        assert_eq!(fsys::grow_mounted(&device, &at).unwrap(), Outcome::Changed);
        assert_eq!(fsys::grow_mounted(&device, &at).unwrap(), Outcome::AlreadyThere);
        assert!(fills(&at, *size), "{size}");
        writer.goes_on();
    }
    fs::write(at.join("large"), content(0, LARGE)).unwrap();
    writer.goes_on();
    let written = writer.end();
    let grown = snapshot(&rig, uid, &at);
    ship(&rig, &replica, &grown, Some(small.id.uuid));
    fsys::unmount(&at, SOON).unwrap();
    rig.pool().deactivate(uid).unwrap();
    rig.pool().remove_volume(uid).unwrap();

    replica.pool().promote(uid, grown.id.uuid, Epoch(2)).unwrap();
    let device = replica.pool().activate(uid, Epoch(2)).unwrap();
    fsys::mount(&device, &at).unwrap();
    assert!(fills(&at, SIZES[2]), "the copy has the old size");
    for n in written.saturating_sub(FILES)..written {
        assert!(fs::read(name(&at, n)).unwrap() == content(n, 100_000), "{n} of {written}");
    }
    assert!(fs::read(at.join("large")).unwrap() == content(0, LARGE));
    fsys::unmount(&at, SOON).unwrap();
    assert!(Command::new("e2fsck").args(["-f", "-n"]).arg(&device).status().unwrap().success());
    replica.pool().deactivate(uid).unwrap();
    replica.pool().remove_volume(uid).unwrap();
}

//! A thin pool that is full all the same, and what then becomes of what is written to it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use holdfast_storage::conformance::Rig;
use holdfast_storage::fsys::{self, FreezeHelper};
use holdfast_storage::lvm::WhenFull;
use holdfast_storage::stream::send;
use holdfast_storage::{AlreadyQuiet, Begin, Offer, Outcome, Pool};
use holdfast_types::{ByteSize, Code, Epoch, SnapshotUuid, TimestampMs, VolumeUid};

use crate::rig::{LvmRig, disks, lvm};

const SIZE: ByteSize = ByteSize::mib(176);
const FILE: usize = 1 << 20;
/// For what takes a while where all is emulated.
const SOON: Duration = Duration::from_secs(120);
/// No write of a file takes so long, unless it waits.
const LONG: Duration = Duration::from_secs(8);

/// Two mounted volumes that together are larger than their pool.
struct Crowded {
    rig: LvmRig,
    mounts: Vec<(VolumeUid, PathBuf)>,
}

impl Crowded {
    fn new(when_full: WhenFull) -> Self {
        let rig = LvmRig::small(&disks()[0], when_full);
        let mut mounts = Vec::new();
        for n in 0..2 {
            let uid = VolumeUid::generate();
            rig.pool().create(uid, SIZE, Epoch(1)).unwrap();
            let device = rig.pool().activate(uid, Epoch(1)).unwrap();
            fsys::mkfs(&device).unwrap();
            let target = rig.options.mountpoint.with_extension(format!("fs{n}"));
            fsys::mount(&device, &target).unwrap();
            mounts.push((uid, target));
        }
        while rig.pool().fill_reserve().unwrap() == Outcome::Changed {}
        let crowded = Self { rig, mounts };
        (0..100).for_each(|n| write(&crowded.mounts[0].1, n).unwrap());
        crowded
    }

    fn grow(&self) {
        lvm(&["lvextend", "-qq", "-L", "+128m", &format!("{}/pool", self.rig.options.vg)]);
    }

    fn exhausted(&self) -> bool {
        self.rig.pool().capacity().unwrap().is_exhausted()
    }

    /// The code with which a snapshot of the second volume is refused.
    fn snapshot(&self) -> Option<Code> {
        let (uid, mountpoint) = &self.mounts[1];
        let state = self.rig.pool().volume(*uid).unwrap().state;
        let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
        let mut window = FreezeHelper::new("holdfast-freeze", &[]).window(&[mountpoint], SOON);
        let taken = self.rig.pool().snapshot(&id, TimestampMs(1), &mut window);
        taken.err().map(|error| error.code())
    }

    /// Everything acknowledged is there, as a new mount sees it, and the filesystems are whole.
    fn check_and_end(self, acknowledged: &[u64]) {
        for (uid, target) in &self.mounts {
            let device = self.rig.pool().volume(*uid).unwrap().device.unwrap();
            fsys::unmount(target, SOON).unwrap();
            fsys::mount(&device, target).unwrap();
        }
        for n in 0..100 {
            assert!(fs::read(name(&self.mounts[0].1, n)).unwrap() == content(n), "{n}");
        }
        for n in acknowledged {
            assert!(fs::read(name(&self.mounts[1].1, *n)).unwrap() == content(*n), "{n}");
        }
        for (uid, target) in &self.mounts {
            let device = self.rig.pool().volume(*uid).unwrap().device.unwrap();
            fsys::unmount(target, SOON).unwrap();
            let mut check = std::process::Command::new("e2fsck");
            assert!(check.args(["-f", "-n"]).arg(device).status().unwrap().success());
            self.rig.pool().deactivate(*uid).unwrap();
            self.rig.pool().remove_volume(*uid).unwrap();
        }
    }
}

fn name(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("file-{n}"))
}

fn content(n: u64) -> Vec<u8> {
    let mut out = vec![0; FILE];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Durable when it returns.
fn write(dir: &Path, n: u64) -> io::Result<()> {
    let mut file = File::create(name(dir, n))?;
    file.write_all(&content(n))?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Writes files until it is told to stop, or fails; says each that is durable.
fn writer(dir: PathBuf, stop: Arc<AtomicBool>) -> Receiver<io::Result<u64>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for n in (1000..).take_while(|_| !stop.load(Ordering::SeqCst)) {
            let written = write(&dir, n).map(|()| n);
            let failed = written.is_err();
            if sender.send(written).is_err() || failed {
                break;
            }
        }
    });
    receiver
}

/// Hears the writer until it waits: then nothing more is said.
fn until_it_waits(said: &Receiver<io::Result<u64>>, acknowledged: &mut Vec<u64>) {
    let deadline = Instant::now() + SOON;
    loop {
        assert!(Instant::now() < deadline, "the pool is never full");
        match said.recv_timeout(LONG) {
            Ok(written) => acknowledged.push(written.expect("a write failed")),
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => panic!("the writer ended"),
        }
    }
}

/// I20: what waits for room goes on when it comes, first of the reserve, then of a larger pool, and
/// nobody was told a lie meanwhile.
#[test]
fn writes_wait_for_room() {
    let crowded = Crowded::new(WhenFull::Pause);
    let (stop, mut acknowledged) = (Arc::new(AtomicBool::new(false)), Vec::new());
    let said = writer(crowded.mounts[1].1.clone(), stop.clone());
    until_it_waits(&said, &mut acknowledged);
    assert!(crowded.exhausted());
    let before = acknowledged.len();
    assert_eq!(crowded.rig.pool().writable().unwrap_err().code(), Code::PoolFull);
    assert_eq!(crowded.snapshot(), Some(Code::PoolFull), "and does not freeze what cannot end");
    let refused = crowded.rig.pool().create(VolumeUid::generate(), SIZE, Epoch(1)).unwrap_err();
    assert_eq!(refused.code(), Code::PoolFull);

    assert_eq!(crowded.rig.pool().spend_reserve().unwrap(), Outcome::Changed);
    until_it_waits(&said, &mut acknowledged);
    assert!(acknowledged.len() > before, "the reserve was of no use");

    crowded.grow();
    for _ in 0..10 {
        acknowledged.push(said.recv_timeout(SOON).unwrap().unwrap());
    }
    stop.store(true, Ordering::SeqCst);
    acknowledged.extend(said.iter().map(Result::unwrap));
    assert!(!fsys::is_read_only(&crowded.mounts[1].1).unwrap());
    assert_eq!(crowded.snapshot(), None);
    crowded.check_and_end(&acknowledged);
}

/// Where it is configured so, a write fails at once, and what was acknowledged before is there.
#[test]
fn writes_fail_where_they_are_to() {
    let crowded = Crowded::new(WhenFull::Error);
    let said = writer(crowded.mounts[1].1.clone(), Arc::default());
    let (mut acknowledged, mut failed) = (Vec::new(), None);
    while failed.is_none() {
        match said.recv_timeout(SOON).expect("it neither wrote nor failed") {
            Ok(n) => acknowledged.push(n),
            Err(error) => failed = Some(error),
        }
    }
    println!("{failed:?}, read-only: {:?}", fsys::is_read_only(&crowded.mounts[1].1));
    assert!(crowded.exhausted());
    assert_eq!(crowded.snapshot(), Some(Code::PoolFull));
    crowded.grow();
    let (uid, target) = &crowded.mounts[1];
    let device = crowded.rig.pool().volume(*uid).unwrap().device.unwrap();
    fsys::unmount(target, SOON).unwrap();
    fsys::mount(&device, target).unwrap();
    assert!(!fsys::is_read_only(target).unwrap());
    write(target, 5).unwrap();
    acknowledged.push(5);
    crowded.check_and_end(&acknowledged);
}

/// I20: a receive looked at the room that was left and synced then, up to a gigabyte; what waited in
/// the page cache filled the pool.
#[test]
fn what_a_receive_had_yet_to_sync_filled_the_pool() {
    const WHOLE: ByteSize = ByteSize::mib(252);
    let source = LvmRig::new(&disks()[1]);
    let target = LvmRig::small(&disks()[0], WhenFull::Error);
    let uid = VolumeUid::generate();
    source.pool().create(uid, WHOLE, Epoch(1)).unwrap();
    source.pool().activate(uid, Epoch(1)).unwrap();
    (0..WHOLE.bytes() / FILE as u64).for_each(|n| source.write(uid, n * FILE as u64, &content(n)));
    let id = source.pool().volume(uid).unwrap().state.next_snapshot(SnapshotUuid::generate());
    source.pool().snapshot(&id.unwrap(), TimestampMs(1), &mut AlreadyQuiet).unwrap();
    let info = source.pool().volume(uid).unwrap().state.newest().unwrap().clone();
    let offer = Offer::of(&info, None);
    let Begin::Receive(mut receiver) = target.pool().begin_receive(&offer).unwrap() else {
        panic!("it is there")
    };
    let mut frames = send(source.pool(), &offer, 0).unwrap();
    let fed = frames.try_for_each(|frame| receiver.feed(&frame.unwrap()));
    let refused = fed.and_then(|()| receiver.finish().map(drop)).unwrap_err();
    assert_eq!(refused.code(), Code::PoolFull);
    let capacity = target.pool().capacity().unwrap();
    assert!(capacity.used.bytes() * 100 <= capacity.size.bytes() * 97, "{capacity:?}");
    target.pool().writable().unwrap();
}

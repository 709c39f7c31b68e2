//! SIGKILL at any moment: what was acknowledged is there, and nothing is left over.
#![allow(clippy::unwrap_used)] // Clippy tells tests by their attribute; helpers have none.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_storage::xfs::{LoopBacked, XfsOptions, XfsPool};
use holdfast_storage::{
    AlreadyQuiet, Member, Pool, Shape, SnapshotKind, Tail,
    fsys::{self, FreezeHelper},
    members,
};
use holdfast_types::{ByteSize, ClusterId, Epoch, SnapshotUuid, TimestampMs, VolumeUid};
use uuid::Uuid;

const DIR: &str = "HOLDFAST_CRASH_TEST_DIR";
const NOW: TimestampMs = TimestampMs(1);
const UID: VolumeUid = VolumeUid(Uuid::from_u128(7));

fn open(dir: &Path) -> XfsPool {
    let options = XfsOptions {
        dir: dir.into(),
        cluster: ClusterId(Uuid::nil()),
        threshold_percent: 90,
        loop_backed: Some(LoopBacked { size: ByteSize::gib(1), mountpoint: dir.join("mnt") }),
        patience: Duration::from_secs(10),
    };
    XfsPool::open(&options).unwrap()
}

/// The volume is a set of two: whatever one of them holds, the other does.
fn shape() -> Shape {
    let data = Member::new("data".parse().unwrap(), ByteSize::mib(4));
    Shape { root: ByteSize::mib(8), data: vec![data] }
}

/// One round of a volume's life: written, snapshotted, rolled back with its tail kept, promoted
/// under the next epoch. Says which epoch and snapshot are durable as soon as they are.
fn one_life(pool: &XfsPool) {
    if pool.volume(UID).is_err() {
        pool.create_set(UID, &shape(), Epoch(1)).unwrap();
    }
    // Killed before it was said, it is said again.
    if pool.volume(UID).unwrap().state.live.is_some() {
        pool.filled(UID).unwrap();
    }
    let state = pool.volume(UID).unwrap().state;
    let Some(live) = &state.live else {
        let newest = state.newest().unwrap().id;
        let epoch = state.record.promoted.unwrap().epoch.next();
        pool.promote(UID, newest.uuid, epoch).unwrap();
        println!("epoch {epoch}");
        return;
    };
    let root = pool.activate(UID, live.epoch).unwrap();
    let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
    for device in pool.volume(UID).unwrap().data_devices.into_iter().chain([root]) {
        let file = OpenOptions::new().write(true).open(device).unwrap();
        file.write_all_at(id.uuid.0.as_bytes(), 4096).unwrap();
        file.sync_all().unwrap();
    }
    pool.snapshot(&id, NOW, &mut AlreadyQuiet).unwrap();
    println!("snapshot {}", id.uuid);
    for old in state.snapshots.iter().rev().skip(2) {
        pool.remove_snapshot(old.id.uuid).unwrap();
    }
    if id.seq.0.is_multiple_of(3) {
        pool.deactivate(UID).unwrap();
        let label = "tail".to_owned();
        let tail = Tail { uuid: SnapshotUuid::generate(), taken: NOW, label };
        pool.demote(UID, Some(id.uuid), Some(&tail)).unwrap();
    }
}

/// Runs until it is killed. Started by the test below.
#[test]
#[ignore = "the process that the crash test kills"]
fn victim() {
    if let Some(dir) = std::env::var_os(DIR) {
        let pool = open(Path::new(&dir));
        loop {
            one_life(&pool);
        }
    }
}

/// The same with a mounted filesystem that is written and frozen all the time.
#[test]
#[ignore = "the node whose power the test below cuts"]
fn node() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let pool = open(dir);
    if pool.volume(UID).is_err() {
        pool.create(UID, ByteSize::mib(64), Epoch(1)).unwrap();
        let device = pool.activate(UID, Epoch(1)).unwrap();
        fsys::mkfs(&device).unwrap();
    }
    let device = pool.activate(UID, Epoch(1)).unwrap();
    let target = dir.join("fs");
    fsys::mount(&device, &target).unwrap();
    let helper = FreezeHelper::new(env!("CARGO_BIN_EXE_holdfast-freeze"), &[]);
    for n in 0u64.. {
        std::fs::write(target.join("count"), n.to_string()).unwrap();
        let state = pool.volume(UID).unwrap().state;
        let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
        let mut window = helper.window(&[&target], Duration::from_secs(5));
        pool.snapshot(&id, NOW, &mut window).unwrap();
        println!("snapshot {}", id.uuid);
        for old in state.snapshots.iter().rev().skip(2) {
            pool.remove_snapshot(old.id.uuid).unwrap();
        }
    }
}

/// A node's power cut as the lab does it: its pid namespace's init is killed, and the kernel
/// takes its mounts and devices down when it gets to it, wherever in a freeze that was.
#[test]
fn a_node_without_power_leaves_a_pool_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    let _unmount = Unmount(dir.path());
    for round in 0..8u64 {
        let mut node = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "node", "--nocapture"])
            .env(DIR, dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
        let first = lines.find(|line| line.as_ref().unwrap().starts_with("snapshot"));
        assert!(first.is_some(), "the node did not start");
        std::thread::sleep(Duration::from_millis(round * 23));
        node.kill().unwrap();
        let last = lines.map_while(Result::ok).filter_map(|l| l.split_once(' ')?.1.parse().ok());
        let last: Option<SnapshotUuid> = last.last();
        node.wait().unwrap();

        let began = Instant::now();
        let pool = open(dir.path());
        println!("open again after {:?}", began.elapsed());
        let state = pool.volume(UID).unwrap().state;
        assert!(last.is_none_or(|uuid| state.find(uuid).is_some()));
        let device = pool.activate(UID, Epoch(1)).unwrap();
        let target = dir.path().join("fs");
        fsys::mount(&device, &target).unwrap();
        let count = std::fs::read_to_string(target.join("count")).unwrap();
        fsys::unmount(&target, Duration::from_secs(10)).unwrap();
        assert!(count.parse::<u64>().is_ok() || count.is_empty(), "{count:?}");
        pool.deactivate(UID).unwrap();
        pool.close().unwrap();
    }
}

/// Whatever a failed test leaves mounted.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        for name in ["fs", "mnt"] {
            let _ = fsys::unmount(&self.0.join(name), Duration::from_secs(10));
        }
    }
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let _unmount = Unmount(dir.path());
    drop(open(dir.path()));
    let mut lives = 0;
    for round in 0..20u64 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "victim", "--nocapture"])
            .env(DIR, dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(15 + round * 37 % 110));
        victim.kill().unwrap();
        let (mut snapshot, mut epoch) = (None, Epoch(0));
        for line in BufReader::new(victim.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            lives += 1;
            match line.split_once(' ') {
                Some(("snapshot", uuid)) => snapshot = uuid.parse::<SnapshotUuid>().ok(),
                Some(("epoch", number)) => epoch = number.parse().unwrap_or_default(),
                _ => lives -= 1,
            }
        }
        victim.wait().unwrap();

        let pool = open(dir.path());
        let Ok(volume) = pool.volume(UID) else {
            assert_eq!(snapshot, None);
            continue;
        };
        let promoted = volume.state.record.promoted.unwrap().epoch;
        assert!(promoted >= epoch, "{promoted} is before {epoch}");
        if let Some(uuid) = snapshot {
            assert!(volume.state.find(uuid).is_some(), "{uuid} is gone");
        }
        for info in &volume.state.snapshots {
            let mut reader = pool.open_snapshot(info.id.uuid).unwrap();
            let written = [0, 1].map(|member| {
                let mut content = [0; 16];
                reader.read_at(members::start(member) + 4096, &mut content).unwrap();
                Uuid::from_bytes(content)
            });
            if info.kind == SnapshotKind::Chain {
                assert_eq!(written, [info.id.uuid.0; 2], "torn or mixed");
            }
        }
        let files = std::fs::read_dir(dir.path().join("mnt/volumes").join(UID.to_string()));
        let live = usize::from(volume.state.live.is_some());
        assert_eq!(files.unwrap().count(), 2 * (volume.state.snapshots.len() + live) + 1);
    }
    assert!(lives > 20, "only {lives} lives: nothing was tested");
}

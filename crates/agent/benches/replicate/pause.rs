//! What a writer notices of snapshots: the longest of its writes around each.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use holdfast_storage::fsys::{self, FreezeHelper};
use holdfast_storage::{Pool, Quiesce};
use holdfast_types::{ByteSize, Epoch, SnapshotUuid, TimestampMs, VolumeUid};

use crate::content::Dice;
use crate::rig::{HELPER, Rig, note};
use crate::{Measured, Plan, say};

/// 20 MB/s, in pieces of 64 KiB.
const PIECE: usize = 64 << 10;
const PER_S: f64 = 20e6;
/// It overwrites a file of this size again and again.
const FILE: u64 = 256 << 20;

/// Snapshots of a round, one each `EVERY`.
const SNAPSHOTS: u32 = 20;
const EVERY: Duration = Duration::from_millis(500);

pub(crate) fn measure(rig: &Rig, plan: &Plan, measured: &mut Measured) -> Result<()> {
    say("the pause of a writer");
    let (uid, size) = (VolumeUid::generate(), ByteSize::gib(1));
    let pool = &rig.source.pool;
    pool.create(uid, size, Epoch(1))?;
    let device = pool.activate(uid, Epoch(1))?;
    let place = rig.dir.join("pause.mnt");
    std::fs::create_dir_all(&place)?;
    let result = fsys::mkfs_blank(&device)
        .and_then(|()| fsys::mount(&device, &place))
        .map_err(anyhow::Error::from)
        .and_then(|_| watch(rig, plan, uid, &place, measured));
    fsys::unmount(&place, Duration::from_secs(10))?;
    pool.deactivate(uid)?;
    rig.remove(uid)?;
    result
}

fn watch(
    rig: &Rig,
    plan: &Plan,
    uid: VolumeUid,
    place: &Path,
    measured: &mut Measured,
) -> Result<()> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(place.join("busy"))?;
    let (stop, writes) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&file, &stop, &writes));
        let result = snapshots(rig, plan, uid, place, &writes, measured);
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        result
    })
}

/// When a write began, and how long it took.
type Write = (Instant, Duration);

fn write(file: &File, stop: &AtomicBool, writes: &Mutex<Vec<Write>>) -> Result<()> {
    let mut buf = vec![0; PIECE];
    let mut dice = Dice::new(11);
    let began = Instant::now();
    for i in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // What a pause held up is caught up with.
        let due = began + Duration::from_secs_f64(i as f64 * PIECE as f64 / PER_S);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        dice.fill(&mut buf);
        let start = Instant::now();
        file.write_all_at(&buf, i * PIECE as u64 % FILE)?;
        let took = start.elapsed();
        writes.lock().map_err(|_| anyhow!("a thread panicked"))?.push((start, took));
    }
    Ok(())
}

/// As the agent takes them: what is dirty is written first, then the helper freezes.
fn snapshots(
    rig: &Rig,
    plan: &Plan,
    uid: VolumeUid,
    place: &Path,
    writes: &Mutex<Vec<Write>>,
    measured: &mut Measured,
) -> Result<()> {
    let pool = &rig.source.pool;
    let program = std::env::current_exe()?;
    let helper = FreezeHelper::new(program, &[HELPER]);
    for _ in 0..plan.rounds * SNAPSHOTS {
        std::thread::sleep(EVERY);
        let began = Instant::now();
        fsys::sync(place)?;
        let mut window = helper.window(&[place], Duration::from_secs(2));
        let state = pool.volume(uid)?.state;
        let id = state.next_snapshot(SnapshotUuid::generate()).context("no live part")?;
        pool.snapshot(&id, TimestampMs(1), &mut window as &mut dyn Quiesce)?;
        let ended = Instant::now();
        // A write that the thaw let go has ended, and is on the list.
        std::thread::sleep(EVERY / 5);
        let mut writes = writes.lock().map_err(|_| anyhow!("a thread panicked"))?;
        let around = writes.drain(..).filter(|(at, took)| *at + *took >= began && *at <= ended);
        let longest = around.map(|(_, took)| took).max().unwrap_or_default();
        drop(writes);
        note(measured, "pause_ms", longest.as_secs_f64() * 1e3);
        let frozen = window.pause().unwrap_or_default();
        note(measured, "frozen_ms", frozen.as_secs_f64() * 1e3);
        for old in state.snapshots {
            pool.remove_snapshot(old.id.uuid)?;
        }
    }
    Ok(())
}

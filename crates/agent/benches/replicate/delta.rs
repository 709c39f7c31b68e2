//! What a change costs: beside rsync, for volumes of several sizes, and in a torn volume.

use std::fs::{self, File};

use anyhow::Result;
use holdfast_storage::{Pool, SnapshotInfo};
use rustix::fs::ioctl_ficlone;

use crate::rig::{Rig, cold, note, timed};
use crate::rivals::Rsync;
use crate::{Measured, Plan, content, say};

/// Changes come in pieces of this size, so that 1 % of 10 GiB is 819 of them.
const PIECE: u64 = 128 << 10;
/// A torn volume's pieces, and how many.
const TORN: u64 = 4 << 10;
const TORN_COUNT: u64 = 20_000;

/// 1 % of a volume changed, beside rsync of the same snapshot to a copy of the same base.
pub(crate) fn measure(rig: &Rig, plan: &Plan, measured: &mut Measured) -> Result<()> {
    say("1 % changed: making the data");
    let (uid, mut base) = rig.volume(plan.delta, |device| content::noise(device, plan.delta, 1))?;
    rig.ship(&base, None)?;
    let served = rig.target.mountpoint.join("rsync");
    let rsync = Rsync::serve(&rig.dir, &served)?;
    let count = plan.delta / 100 / PIECE;
    for round in 0..plan.rounds {
        say(&format!("1 % changed: round {} of {}", round + 1, plan.rounds));
        let seed = u64::from(round) + 100;
        let next = rig.change(uid, |d| content::scattered(d, plan.delta, PIECE, count, seed))?;
        let theirs = |measured: &mut Measured| -> Result<()> {
            let copy = File::create(served.join("disk"))?;
            ioctl_ficlone(&copy, &File::open(rig.target.file(&base))?)?;
            copy.sync_all()?;
            drop(copy);
            cold()?;
            let args = ["--inplace", "--no-whole-file", "--ignore-times"];
            let from = rig.source.file(&next);
            note(measured, "delta_rsync_s", timed(|| rsync.send(&args, &from, "disk"))?);
            Ok(fs::remove_file(served.join("disk"))?)
        };
        if round % 2 == 1 {
            theirs(measured)?;
        }
        let shipped = rig.ship(&next, Some(base.id.uuid))?;
        note(measured, "delta_s", shipped.seconds);
        note(measured, "delta_wire", shipped.wire as f64);
        note(measured, "delta_changed", (count * PIECE) as f64);
        if round % 2 == 0 {
            theirs(measured)?;
        }
        forget(rig, &base)?;
        base = next;
    }
    rig.remove(uid)
}

/// The same change in volumes of 1, 10 and 100 GiB with the same little content, in turns.
pub(crate) fn scale(rig: &Rig, plan: &Plan, measured: &mut Measured) -> Result<()> {
    say("the same change in 1, 10 and 100 GiB");
    let (within, count) = (1 << 30, plan.delta / 100 / PIECE);
    let mut volumes = Vec::new();
    for gib in [1, 10, 100] {
        let write = |device: &File| content::noise(device, 256 << 20, gib);
        let (uid, base) = rig.volume(gib << 30, write)?;
        rig.ship(&base, None)?;
        volumes.push((gib, uid, base));
    }
    for round in 0..plan.rounds {
        for (gib, uid, base) in &mut volumes {
            let seed = u64::from(round) + 500;
            let count = count.min(within / PIECE);
            let next = rig.change(*uid, |d| content::scattered(d, within, PIECE, count, seed))?;
            let shipped = rig.ship(&next, Some(base.id.uuid))?;
            note(measured, &format!("scale_{gib}g_s"), shipped.seconds);
            forget(rig, base)?;
            *base = next;
        }
    }
    volumes.into_iter().try_for_each(|(_, uid, _)| rig.remove(uid))
}

/// A volume in tens of thousands of pieces.
pub(crate) fn torn(rig: &Rig, plan: &Plan, measured: &mut Measured) -> Result<()> {
    say("a torn volume");
    let size = 1 << 30;
    let (uid, mut base) = rig.volume(size, |device| content::noise(device, size, 3))?;
    let tear = |seed| move |d: &File| content::scattered(d, size, TORN, TORN_COUNT, seed);
    rig.ship(&base, None)?;
    for round in 0..=plan.rounds {
        let next = rig.change(uid, tear(u64::from(round) + 900))?;
        let shipped = rig.ship(&next, Some(base.id.uuid))?;
        // The first one tears it.
        if round > 0 {
            let pieces = rig.source.pool.fragmentation(next.id.uuid)?.extents;
            note(measured, "torn_extents", pieces as f64);
            note(measured, "torn_s", shipped.seconds);
            note(measured, "torn_first_frame_s", shipped.first_s);
            note(measured, "torn_wire", shipped.wire as f64);
            note(measured, "torn_changed", (TORN * TORN_COUNT) as f64);
        }
        forget(rig, &base)?;
        base = next;
    }
    rig.remove(uid)
}

fn forget(rig: &Rig, snapshot: &SnapshotInfo) -> Result<()> {
    rig.source.pool.remove_snapshot(snapshot.id.uuid)?;
    rig.target.pool.remove_snapshot(snapshot.id.uuid)?;
    Ok(())
}

//! A full copy of mixed data, four ways, in turns.

use std::fs;

use anyhow::Result;
use holdfast_storage::Pool;

use crate::rig::{Rig, cold, note, timed, used};
use crate::rivals::{Btrfs, Rsync};
use crate::{Measured, Plan, content, raw, say};

pub(crate) fn measure(rig: &Rig, plan: &Plan, measured: &mut Measured) -> Result<()> {
    say("full copy: making the data");
    // A quarter of the volume is a hole.
    let size = (plan.full + plan.full / 3).next_multiple_of(4 << 20);
    let (uid, snapshot) = rig.volume(size, |device| content::mixed(device, plan.full))?;
    let from = rig.source.file(&snapshot);
    let served = rig.target.mountpoint.join("rsync");
    let rsync = Rsync::serve(&rig.dir, &served)?;
    let btrfs = Btrfs::new(&rig.dir, &from, plan.full);
    if let Err(error) = &btrfs {
        measured.insert("btrfs_absent".to_owned(), format!("{error:#}").into());
    }
    let to = rig.target.mountpoint.join("raw-copy");
    for round in 0..plan.rounds {
        say(&format!("full copy: round {} of {}", round + 1, plan.rounds));
        // Each goes first in its turn.
        for turn in 0..5 {
            let (name, seconds) = match (round + turn) % 5 {
                0 => {
                    let shipped = rig.ship(&snapshot, None)?;
                    note(measured, "full_wire", shipped.wire as f64);
                    note(measured, "full_grew_mib", shipped.grew_mib);
                    note(measured, "full_processor_s", shipped.used_s);
                    rig.target.pool.remove_volume(uid)?;
                    ("full", shipped.seconds)
                }
                way @ (1 | 2) => {
                    let (name, way) = match way {
                        1 => ("full_raw", raw::CACHED),
                        _ => ("full_raw_direct", raw::DIRECT),
                    };
                    cold()?;
                    let before = used()?;
                    let seconds = timed(|| raw::copy(&from, &to, way))?;
                    note(measured, &format!("{name}_processor_s"), used()? - before);
                    fs::remove_file(&to)?;
                    (name, seconds)
                }
                3 => {
                    cold()?;
                    let args = ["--sparse", "--whole-file"];
                    let seconds = timed(|| rsync.send(&args, &from, "disk"))?;
                    fs::remove_file(served.join("disk"))?;
                    ("full_rsync", seconds)
                }
                _ => {
                    let Ok(btrfs) = &btrfs else { continue };
                    cold()?;
                    let seconds = timed(|| btrfs.copy())?;
                    btrfs.forget()?;
                    ("full_btrfs", seconds)
                }
            };
            rig.target.trim()?;
            note(measured, &format!("{name}_s"), seconds);
        }
    }
    rig.remove(uid)
}

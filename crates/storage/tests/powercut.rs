//! Power cuts on the `lvm` driver: two pools are made, a volume lives on one and is replicated to
//! the other, others come and go beside it, until the guest's power goes. Each life first checks what
//! the lives before were told is durable (I15 to I21), in `HOLDFAST_TEST_ACKED`, a file outside of
//! the guest.
//!
//! Run by `cargo xtask guest -- powercut`, which cuts at the moments that are printed here, or a
//! little later. What the guest had not flushed to its disks is then lost or not, at random.
#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_storage::lvm::admin::{self, Refusal, Request};
use holdfast_storage::lvm::{LvmOptions, LvmPool, WhenFull};
use holdfast_storage::stream::send;
use holdfast_storage::{AlreadyQuiet, Begin, Offer, Pool, SnapshotInfo, SnapshotKind, Tail};
use holdfast_types::{ByteSize, ClusterId, Epoch, SnapshotUuid, TimestampMs, VolumeUid};
use uuid::Uuid;

const UID: VolumeUid = VolumeUid(Uuid::from_u128(7));
const SIZE: ByteSize = ByteSize::mib(16);
const NOW: TimestampMs = TimestampMs(1);
/// What volumes beside grow to.
const LARGER: ByteSize = ByteSize::mib(12);
const BLOCK: usize = 4 << 10;
/// Rounds of the last life, and of one that is not cut.
const ROUNDS: u64 = 6;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name}"))
}

/// The moment at which the power may go.
fn at(what: &str, round: u64) {
    println!("at {what} {round}.");
}

struct Life {
    primary: LvmPool,
    replica: LvmPool,
    acked: PathBuf,
}

/// Makes the pool, or what an interruption left undone of it.
fn make(vg: &str, disk: &str, wipe: bool) -> Result<(), Refusal> {
    let wiped = wipe.then(|| disk.into()).into_iter().collect();
    let request = Request::on_devices(vg.parse().unwrap(), vec![disk.into()], wiped);
    let request = Request { thin_pool: "pool".parse().unwrap(), ..request };
    at("making", 0);
    let plan = admin::plan(&request, &admin::look(&request).unwrap())?;
    admin::run(&plan, &mut |_| ()).unwrap();
    Ok(())
}

fn open(disk: &str, acked: &Path) -> LvmPool {
    let vg = format!("p-{}", disk.rsplit('/').next().unwrap());
    let made = format!("made {vg}");
    match make(&vg, disk, false) {
        // What LVM had not flushed when the power went may be there in part: the disk then claims to
        // be of a group that never was, and the operator has to name it.
        Err(Refusal::NotEmpty { .. }) if !read(acked).lines().any(|line| line == made) => {
            make(&vg, disk, true).unwrap();
        }
        other => other.unwrap(),
    }
    acknowledge(acked, &made);
    let options = LvmOptions {
        mountpoint: PathBuf::from("/run").join(&vg),
        vg,
        thin_pool: "pool".into(),
        cluster: ClusterId(Uuid::nil()),
        threshold_percent: 90,
        when_full: WhenFull::Pause,
        patience: Duration::from_secs(5),
    };
    at("opening", 0);
    LvmPool::open(&options).unwrap()
}

/// The hash of a snapshot as it is on disk.
fn hash(pool: &dyn Pool, info: &SnapshotInfo) -> String {
    let mut reader = pool.open_snapshot(info.id.uuid).unwrap();
    let (mut hasher, mut buf) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    for offset in (0..info.size.bytes()).step_by(buf.len()) {
        reader.read_at(offset, &mut buf).unwrap();
        hasher.update(&buf);
    }
    hasher.finalize().to_hex().to_string()
}

/// The hash of what a device holds.
fn content_of(device: &Path) -> String {
    let mut file = File::open(device).unwrap();
    let (mut hasher, mut buf) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    while let n @ 1.. = file.read(&mut buf).unwrap() {
        hasher.update(&buf[..n]);
    }
    hasher.finalize().to_hex().to_string()
}

/// Blocks all over a volume of that size, durable when this returns.
fn write(device: &Path, size: ByteSize, seed: SnapshotUuid) {
    let file = OpenOptions::new().write(true).open(device).unwrap();
    let mut random = blake3::Hasher::new().update(seed.0.as_bytes()).finalize_xof();
    let mut block = [0; BLOCK];
    for _ in 0..24 {
        let mut place = [0; 8];
        random.fill(&mut place);
        random.fill(&mut block);
        let blocks = size.bytes() / BLOCK as u64;
        let offset = u64::from_le_bytes(place) % blocks * BLOCK as u64;
        file.write_all_at(&block, offset).unwrap();
    }
    file.sync_all().unwrap();
}

/// Notes outside what is durable by now.
fn acknowledge(acked: &Path, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(acked).unwrap();
    writeln!(file, "{line}").unwrap();
    file.sync_all().unwrap();
}

/// What was noted outside.
fn read(acked: &Path) -> String {
    std::fs::read_to_string(acked).unwrap_or_default()
}

impl Life {
    fn acknowledge(&self, line: &str) {
        acknowledge(&self.acked, line);
    }

    /// Everything that was acknowledged is there, and is what it was.
    fn check(&self) -> usize {
        let lines = read(&self.acked);
        let lived = self.primary.volume(UID).is_ok_and(|v| v.state.snapshots.len() > 1);
        let of_snapshots = lines.lines().filter(|line| !line.starts_with("made "));
        assert!(!lived || of_snapshots.count() > 1, "what was acknowledged is not known");
        let removed = |uuid: &str| lines.lines().any(|line| line == format!("removing {uuid}"));
        let mut checked = 0;
        for line in lines.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (name, pool): (_, &dyn Pool) = match words[0] {
                "primary" => ("primary", &self.primary),
                "replica" => ("replica", &self.replica),
                _ => continue,
            };
            let (uuid, expected) = (words[1], words[2]);
            let state = pool.volume(UID).unwrap().state;
            let info = state.find(uuid.parse().unwrap()).cloned();
            match info {
                Some(info) => assert_eq!(hash(pool, &info), expected, "{name} {uuid}"),
                None => assert!(removed(uuid), "{name}: {uuid} is gone"),
            }
            checked += 1;
        }
        checked += self.check_beside(&lines);
        // What is listed is whole, also if nobody heard of it: on both sides the same.
        if let Ok(replica) = self.replica.volume(UID) {
            for info in replica.state.snapshots.iter().filter(|s| s.kind == SnapshotKind::Chain) {
                let Ok(primary) = self.primary.volume(UID) else { continue };
                if let Some(twin) = primary.state.find(info.id.uuid) {
                    assert_eq!(
                        hash(&self.replica, info),
                        hash(&self.primary, twin),
                        "{:?}",
                        info.id
                    );
                    checked += 1;
                }
            }
        }
        checked
    }

    fn round(&self, round: u64) {
        let state = self.primary.volume(UID).unwrap().state;
        let epoch = state.live.as_ref().unwrap().epoch;
        let device = self.primary.activate(UID, epoch).unwrap();
        let uuid = SnapshotUuid::generate();
        write(&device, SIZE, uuid);
        if round % 2 == 1 {
            let mut give_back = Command::new("blkdiscard");
            give_back.args(["-o", "1MiB", "-l", "2MiB"]).arg(&device);
            assert!(give_back.status().unwrap().success());
        }
        let written = content_of(&device);
        let id = state.next_snapshot(uuid).unwrap();
        at("snapshot", round);
        self.primary.snapshot(&id, NOW, &mut AlreadyQuiet).unwrap();
        let state = self.primary.volume(UID).unwrap().state;
        let info = state.find(uuid).unwrap().clone();
        let content = hash(&self.primary, &info);
        assert_eq!(content, written, "the snapshot is not what was written");
        self.acknowledge(&format!("primary {uuid} {content}"));
        self.ship(&info, round);
        self.acknowledge(&format!("replica {uuid} {content}"));
        let old: Vec<_> = state.snapshots.iter().rev().skip(2).map(|s| s.id.uuid).collect();
        for uuid in old {
            self.acknowledge(&format!("removing {uuid}"));
            at("remove", round);
            self.primary.remove_snapshot(uuid).unwrap();
            self.replica.remove_snapshot(uuid).unwrap();
        }
        self.rehearse(&info, &content, round);
        self.beside(round);
    }

    fn ship(&self, info: &SnapshotInfo, round: u64) {
        let replica = self.replica.volume(UID).ok();
        let here =
            |uuid: &SnapshotUuid| replica.as_ref().is_some_and(|r| r.state.find(*uuid).is_some());
        let state = self.primary.volume(UID).unwrap().state;
        let mut older =
            state.snapshots.iter().rev().map(|s| s.id.uuid).filter(|u| *u != info.id.uuid);
        let base = older.find(here);
        let offer = Offer::of(info, base);
        let Begin::Receive(mut receiver) = self.replica.begin_receive(&offer).unwrap() else {
            return;
        };
        at("receive", round);
        for frame in send(&self.primary, &offer, receiver.resume_at()).unwrap() {
            receiver.feed(&frame.unwrap()).unwrap();
            at("frame", round);
        }
        at("finish", round);
        receiver.finish().unwrap();
    }

    /// A volume's whole life beside the other: made, grown, kept as a tail, looked at, removed.
    fn beside(&self, round: u64) {
        let (pool, uid) = (&self.primary, VolumeUid::generate());
        at("create", round);
        pool.create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
        self.acknowledge(&format!("created {uid}"));
        let device = pool.activate(uid, Epoch(1)).unwrap();
        write(&device, ByteSize::mib(8), SnapshotUuid::generate());
        at("resize", round);
        pool.resize(uid, LARGER).unwrap();
        self.acknowledge(&format!("grown {uid}"));
        let id = pool.volume(uid).unwrap().state.next_snapshot(SnapshotUuid::generate()).unwrap();
        pool.snapshot(&id, NOW, &mut AlreadyQuiet).unwrap();
        write(&device, LARGER, SnapshotUuid::generate());
        let content = content_of(&device);
        pool.deactivate(uid).unwrap();
        let label = "what the power left".to_owned();
        let tail = Tail { uuid: SnapshotUuid::generate(), taken: NOW, label };
        at("tail", round);
        pool.demote(uid, Some(id.uuid), Some(&tail)).unwrap();
        self.acknowledge(&format!("tail {uid} {} {content}", tail.uuid));
        at("scratch", round);
        let scratch = pool.scratch(tail.uuid).unwrap();
        write(scratch.device(), LARGER, SnapshotUuid::generate());
        drop(scratch);
        at("reserve", round);
        pool.fill_reserve().unwrap();
        at("spend", round);
        pool.spend_reserve().unwrap();
        self.acknowledge(&format!("dropping {uid}"));
        at("drop", round);
        pool.remove_volume(uid).unwrap();
        self.acknowledge(&format!("dropped {uid}"));
    }

    /// What was acknowledged of the volumes beside. Those that the power left are removed.
    fn check_beside(&self, lines: &str) -> usize {
        let pool = &self.primary;
        let said = |word: &str, uid: &str| lines.lines().any(|l| l == format!("{word} {uid}"));
        let mut checked = 0;
        for words in lines.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
            let [what @ ("created" | "grown" | "tail" | "dropped"), uid, ref rest @ ..] = words[..]
            else {
                continue;
            };
            let volume = pool.volume(uid.parse().unwrap());
            let gone = volume.is_err();
            match (what, volume) {
                ("dropped", volume) => assert!(volume.is_err(), "{uid} is back"),
                (_, Err(_)) => assert!(gone && said("dropping", uid), "{uid} is gone"),
                ("grown", Ok(volume)) => assert_eq!(volume.state.size, LARGER, "{uid}"),
                ("tail", Ok(volume)) => {
                    let info = volume.state.find(rest[0].parse().unwrap());
                    let info = info.unwrap_or_else(|| panic!("the tail of {uid} is gone"));
                    assert_eq!(hash(pool, info), rest[1], "the tail of {uid}");
                }
                (_, Ok(volume)) => assert!(volume.state.size >= ByteSize::mib(8)),
            }
            checked += 1;
        }
        for volume in pool.volumes().iter().filter(|v| v.state.uid != UID) {
            let uid = volume.state.uid;
            self.acknowledge(&format!("dropping {uid}"));
            pool.remove_volume(uid).unwrap();
        }
        checked
    }

    /// The replica becomes a primary and a replica again.
    fn rehearse(&self, info: &SnapshotInfo, content: &str, round: u64) {
        let state = self.replica.volume(UID).unwrap().state;
        let last = state.record.promoted.map_or(info.id.epoch, |p| p.epoch.max(info.id.epoch));
        at("promote", round);
        self.replica.promote(UID, info.id.uuid, last.next()).unwrap();
        let promoted = SnapshotInfo { ..info.clone() };
        assert_eq!(hash(&self.replica, &promoted), content);
        at("demote", round);
        self.back_to_replica();
    }

    /// Ends a rehearsal, also one that the power cut short: the primary goes on above its epoch.
    fn back_to_replica(&self) {
        let Ok(volume) = self.replica.volume(UID) else { return };
        if let Some(live) = volume.state.live {
            self.replica.demote(UID, live.branch, None).unwrap();
        }
        let primary = self.primary.volume(UID).unwrap().state.live.unwrap().epoch;
        if let Some(promoted) = volume.state.record.promoted.filter(|p| p.epoch >= primary) {
            self.primary.continue_live(UID, promoted.epoch.next()).unwrap();
        }
    }
}

#[test]
fn a_life_until_the_power_goes() {
    let disks = variable("HOLDFAST_TEST_DISKS");
    let (a, b) = disks.split_once(',').unwrap();
    let acked = PathBuf::from(variable("HOLDFAST_TEST_ACKED"));
    let life = Life { primary: open(a, &acked), replica: open(b, &acked), acked };
    println!("checked {}", life.check());
    if life.primary.volume(UID).is_err() {
        life.primary.create(UID, SIZE, Epoch(1)).unwrap();
    }
    life.back_to_replica();
    for round in 0..ROUNDS {
        life.round(round);
    }
    println!("checked {}", life.check());
    for (pool, vg) in [(life.primary, a), (life.replica, b)] {
        pool.deactivate(UID).unwrap();
        pool.remove_volume(UID).unwrap();
        assert!(pool.volumes().is_empty());
        pool.close().unwrap();
        let vg = format!("p-{}", vg.rsplit('/').next().unwrap());
        // LVM runs thin_check as it takes a pool down and up.
        for step in [["vgchange", "-an", &vg], ["vgchange", "-ay", &vg]] {
            let out = Command::new("lvm").args(step).output().unwrap();
            assert!(out.status.success(), "{step:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

//! Cycles of a snapshot (written to, a new one taken, the old one removed) on one thin pool: by the
//! driver, by an LVM command each, and by one LVM process for all. In the guest
//! (`cargo xtask guest -- cycles`), where only the ratios mean anything.
//!
//! LVM's processes are counted in `/run/lvm-commands`, which a wrapper in the guest's PATH writes.
#![allow(clippy::unwrap_used)]

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_storage::lvm::admin::{self, Request};
use holdfast_storage::lvm::{LvmOptions, LvmPool, WhenFull};
use holdfast_storage::{AlreadyQuiet, Pool};
use holdfast_types::{ByteSize, ClusterId, Epoch, SnapshotUuid, TimestampMs, VolumeUid};
use uuid::Uuid;

const VOLUMES: usize = 50;
const ROUNDS: usize = 3;
const VG: &str = "cycles";

/// Cycles a second, what LVM took of the time, and how many of its processes there were.
struct Figure {
    per_second: f64,
    lvm_percent: f64,
    processes: usize,
}

fn open() -> LvmPool {
    let disks = std::env::var("HOLDFAST_TEST_DISKS").unwrap();
    let disk: PathBuf = disks.split(',').next().unwrap().into();
    let request = Request::on_devices(VG.parse().unwrap(), vec![disk], Vec::new());
    let request = Request { thin_pool: "pool".parse().unwrap(), ..request };
    let plan = admin::plan(&request, &admin::look(&request).unwrap()).unwrap();
    admin::run(&plan, &mut |_| ()).unwrap();
    let options = LvmOptions {
        mountpoint: "/run/cycles".into(),
        vg: VG.into(),
        thin_pool: "pool".into(),
        cluster: ClusterId(Uuid::nil()),
        threshold_percent: 90,
        when_full: WhenFull::Pause,
        patience: Duration::from_secs(5),
    };
    LvmPool::open(&options).unwrap()
}

fn processes() -> usize {
    std::fs::read_to_string("/run/lvm-commands").unwrap_or_default().lines().count()
}

/// One block of the volume becomes another.
fn write(device: &Path, round: usize) {
    let file = OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&[round as u8 + 1; 4096], 1 << 20).unwrap();
    file.sync_all().unwrap();
}

/// Runs one LVM process that reads these commands.
fn batch(commands: &str) -> Duration {
    let begun = Instant::now();
    let mut lvm = Command::new("lvm").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    lvm.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(lvm.wait().unwrap().success());
    begun.elapsed()
}

fn lvm(arguments: &[&str]) -> Duration {
    let begun = Instant::now();
    let out = Command::new("lvm").args(arguments).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    begun.elapsed()
}

fn measure(mut round: impl FnMut(usize) -> Duration) -> Figure {
    round(0);
    let (before, begun) = (processes(), Instant::now());
    let in_lvm: Duration = (1..=ROUNDS).map(&mut round).sum();
    let took = begun.elapsed().as_secs_f64();
    Figure {
        per_second: (ROUNDS * VOLUMES) as f64 / took,
        lvm_percent: in_lvm.as_secs_f64() / took * 100.0,
        processes: processes() - before,
    }
}

#[test]
fn cycles_need_no_lvm() {
    let pool = open();
    let volumes: Vec<VolumeUid> = (0..VOLUMES).map(|_| VolumeUid::generate()).collect();
    for uid in &volumes {
        pool.create(*uid, ByteSize::mib(8), Epoch(1)).unwrap();
        pool.activate(*uid, Epoch(1)).unwrap();
    }
    let driver = measure(|round| {
        for uid in &volumes {
            let volume = pool.volume(*uid).unwrap();
            write(&volume.device.unwrap(), round);
            let id = volume.state.next_snapshot(SnapshotUuid::generate()).unwrap();
            pool.snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).unwrap();
            for old in volume.state.snapshots {
                pool.remove_snapshot(old.id.uuid).unwrap();
            }
        }
        Duration::ZERO
    });

    let make = |n| format!("lvcreate -qq -y -V 8m --thinpool pool -n v{n} {VG}\n");
    batch(&(0..VOLUMES).map(make).collect::<String>());
    let name = |n: usize, round: usize| format!("v{n}s{}", round % 2);
    let write_all = |round| {
        (0..VOLUMES).for_each(|n| write(&PathBuf::from(format!("/dev/{VG}/v{n}")), round));
    };
    let commands = measure(|round| {
        let mut took = Duration::ZERO;
        for n in 0..VOLUMES {
            write(&PathBuf::from(format!("/dev/{VG}/v{n}")), round);
            let origin = format!("{VG}/v{n}");
            took += lvm(&["lvcreate", "-qq", "-y", "-s", "-n", &name(n, round), &origin]);
            if round > 0 {
                let old = format!("{VG}/{}", name(n, round + 1));
                took += lvm(&["lvremove", "-qq", "-y", &old]);
            }
        }
        took
    });
    let left = |n| format!("lvremove -qq -y {VG}/{}\n", name(n, ROUNDS));
    batch(&(0..VOLUMES).map(left).collect::<String>());
    let batched = measure(|round| {
        write_all(round);
        let take = |n| {
            let old = (round > 0).then(|| format!("lvremove -qq -y {VG}/{}\n", name(n, round + 1)));
            let new = format!("lvcreate -qq -y -s -n {} {VG}/v{n}\n", name(n, round));
            new + &old.unwrap_or_default()
        };
        batch(&(0..VOLUMES).map(take).collect::<String>())
    });

    println!("{VOLUMES} volumes, {ROUNDS} rounds      cycles/s    of it LVM    LVM processes");
    let lines = [
        ("the driver", &driver),
        ("an LVM command each", &commands),
        ("one LVM for all", &batched),
    ];
    for (name, figure) in lines {
        let Figure { per_second, lvm_percent, processes } = figure;
        println!("  {name:<22} {per_second:>10.2} {lvm_percent:>10.0} % {processes:>16}");
    }
    println!(
        "the driver: {:.0} times the commands, {:.0} times the batch",
        driver.per_second / commands.per_second,
        driver.per_second / batched.per_second
    );
    assert_eq!(driver.processes, 0, "a cycle called LVM");
    assert!(commands.processes >= 2 * ROUNDS * VOLUMES, "LVM is not counted");
    assert!(driver.per_second > commands.per_second);
}

//! Senders and receivers that are killed, at every frame and in the midst of finishing: what stays is
//! no snapshot and nothing that leaks, and the transfer goes on (I16, I17, L4).
//!
//! What dies is a process of its own, which a driver's test starts and which calls [`die`].

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_types::{ByteSize, Epoch, SnapshotUuid, VolumeUid};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

use super::{Rig, begin, noise, offer, remove, ship, snap};
use crate::members::start;
use crate::stream::send;
use crate::{Member, Offer, Outcome, Pool, Receiver, Shape};

/// How often a transfer is cut.
#[derive(Debug, Clone, Copy)]
pub struct Cuts {
    /// After so many of its frames at most, spread over all.
    pub frames: usize,
    /// At so many moments of finishing, or of comparing.
    pub moments: u32,
}

impl Cuts {
    /// After how many of so many frames.
    fn of(self, frames: usize) -> Vec<usize> {
        let last = self.frames.max(2) - 1;
        let mut cuts: Vec<usize> = (0..=last).map(|n| frames * n / last).collect();
        cuts.dedup();
        cuts
    }
}

/// A pool that another process can open.
pub trait Mortal: Rig {
    /// Lets go of the pool, as far as a process that goes on can; `reopen` has it back.
    fn close(&mut self);
    /// A program that opens the pool, and calls [`die`] with that path.
    fn victim(&self, order: &Path) -> Command;
    /// Panics if the pool's place holds more than so many items, or a device that no volume has.
    fn check_nothing_left(&self, items: usize);
}

/// What a victim does until it dies.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Takes so many frames.
    Take { offer: Offer, frames: usize },
    /// Takes all, and finishes.
    Finish { offer: Offer },
    /// Reads so many frames.
    Send { offer: Offer, frames: usize },
    /// Compares two snapshots.
    Compare { base: SnapshotUuid, snapshot: SnapshotUuid },
}

/// Does what is ordered with that pool, and does not outlive it.
pub fn die(pool: &dyn Pool, order: &Path) {
    let text = fs::read(order).unwrap();
    match serde_json::from_slice(&text).unwrap() {
        Order::Take { offer, frames } => {
            let taken = take(pool, &offer, order, frames);
            end();
            drop(taken);
        }
        Order::Finish { offer } => {
            let receiver = take(pool, &offer, order, usize::MAX);
            println!("finishing");
            receiver.finish().unwrap();
            println!("finished");
            end();
        }
        Order::Send { offer, frames } => {
            let mut sending = send(pool, &offer, 0).unwrap();
            sending.by_ref().take(frames).for_each(|frame| drop(frame.unwrap()));
            end();
            drop(sending);
        }
        Order::Compare { base, snapshot } => {
            println!("comparing");
            pool.diff(Some(base), snapshot).unwrap();
            println!("compared");
            end();
        }
    }
}

fn end() {
    kill_process(getpid(), Signal::KILL).unwrap();
}

fn take(pool: &dyn Pool, offer: &Offer, order: &Path, frames: usize) -> Box<dyn Receiver> {
    let crate::Begin::Receive(mut receiver) = pool.begin_receive(offer).unwrap() else {
        panic!("it is there")
    };
    for n in 0..frames {
        let Ok(frame) = fs::read(frame_file(order, n)) else { break };
        receiver.feed(&frame).unwrap();
    }
    receiver
}

fn frame_file(order: &Path, n: usize) -> PathBuf {
    order.with_extension(n.to_string())
}

/// Where orders are written.
struct Orders(PathBuf);

impl Orders {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("holdfast-{}", VolumeUid::generate()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, order: &Order) -> PathBuf {
        let path = self.0.join("order");
        fs::write(&path, serde_json::to_vec(order).unwrap()).unwrap();
        path
    }

    /// Has the frames from there on ready, and says how many they are.
    fn frames(&self, source: &dyn Rig, offer: &Offer, from: u64) -> usize {
        let mut count = 0;
        for (n, frame) in send(source.pool(), offer, from).unwrap().enumerate() {
            fs::write(frame_file(&self.0.join("order"), n), frame.unwrap()).unwrap();
            count = n + 1;
        }
        let _ = fs::remove_file(frame_file(&self.0.join("order"), count));
        count
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a victim to its end, or until so long after it has said `word`. How long it was from there on.
fn run(rig: &mut dyn Mortal, order: &Path, word: &str, after: Option<Duration>) -> Duration {
    rig.close();
    let mut victim = rig.victim(order);
    let mut victim = victim.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let heard = word.is_empty() || said.any(|line| line.ends_with(word));
    let begun = Instant::now();
    if let Some(after) = after {
        std::thread::sleep(after);
        victim.kill().unwrap();
    }
    said.by_ref().for_each(drop);
    let took = begun.elapsed();
    let status = victim.wait().unwrap();
    assert_eq!((heard, status.signal()), (true, Some(9)), "it did not come to what kills it");
    rig.reopen();
    took
}

/// How many items the pool's volumes and partials are.
fn items(rig: &dyn Rig) -> usize {
    let of = |volume: crate::VolumeInfo| {
        let state = &volume.state;
        let live = usize::from(state.live.is_some()) * (1 + state.data.len());
        let partial = usize::from(volume.partial.is_some()) * (1 + state.data.len());
        live + partial + state.snapshots.iter().map(|s| 1 + s.data.len()).sum::<usize>()
    };
    rig.pool().volumes().into_iter().map(of).sum()
}

fn check(rig: &dyn Mortal, uid: VolumeUid, expected: usize) {
    let volume = rig.pool().volume(uid).ok();
    assert_eq!(volume.map_or(0, |v| v.state.snapshots.len()), expected);
    rig.check_nothing_left(items(rig));
}

fn whole(rig: &dyn Rig, offer: &Offer) -> blake3::Hash {
    let mut reader = rig.pool().open_snapshot(offer.snapshot.uuid).unwrap();
    let mut hasher = blake3::Hasher::new();
    for (member, size) in offer.shape().sizes().enumerate() {
        super::add(&mut *reader, &mut hasher, start(member), ByteSize(size));
    }
    hasher.finalize()
}

/// A set with something on it, of some frames.
fn source_set(source: &dyn Rig) -> VolumeUid {
    let uid = VolumeUid::generate();
    let data = vec![Member::new("data".parse().unwrap(), ByteSize::mib(4))];
    let shape = Shape { root: ByteSize::mib(8), data };
    assert_eq!(source.pool().create_set(uid, &shape, Epoch(1)).unwrap(), Outcome::Changed);
    source.pool().filled(uid).unwrap();
    source.pool().activate(uid, Epoch(1)).unwrap();
    source.write(uid, 1 << 20, &noise(1, 3 << 20));
    source.write(uid, start(1), &noise(2, 1 << 20));
    uid
}

/// Receivers that die after each frame, from the beginning and where an earlier one stopped, and at
/// moments of their finish; first of all of a volume, then of a delta with holes.
pub fn receivers_die(source: &dyn Rig, target: &mut dyn Mortal, cuts: Cuts) {
    let (orders, uid) = (Orders::new(), source_set(source));
    let mut base = None;
    for before in 0..2 {
        let id = snap(source, uid);
        let offer = offer(source, &id, base.replace(id.uuid));
        let frames = orders.frames(source, &offer, 0);
        assert!(frames > 1);
        for cut in cuts.of(frames) {
            let order = orders.write(&Order::Take { offer: offer.clone(), frames: cut });
            run(target, &order, "", None);
            check(target, uid, before);
            assert!(target.pool().open_snapshot(id.uuid).is_err());
            assert!(target.pool().promote(uid, id.uuid, Epoch(2)).is_err());
        }
        interrupt(source, target, &offer);
        let rest = orders.frames(source, &offer, partial(target, &offer));
        for cut in cuts.of(rest) {
            let order = orders.write(&Order::Take { offer: offer.clone(), frames: cut });
            run(target, &order, "", None);
            check(target, uid, before);
        }
        let expected = whole(source, &offer);
        let order = orders.write(&Order::Finish { offer: offer.clone() });
        let took = run(target, &order, "finishing", None);
        for moment in 0..cuts.moments {
            assert_eq!(whole(target, &offer), expected, "moment {moment}");
            check(target, uid, before + 1);
            target.pool().remove_snapshot(id.uuid).unwrap();
            if moment % 2 == 1 {
                interrupt(source, target, &offer);
            }
            orders.frames(source, &offer, partial(target, &offer));
            run(target, &order, "finishing", Some(took * moment / cuts.moments));
            let there = target.pool().volume(uid).is_ok_and(|v| v.state.find(id.uuid).is_some());
            check(target, uid, before + usize::from(there));
            if !there {
                ship(source, target, &offer).unwrap();
            }
        }
        assert_eq!(whole(target, &offer), expected);
        source.write(uid, 0, &noise(3, 1 << 20));
        source.discard(uid, 2 << 20, 1 << 20);
        source.write(uid, start(1) + (2 << 20), &noise(4, 700_000));
    }
    remove(target, uid);
    target.check_nothing_left(0);
    remove(source, uid);
}

/// Receives the first frame and no more.
fn interrupt(source: &dyn Rig, target: &dyn Rig, offer: &Offer) {
    let mut receiver = begin(target, offer).unwrap();
    let mut frames = send(source.pool(), offer, receiver.resume_at()).unwrap();
    receiver.feed(&frames.next().unwrap().unwrap()).unwrap();
}

/// Where that receive goes on.
fn partial(target: &dyn Rig, offer: &Offer) -> u64 {
    let volume = target.pool().volume(offer.snapshot.volume).ok();
    let partial = volume.and_then(|v| v.partial).filter(|p| p.snapshot == offer.snapshot.uuid);
    partial.map_or(0, |p| p.synced)
}

/// Senders that die after each frame, and while they compare.
pub fn senders_die(source: &mut dyn Mortal, cuts: Cuts) {
    let (orders, uid) = (Orders::new(), source_set(source));
    let one = snap(source, uid);
    source.write(uid, 0, &noise(5, 2 << 20));
    source.discard(uid, 2 << 20, 1 << 20);
    let two = snap(source, uid);
    let offer = offer(source, &two, Some(one.uuid));
    let expected = whole(source, &offer);
    let frames = send(source.pool(), &offer, 0).unwrap().count();
    for cut in cuts.of(frames) {
        let order = orders.write(&Order::Send { offer: offer.clone(), frames: cut });
        run(source, &order, "", None);
        check(source, uid, 2);
    }
    let order = orders.write(&Order::Compare { base: one.uuid, snapshot: two.uuid });
    let took = run(source, &order, "comparing", None);
    for moment in 0..cuts.moments {
        run(source, &order, "comparing", Some(took * moment / cuts.moments));
        check(source, uid, 2);
        source.pool().comparable().unwrap();
    }
    assert_eq!(whole(source, &offer), expected);
    remove(source, uid);
    source.check_nothing_left(0);
}

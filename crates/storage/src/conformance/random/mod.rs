//! Whatever is done to a volume, and wherever it is the primary, its copies equal it (I16, I17, I19,
//! I21).
//!
//! A life is drawn from a seed: a volume, often a set, is written, discarded, grown, snapshotted,
//! cloned, restored, shipped through interruptions, promoted on the other side and shipped back. A
//! model in memory knows what every snapshot must hold. `HOLDFAST_TEST_SEED` repeats a run,
//! `HOLDFAST_TEST_LIVES` makes it another length.

mod moves;
mod ship;

use holdfast_types::{ByteSize, Epoch, SnapshotId, SnapshotUuid, VolumeUid};
use uuid::Uuid;

use super::{Rig, noise, remove, snap};
use crate::fake::Content;
use crate::members::start;
use crate::{Member, Outcome, Shape};

const BLOCK: u64 = 4 << 10;
const STEPS: u64 = 30;
/// Members grow to so much.
const LARGEST: u64 = 24 << 20;
/// Each side forgets when there are more.
const SNAPSHOTS: usize = 8;

/// Lives so many lives between two pools, one after the other.
pub fn at_random(a: &mut dyn Rig, b: &mut dyn Rig, lives: u64) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
    };
    let seed = number("HOLDFAST_TEST_SEED").unwrap_or(Uuid::now_v7().as_u128() as u64);
    println!("HOLDFAST_TEST_SEED={seed}");
    for life in 0..number("HOLDFAST_TEST_LIVES").unwrap_or(lives) {
        let mut life = Life::begin([&mut *a, &mut *b], Dice::new(seed, life));
        (0..STEPS).for_each(|_| life.step());
        life.end();
    }
}

/// Numbers that a seed decides.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64, life: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&life.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    fn below(&mut self, n: u64) -> u64 {
        let mut word = [0; 8];
        self.0.fill(&mut word);
        u64::from_le_bytes(word) % n.max(1)
    }

    /// Whether it is one case of so many.
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        all.get(self.below(all.len() as u64) as usize).copied()
    }
}

/// What was done, said when it ends badly.
#[derive(Default)]
struct Told(Vec<String>);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|line| println!("  {line}"));
        }
    }
}

/// A snapshot, and what it must hold.
struct Shot {
    id: SnapshotId,
    content: Content,
    shape: Shape,
    /// Off the chain: it is kept where it is.
    diverged: bool,
    /// Which sides have it.
    on: [bool; 2],
}

struct Life<'a> {
    rigs: [&'a mut (dyn Rig + 'a); 2],
    primary: usize,
    epoch: Epoch,
    uid: VolumeUid,
    live: Content,
    /// The live part is not what its newest snapshot holds.
    dirty: bool,
    shots: Vec<Shot>,
    dice: Dice,
    told: Told,
}

impl<'a> Life<'a> {
    fn begin(rigs: [&'a mut (dyn Rig + 'a); 2], mut dice: Dice) -> Self {
        let member = |n: u64| Member::new(format!("d{n}").parse().unwrap(), ByteSize::mib(4));
        let data = (0..dice.below(3)).map(member).collect();
        let (shape, uid) = (Shape { root: ByteSize::mib(8), data }, VolumeUid::generate());
        let primary = dice.below(2) as usize;
        let mut life = Self {
            rigs,
            primary,
            epoch: Epoch(1),
            uid,
            live: Content::default(),
            dirty: true,
            shots: Vec::new(),
            dice,
            told: Told::default(),
        };
        life.tell(format!("primary {primary}, {} data members", shape.data.len()));
        let pool = life.rigs[primary].pool();
        assert_eq!(pool.create_set(uid, &shape, Epoch(1)).unwrap(), Outcome::Changed);
        pool.filled(uid).unwrap();
        pool.activate(uid, Epoch(1)).unwrap();
        life
    }

    fn tell(&mut self, line: String) {
        self.told.0.push(line);
    }

    fn rig(&self, side: usize) -> &dyn Rig {
        &*self.rigs[side]
    }

    fn other(&self) -> usize {
        1 - self.primary
    }

    fn shape(&self) -> Shape {
        self.rig(self.primary).pool().volume(self.uid).unwrap().state.shape()
    }

    fn step(&mut self) {
        match self.dice.below(32) {
            0..=9 => self.write(),
            10..=13 => self.discard(),
            14 => self.grow(),
            15..=16 => self.snapshot(),
            17..=22 => self.ship_newest(),
            23..=24 => self.ship_history(),
            25 => self.forget(),
            26..=27 => self.restore(),
            28 => self.clone_one(),
            29 => self.move_over(),
            30 => self.reopen(),
            _ => self.scrub(),
        }
    }

    /// A member of that shape, a range of it in bytes, and what is written there.
    fn range(&mut self, shape: &Shape) -> (u64, Vec<u8>) {
        let sizes: Vec<u64> = shape.sizes().collect();
        let member = self.dice.below(sizes.len() as u64) as usize;
        let len = 1 + self.dice.below(200_000);
        let at = self.dice.below(sizes[member] - len);
        let mut data = vec![self.dice.below(4) as u8; len as usize];
        if !self.dice.one_in(8) {
            // Half of it does not compress.
            let half = data.len() / 2;
            let random = noise(self.dice.below(u64::MAX), data.len() - half);
            data[half..].copy_from_slice(&random);
        }
        (start(member) + at, data)
    }

    fn write(&mut self) {
        let (at, data) = self.range(&self.shape());
        self.tell(format!("write {} at {at}", data.len()));
        self.rig(self.primary).write(self.uid, at, &data);
        self.live.write(at, &data);
        self.dirty = true;
    }

    fn discard(&mut self) {
        let sizes: Vec<u64> = self.shape().sizes().collect();
        let member = self.dice.below(sizes.len() as u64) as usize;
        let blocks = sizes[member] / BLOCK;
        let first = self.dice.below(blocks);
        let most = if self.dice.one_in(3) { 1024 } else { 64 };
        let len = (1 + self.dice.below(most)).min(blocks - first) * BLOCK;
        let at = start(member) + first * BLOCK;
        self.tell(format!("discard {len} at {at}"));
        self.rig(self.primary).discard(self.uid, at, len);
        self.live.zero(at, len);
        self.dirty = true;
    }

    fn grow(&mut self) {
        let sizes: Vec<u64> = self.shape().sizes().collect();
        let member = self.dice.below(sizes.len() as u64) as usize;
        let size = sizes[member] + (4 << 20);
        if size <= LARGEST {
            self.tell(format!("grow {member} to {size}"));
            let pool = self.rig(self.primary).pool();
            pool.resize_member(self.uid, member, ByteSize(size)).unwrap();
            self.dirty = true;
        }
    }

    fn snapshot(&mut self) {
        while self.shots.len() >= SNAPSHOTS && self.forget_oldest() {}
        let id = snap(self.rig(self.primary), self.uid);
        self.tell(format!("snapshot {}", id.uuid));
        let mut on = [false; 2];
        on[self.primary] = true;
        let (content, shape) = (self.live.clone(), self.shape());
        self.shots.push(Shot { id, content, shape, diverged: false, on });
        self.dirty = false;
    }

    /// Which snapshots are as `is` says.
    fn those(&self, is: impl Fn(&Shot) -> bool) -> Vec<usize> {
        (0..self.shots.len()).filter(|at| is(&self.shots[*at])).collect()
    }

    /// The newest snapshot of the chain that both sides have.
    fn newest_common(&self) -> Option<usize> {
        self.those(|s| s.on == [true; 2] && !s.diverged).last().copied()
    }

    /// The snapshot that the live part's content descends from.
    fn head(&self) -> Option<usize> {
        self.those(|s| s.on[self.primary] && !s.diverged).last().copied()
    }

    fn reopen(&mut self) {
        let side = self.dice.below(2) as usize;
        self.tell(format!("reopen {side}"));
        self.rigs[side].reopen();
        if side == self.primary {
            self.rig(side).pool().activate(self.uid, self.epoch).unwrap();
        }
    }

    fn scrub(&mut self) {
        let pool = self.rig(self.other()).pool();
        if pool.volume(self.uid).is_ok() {
            assert_eq!(pool.scrub(self.uid, 3).unwrap().rot, None);
        }
    }

    fn check(&self, side: usize, at: usize) {
        let shot = &self.shots[at];
        compare(self.rig(side), shot.id.uuid, &shot.content, &shot.shape);
    }

    /// Both sides have what they should, and nothing of it stays.
    fn end(mut self) {
        self.ship_newest();
        for side in [0, 1] {
            let mut expected: Vec<_> = self.those(|s| s.on[side]);
            expected.iter().for_each(|at| self.check(side, *at));
            expected.sort_by_key(|at| self.shots[*at].id.order());
            let expected: Vec<_> = expected.into_iter().map(|at| self.shots[at].id).collect();
            let Ok(volume) = self.rig(side).pool().volume(self.uid) else { continue };
            let found: Vec<_> = volume.state.snapshots.iter().map(|s| s.id).collect();
            assert_eq!(found, expected, "on {side}");
        }
        for side in [0, 1] {
            remove(self.rig(side), self.uid);
        }
    }
}

/// A snapshot holds what it should, byte for byte, in all members.
fn compare(rig: &dyn Rig, uuid: SnapshotUuid, content: &Content, shape: &Shape) {
    const PIECE: usize = 1 << 20;
    let mut reader = rig.pool().open_snapshot(uuid).unwrap();
    let (mut found, mut expected) = (vec![0; PIECE], vec![0; PIECE]);
    for (member, size) in shape.sizes().enumerate() {
        for offset in (0..size).step_by(PIECE) {
            let address = start(member) + offset;
            reader.read_at(address, &mut found).unwrap();
            content.read(address, &mut expected);
            if found != expected {
                let at = found.iter().zip(&expected).position(|(a, b)| a != b).unwrap();
                panic!("snapshot {uuid} is not what it was at {}", address + at as u64);
            }
        }
    }
}

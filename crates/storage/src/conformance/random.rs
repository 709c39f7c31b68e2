//! Whatever is done to a volume, and wherever it is the primary, its copies equal it (I16, I17, I19,
//! I21).
//!
//! A life is drawn from a seed: a volume, often a set, is written, discarded, grown, snapshotted,
//! cloned, restored, shipped through interruptions, promoted on the other side and shipped back. A
//! model in memory knows what every snapshot must hold. `HOLDFAST_TEST_SEED` repeats a run,
//! `HOLDFAST_TEST_LIVES` makes it another length.

use holdfast_types::{ByteSize, Epoch, OperationId, SnapshotId, SnapshotUuid, VolumeUid};
use uuid::Uuid;

use super::{NOW, Rig, begin, noise, offer, remove, ship, snap};
use crate::fake::Content;
use crate::members::start;
use crate::stream::send;
use crate::{Begin, Member, Offer, Outcome, Shape, Tail};

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

    /// A snapshot that both have, that `at` is no smaller than; or nothing.
    fn base_for(&mut self, at: usize) -> Option<SnapshotUuid> {
        let wanted = &self.shots[at];
        let fits = |s: &Shot| wanted.shape.require_at_least(&s.shape, "").is_ok();
        let bases = self.those(|s| s.on == [true; 2] && s.id != wanted.id && fits(s));
        let base = match self.dice.below(8) {
            0 => None,
            1 => self.dice.pick(&bases),
            _ => bases.last().copied(),
        };
        base.map(|base| self.shots[base].id.uuid)
    }

    fn ship_newest(&mut self) {
        if self.head().is_none() || (self.dirty && !self.dice.one_in(4)) {
            self.snapshot();
        }
        let Some(at) = self.head() else { return };
        if self.shots[at].on[self.other()] {
            let offer = offer(self.rig(self.primary), &self.shots[at].id, None);
            let again = self.rig(self.other()).pool().begin_receive(&offer).unwrap();
            assert!(matches!(again, Begin::AlreadyThere(info) if info.id == offer.snapshot));
            return;
        }
        let base = self.base_for(at);
        self.deliver(at, base, false);
    }

    /// What is kept for somebody comes after what is newer, and on any base.
    fn ship_history(&mut self) {
        let Some(newest) = self.newest_common() else { return };
        let (order, here, there) = (self.shots[newest].id.order(), self.primary, self.other());
        let lacking =
            self.those(|s| s.on[here] && !s.on[there] && !s.diverged && s.id.order() < order);
        if let Some(at) = self.dice.pick(&lacking) {
            let base = self.base_for(at);
            self.deliver(at, base, true);
        }
    }

    /// Ships one, through interruptions; or gives it up after one.
    fn deliver(&mut self, at: usize, base: Option<SnapshotUuid>, history: bool) {
        let id = self.shots[at].id;
        let offer = Offer { history, ..offer(self.rig(self.primary), &id, base) };
        self.tell(format!("ship {} on {base:?}, history {history}", id.uuid));
        while self.dice.one_in(3) {
            self.interrupt(&offer);
            if self.dice.one_in(4) {
                self.tell("given up".into());
                return;
            }
        }
        let info = ship(self.rig(self.primary), self.rig(self.other()), &offer).unwrap();
        assert_eq!(info.shape(), self.shots[at].shape);
        let there = self.other();
        self.shots[at].on[there] = true;
        self.check(there, at);
    }

    /// The sender or the receiver dies somewhere in the stream, and nothing of it is a snapshot.
    fn interrupt(&mut self, offer: &Offer) {
        let (whole, part, dies) = (self.dice.below(4), self.dice.below(100), self.dice.one_in(2));
        self.tell(format!("cut after {whole} frames and {part} %, the receiver dies: {dies}"));
        let (source, target) = (self.rig(self.primary), self.rig(self.other()));
        let mut receiver = begin(target, offer).unwrap();
        let mut frames = send(source.pool(), offer, receiver.resume_at()).unwrap();
        for frame in frames.by_ref().take(whole as usize) {
            receiver.feed(&frame.unwrap()).unwrap();
        }
        if let Some(frame) = frames.next() {
            let frame = frame.unwrap();
            receiver.feed(&frame[..frame.len() * part as usize / 100]).unwrap();
        }
        drop(receiver);
        let there = self.other();
        if dies {
            self.rigs[there].reopen();
        }
        let pool = self.rig(there).pool();
        assert!(pool.volume(self.uid).unwrap().state.find(offer.snapshot.uuid).is_none());
        assert!(pool.open_snapshot(offer.snapshot.uuid).is_err());
    }

    /// Removes a snapshot on one side that is neither its newest nor anybody's next base.
    fn forget(&mut self) {
        let side = self.dice.below(2) as usize;
        let kept = [self.newest_common(), self.head()];
        let spare: Vec<usize> = self
            .those(|s| s.on[side])
            .into_iter()
            .filter(|at| !kept.contains(&Some(*at)))
            .collect();
        if let Some(at) = self.dice.pick(&spare) {
            self.forget_at(side, at);
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let kept = [self.newest_common(), self.head()];
        let oldest = (0..self.shots.len()).find(|at| !kept.contains(&Some(*at)));
        let Some(at) = oldest else { return false };
        let side = usize::from(!self.shots[at].on[0]);
        self.forget_at(side, at);
        true
    }

    fn forget_at(&mut self, side: usize, at: usize) {
        let uuid = self.shots[at].id.uuid;
        self.tell(format!("forget {uuid} on {side}"));
        assert_eq!(self.rig(side).pool().remove_snapshot(uuid).unwrap(), Outcome::Changed);
        self.shots[at].on[side] = false;
        self.shots.retain(|s| s.on != [false; 2]);
    }

    fn restore(&mut self) {
        let here = self.primary;
        let candidates = self.those(|s| s.on[here] && !s.diverged);
        let Some(at) = self.dice.pick(&candidates) else { return };
        let from = self.shots[at].id;
        if self.dirty {
            self.snapshot();
        }
        // Making room for it may have taken this one.
        let Some(shot) = self.shots.iter().find(|s| s.id == from && s.on[here]) else { return };
        let content = shot.content.clone();
        self.tell(format!("restore {}", from.uuid));
        let pool = self.rig(here).pool();
        pool.deactivate(self.uid).unwrap();
        let restored = pool.restore(self.uid, from.uuid, self.epoch, OperationId::generate());
        assert_eq!(restored.unwrap(), Outcome::Changed);
        pool.activate(self.uid, self.epoch).unwrap();
        (self.live, self.dirty) = (content, true);
    }

    /// A clone lives by itself, is shipped as a delta against its origin where that is, and goes.
    fn clone_one(&mut self) {
        let (here, there) = (self.primary, self.other());
        let candidates = self.those(|s| s.on[here]);
        let Some(at) = self.dice.pick(&candidates) else { return };
        let origin = &self.shots[at];
        let (from, mut shape, on_both) = (origin.id.uuid, origin.shape.clone(), origin.on[there]);
        let mut content = origin.content.clone();
        if self.dice.one_in(2) {
            shape.root = ByteSize(shape.root.bytes() + (4 << 20));
        }
        if self.dice.one_in(3) {
            shape.data.push(Member::new("more".parse().unwrap(), ByteSize::mib(4)));
        }
        let uid = VolumeUid::generate();
        self.tell(format!("clone {from}, {} data members", shape.data.len()));
        let pool = self.rig(here).pool();
        assert_eq!(pool.clone_set(from, uid, &shape, Epoch(1)).unwrap(), Outcome::Changed);
        pool.filled(uid).unwrap();
        pool.activate(uid, Epoch(1)).unwrap();
        for _ in 0..2 {
            let (at, data) = self.range(&shape);
            self.rig(here).write(uid, at, &data);
            content.write(at, &data);
        }
        let id = snap(self.rig(here), uid);
        let base = (on_both && !self.dice.one_in(4)).then_some(from);
        ship(self.rig(here), self.rig(there), &offer(self.rig(here), &id, base)).unwrap();
        for side in [here, there] {
            compare(self.rig(side), id.uuid, &content, &shape);
            remove(self.rig(side), uid);
        }
        self.check(here, at);
    }

    /// The other side goes on from the newest snapshot; this one keeps what it never shipped.
    fn move_over(&mut self) {
        if self.dirty || self.head().is_none() {
            self.snapshot();
        }
        let (old, new) = (self.primary, self.other());
        let Some(at) = self.head() else { return };
        if !self.shots[at].on[new] {
            let base = self.base_for(at);
            self.deliver(at, base, false);
            if !self.shots[at].on[new] {
                return;
            }
        }
        let point = self.shots[at].id;
        let (content, tail) = (self.shots[at].content.clone(), self.dice.one_in(2));
        self.tell(format!("move to {new} at {}, a tail: {tail}", point.uuid));
        if tail {
            self.write();
            if self.dice.one_in(2) {
                self.snapshot();
                self.write();
            }
        }
        let label = "never shipped".to_owned();
        let kept = Tail { uuid: SnapshotUuid::generate(), taken: NOW, label };
        let next = self.epoch.next();
        self.rig(new).pool().seal(self.uid, self.epoch).unwrap();
        self.rig(new).pool().promote(self.uid, point.uuid, next).unwrap();
        let pool = self.rig(old).pool();
        pool.deactivate(self.uid).unwrap();
        if tail {
            assert!(pool.demote(self.uid, Some(point.uuid), None).is_err(), "it drops the tail");
        }
        let shape = self.shape();
        pool.demote(self.uid, Some(point.uuid), tail.then_some(&kept)).unwrap();
        if tail {
            let state = pool.volume(self.uid).unwrap().state;
            let id = state.find(kept.uuid).unwrap().id;
            let mut on = [false; 2];
            on[old] = true;
            let content = std::mem::take(&mut self.live);
            self.shots.push(Shot { id, content, shape, diverged: true, on });
            let after = |s: &&mut Shot| s.id.order() > point.order();
            self.shots.iter_mut().filter(after).for_each(|s| s.diverged = true);
        }
        self.rig(new).pool().activate(self.uid, next).unwrap();
        (self.primary, self.epoch, self.live, self.dirty) = (new, next, content, false);
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

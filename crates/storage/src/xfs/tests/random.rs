//! Whatever is done to a volume, its replicas equal it.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::fake::FakePool;
use crate::stream::send;
use crate::{AlreadyQuiet, Begin, Offer, PoolIdentity, SnapshotReader};
use holdfast_types::{SnapshotUuid, TimestampMs};

const SIZE: u64 = 8 << 20;

#[derive(Debug, Clone)]
enum Step {
    Write {
        at: u64,
        len: usize,
        fill: u8,
    },
    Discard {
        at: u64,
        len: u64,
    },
    Grow,
    Reopen,
    /// Snapshot and ship, the receiver dying after `cut` frames first.
    Ship {
        cut: Option<usize>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let block = 0..SIZE / 4096;
    prop_oneof![
        6 => (0..SIZE - 300_000, 1..300_000usize, any::<u8>())
            .prop_map(|(at, len, fill)| Step::Write { at, len, fill }),
        4 => (block, 1u64..256)
            .prop_map(|(b, n)| Step::Discard { at: b * 4096, len: n.min(SIZE / 4096 - b) * 4096 }),
        1 => Just(Step::Grow),
        1 => Just(Step::Reopen),
        3 => prop::option::of(0..3usize).prop_map(|cut| Step::Ship { cut }),
    ]
}

fn read(pool: &dyn Pool, uuid: SnapshotUuid, size: u64) -> Vec<u8> {
    let mut reader: Box<dyn SnapshotReader> = pool.open_snapshot(uuid).unwrap();
    let mut out = vec![0; size as usize];
    reader.read_at(0, &mut out).unwrap();
    out
}

/// Ships to one target, through a crash of it if `cut` says so.
fn ship(source: &dyn Pool, target: &mut dyn Rig, offer: &Offer, cut: Option<usize>) {
    for frames in [cut, None] {
        let Begin::Receive(mut receiver) = target.pool().begin_receive(offer).unwrap() else {
            panic!("sent before")
        };
        let stream = send(source, offer, receiver.resume_at()).unwrap();
        for frame in stream.take(frames.unwrap_or(usize::MAX)) {
            receiver.feed(&frame.unwrap()).unwrap();
        }
        if frames.is_none() {
            receiver.finish().unwrap();
            return;
        }
        drop(receiver);
        target.reopen();
    }
}

#[test]
fn replicas_equal_their_source_whatever_happens() {
    let rigs = RefCell::new((XfsRig::new(), XfsRig::new()));
    let identity = PoolIdentity { cluster: ClusterId::generate(), pool: uuid::Uuid::now_v7() };
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() };
    let steps = proptest::collection::vec(step(), 1..24);
    let result = TestRunner::new(config).run(&steps, |steps| {
        let (source, replica) = &mut *rigs.borrow_mut();
        let mut fake = FakePool::new(identity, ByteSize::gib(1));
        let uid = VolumeUid::generate();
        source.pool().create(uid, ByteSize(SIZE), Epoch(1)).unwrap();
        source.pool().activate(uid, Epoch(1)).unwrap();
        let mut model = vec![0u8; SIZE as usize];
        let mut base = None;
        for step in steps.into_iter().chain([Step::Ship { cut: None }]) {
            match step {
                Step::Write { at, len, fill } => {
                    // Half of it compresses.
                    let mut data = vec![fill; len];
                    let half = &mut data[len / 2..];
                    blake3::Hasher::new().update(&[fill]).finalize_xof().fill(half);
                    source.write(uid, at, &data);
                    model[at as usize..at as usize + len].copy_from_slice(&data);
                }
                Step::Discard { at, len } => {
                    source.discard(uid, at, len);
                    model[at as usize..(at + len) as usize].fill(0);
                }
                Step::Grow => {
                    let size = ByteSize(model.len() as u64 + (4 << 20));
                    source.pool().resize(uid, size).unwrap();
                    model.resize(size.bytes() as usize, 0);
                }
                Step::Reopen => {
                    source.reopen();
                    source.pool().activate(uid, Epoch(1)).unwrap();
                }
                Step::Ship { cut } => {
                    let state = source.pool().volume(uid).unwrap().state;
                    let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
                    let taken = TimestampMs(1);
                    source.pool().snapshot(&id, taken, &mut AlreadyQuiet).unwrap();
                    let offer = Offer {
                        snapshot: id,
                        base,
                        size: state.size,
                        data: vec![],
                        taken,
                        history: false,
                    };
                    ship(source.pool(), replica, &offer, cut);
                    ship(replica.pool(), &mut fake, &offer, cut);
                    let size = state.size.bytes();
                    for pool in [source.pool(), replica.pool(), &fake as &dyn Pool] {
                        prop_assert!(read(pool, id.uuid, size) == model, "{:?}", id);
                    }
                    if let Some(old) = base.replace(id.uuid) {
                        source.pool().remove_snapshot(old).unwrap();
                        replica.pool().remove_snapshot(old).unwrap();
                    }
                }
            }
        }
        source.pool().deactivate(uid).unwrap();
        source.pool().remove_volume(uid).unwrap();
        replica.pool().remove_volume(uid).unwrap();
        Ok(())
    });
    result.unwrap();
}

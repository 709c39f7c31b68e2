//! Lives at random, of this driver's pools and between them and others.

use super::*;
use crate::PoolIdentity;
use crate::conformance::at_random;
use crate::fake::FakePool;

fn fake() -> FakePool {
    let identity = PoolIdentity { cluster: ClusterId::generate(), pool: uuid::Uuid::now_v7() };
    FakePool::new(identity, ByteSize::gib(1))
}

#[test]
fn copies_equal_whatever_happens() {
    at_random(&mut XfsRig::new(), &mut XfsRig::new(), 8);
}

#[test]
fn copies_equal_between_drivers() {
    at_random(&mut XfsRig::new(), &mut fake(), 8);
}

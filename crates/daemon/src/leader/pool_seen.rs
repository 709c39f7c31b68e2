//! A pool as nodes and leader tell each other of it.

use holdfast_planner::PoolObservation;
use holdfast_proto::internal::Capacity;
use holdfast_types::ByteSize;

pub(crate) fn from_message(capacity: Capacity) -> PoolObservation {
    let metadata = capacity.metadata_used_bytes.zip(capacity.metadata_size_bytes);
    PoolObservation {
        name: capacity.name,
        driver: capacity.driver,
        size: ByteSize(capacity.size_bytes),
        used: ByteSize(capacity.used_bytes),
        promised: ByteSize(capacity.promised_bytes),
        metadata: metadata.map(|(used, size)| (ByteSize(used), ByteSize(size))),
        admits: capacity.admits,
    }
}

pub(crate) fn to_message(pool: &PoolObservation) -> Capacity {
    Capacity {
        name: pool.name.clone(),
        driver: pool.driver.clone(),
        size_bytes: pool.size.bytes(),
        used_bytes: pool.used.bytes(),
        promised_bytes: pool.promised.bytes(),
        metadata_used_bytes: pool.metadata.map(|(used, _)| used.bytes()),
        metadata_size_bytes: pool.metadata.map(|(_, size)| size.bytes()),
        admits: pool.admits,
    }
}

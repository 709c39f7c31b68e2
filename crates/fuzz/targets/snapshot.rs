//! Snapshots of the replicated state.
#![no_main]

holdfast_fuzz::target!(holdfast_raft::fuzzing::snapshot);

//! What nodes report and what the log says, applied.
#![no_main]

holdfast_fuzz::target!(holdfast_raft::fuzzing::entries);

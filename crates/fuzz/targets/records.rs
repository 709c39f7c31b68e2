//! What the log, and the files beside it, hold.
#![no_main]

holdfast_fuzz::target!(holdfast_raft::fuzzing::records);

//! What voters say to each other.
#![no_main]

holdfast_fuzz::target!(holdfast_raft::fuzzing::consensus);

//! What a node is told by the leader.
#![no_main]

holdfast_fuzz::target!(holdfast_agent::fuzzing::view);

//! What a node says before it ships a snapshot.
#![no_main]

holdfast_fuzz::target!(holdfast_agent::fuzzing::transfer);

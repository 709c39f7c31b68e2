//! The delta stream.
#![no_main]

holdfast_fuzz::target!(holdfast_storage::fuzzing::stream);

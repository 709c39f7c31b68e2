//! Names, sizes, ids, addresses and all else that is parsed from text.
#![no_main]

holdfast_fuzz::target!(holdfast_types::fuzzing::words);

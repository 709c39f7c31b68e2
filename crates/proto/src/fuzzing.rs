//! For the fuzzer: see `crates/fuzz`.

pub mod backup;
pub mod messages;

//! For the fuzzer: see `crates/fuzz`.

pub mod transfer;
pub mod view;

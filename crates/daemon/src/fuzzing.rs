//! For the fuzzer: see `crates/fuzz`.

pub mod config;
pub mod relay;
pub mod requests;

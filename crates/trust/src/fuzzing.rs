//! For the fuzzer: see `crates/fuzz`.

pub mod credentials;

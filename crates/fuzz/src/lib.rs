//! Fuzzing: what reads bytes of a peer, a user or a disk, against bytes that none of them means (I27).
//!
//! ```text
//! crates/X/src/fuzzing     one module per target: read(input), which must not panic, and seeds()
//!      │            └────▶ its test: the seeds, spoiled in the same ways each time, for a second or two
//!      └─ targets/NAME.rs  the same for libFuzzer, guided by coverage: `cargo xtask soak fuzz`
//! ```
//! A target lies in the crate whose input it reads, since what it calls is private there. Its module is
//! compiled with `cfg(any(test, fuzzing))`, the latter of which cargo-fuzz alone sets, so nothing of it
//! is in a product. A new one is that module, a file in `targets/`, and its `[[bin]]` in `Cargo.toml`.
//!
//! This crate is a member of the workspace, so that what is fuzzed has the dependencies of what is
//! shipped. It has none itself but under cfg(fuzzing), when no test is built.

#[cfg(fuzzing)]
mod libfuzzer;
mod spoil;

#[cfg(fuzzing)]
pub use libfuzzer::{libfuzzer_sys, write_seeds_if_asked};
pub use spoil::{Random, spoiled};

//! How a program talks to a Holdfast cluster: addresses, retries, request ids, typed calls.
//!
//! The `holdfast` binary is built on it, and so is the lab.

pub mod client;
pub mod usage;

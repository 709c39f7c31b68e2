//! Black-box tests of a whole cluster: faults on a lab, a workload in a container, and checkers
//! that judge from outside what really ran and what the disk really holds. Only the public API is
//! used, and what the lab does to machines.
//!
//! - [`rig`]: a cluster with one container that serves (the workload is the quickstart's);
//! - [`faults`]: what is done to nodes beyond what the lab offers by itself;
//! - [`checkers`]: what must hold afterwards, each with the invariant that it stands for;
//! - [`client`]: what a person types;
//! - [`linear`]: whether what clients saw of a register fits any single copy;
//! - [`consensus`]: clients of the replicated state, held against each other while nodes fail; also
//!   the program `holdfast-soak`, behind `cargo xtask soak`;
//! - the scenarios are the tests, one file each, in `tests/scenarios`.

pub mod checkers;
pub mod client;
pub mod consensus;
pub mod dice;
pub mod faults;
pub mod linear;
pub mod rig;

//! The scenarios, one file each. They need root and the built programs beside the test's own.

mod consensus;
mod cut;
mod debian;
mod freeze;
mod full;
mod members;
mod minority;
mod power;
mod race;
mod resize;
mod resume;
mod rot;
mod sets;
mod snapshots;
mod stopped;

//! The parts of the machine that a lab is made of: namespaces, links, cgroups, loop devices.

pub(crate) mod cgroup;
pub(crate) mod fabric;
pub(crate) mod loops;
pub(crate) mod lvm;
pub(crate) mod mounts;
pub(crate) mod tool;

//! The guardian as a process, on real cgroups, namespaces and links (root needed; nothing is left
//! behind). What is judged is judged from outside: by stamps of CLOCK_BOOTTIME that protected
//! writers leave in a file, by the kernel's own `cgroup.events`, and by link states.

mod dead_man;
mod edges;
mod fencing;
mod harness;
mod launching;
mod leases;
mod links;
mod unfreezable;

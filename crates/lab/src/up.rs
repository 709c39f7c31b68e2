//! Making a lab.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use holdfast_cli::client::ADDRESS_FILE;
use holdfast_types::ByteSize;

use crate::LabError;
use crate::lab::Lab;
use crate::layout::{DEFAULT_LAB, Layout, node_address};
use crate::pace::Pace;
use crate::plumbing::{fabric, lvm, tool};
use crate::power;
use crate::programs::Programs;
use crate::record::{LabLock, LabRecord, NodeRecord, Power, Purpose, Role};
use crate::teardown;

/// What lab to make.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Its name: an RFC 1123 label of at most 24 characters.
    pub name: String,
    /// Where its nodes keep their data; `/var/lib/holdfast-<name>` by default.
    pub dir: Option<PathBuf>,
    /// Nodes that take part in Raft: an odd number up to 7.
    pub voters: usize,
    /// Nodes that have the log and no vote, until one of the voters is lost.
    pub standbys: usize,
    /// Nodes that do not take part.
    pub workers: usize,
    /// Size of each node's pool.
    pub pool_size: ByteSize,
    /// Blank disks, one a node, to make LVM pools of; without any the pools are files on XFS.
    pub devices: Vec<PathBuf>,
    /// How much slower than usual this machine is.
    pub pace: Pace,
    /// What the nodes run.
    pub programs: Programs,
    /// Why it is made.
    pub purpose: Purpose,
    /// Take down a lab of the same name first, instead of refusing.
    pub replace: bool,
}

impl UpOptions {
    /// Three voters, no workers, default paths.
    pub fn new(name: &str, programs: Programs) -> Self {
        Self {
            name: name.to_owned(),
            dir: None,
            voters: 3,
            standbys: 0,
            workers: 0,
            pool_size: ByteSize::gib(4),
            devices: Vec::new(),
            pace: Pace::default(),
            programs,
            purpose: Purpose::Use,
            replace: false,
        }
    }
}

impl Lab {
    /// Makes a lab: its fabric, its client and its nodes, powered on. Whatever is left of a failed
    /// run of the same name is removed first. The cluster on it is not formed yet.
    pub fn up(options: &UpOptions) -> Result<Self, LabError> {
        tool::check_machine()?;
        let layout = Layout::new(&options.name, options.dir.as_deref())?;
        let nodes = nodes(options.voters, options.standbys, options.workers)?;
        let nodes = with_devices(nodes, &options.devices)?;
        let lock = LabLock::take(&layout)?;
        if !options.replace && LabRecord::load(&layout).is_ok() {
            return Err(LabError::AlreadyUp(options.name.clone()));
        }
        teardown::remove(&layout)?;
        let record = LabRecord {
            name: options.name.clone(),
            purpose: options.purpose,
            dir: layout.dir().to_owned(),
            programs: options.programs.clone(),
            pool_size: options.pool_size,
            pace: options.pace,
            nodes,
            drops: BTreeSet::new(),
        };
        let built = build(&layout, &record);
        if built.is_err() {
            // The first error is the one to tell; what the clean-up meets comes up again later.
            let _ = teardown::remove(&layout);
            lock.remove();
        }
        built.map(|()| Self { layout, pace: options.pace })
    }
}

fn nodes(voters: usize, standbys: usize, workers: usize) -> Result<Vec<NodeRecord>, LabError> {
    let total = voters + standbys + workers;
    let count = u8::try_from(total).ok().filter(|n| *n <= 200 && voters % 2 == 1 && voters <= 7);
    let count = count.ok_or(LabError::NodeCount(total))?;
    let role = |number: usize| match number {
        _ if number <= voters => Role::Voter,
        _ if number <= voters + standbys => Role::Standby,
        _ => Role::Worker,
    };
    let node = |number: u8| NodeRecord {
        name: format!("n{number}"),
        role: role(number.into()),
        address: node_address(number),
        power: Power::On,
        linked: true,
        device: None,
    };
    Ok((1..=count).map(node).collect())
}

/// Gives each node its disk.
fn with_devices(
    mut nodes: Vec<NodeRecord>,
    devices: &[PathBuf],
) -> Result<Vec<NodeRecord>, LabError> {
    if devices.is_empty() {
        return Ok(nodes);
    }
    for (program, package) in lvm::PACKAGES {
        tool::check_program(program, package)?;
    }
    if devices.len() != nodes.len() {
        return Err(LabError::DeviceCount { nodes: nodes.len(), devices: devices.len() });
    }
    for (node, device) in nodes.iter_mut().zip(devices) {
        node.device = Some(lvm::resolve(device)?);
    }
    Ok(nodes)
}

fn build(layout: &Layout, record: &LabRecord) -> Result<(), LabError> {
    claim_dir(layout)?;
    let run = layout.run_dir();
    fs::create_dir_all(&run).map_err(LabError::io("cannot make", &run))?;
    fabric::create(layout)?;
    for node in &record.nodes {
        fabric::add_overlay_peer(layout, node.address)?;
        power::boot(layout, record, node)?;
    }
    record.save(layout)?;
    if layout.name() == DEFAULT_LAB { write_address_file(layout, record) } else { Ok(()) }
}

/// Takes an empty or new directory for the lab, and marks it.
fn claim_dir(layout: &Layout) -> Result<(), LabError> {
    let dir = layout.dir();
    fs::create_dir_all(dir).map_err(LabError::io("cannot make", dir))?;
    let mut entries = fs::read_dir(dir).map_err(LabError::io("cannot read", dir))?;
    if entries.next().is_some() {
        return Err(LabError::ForeignDir(dir.to_owned()));
    }
    let marker = layout.marker();
    fs::write(&marker, layout.name()).map_err(LabError::io("cannot write", &marker))
}

fn write_address_file(layout: &Layout, record: &LabRecord) -> Result<(), LabError> {
    let path = PathBuf::from(ADDRESS_FILE);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(LabError::io("cannot make", parent))?;
    }
    // A worker's root may only look.
    let members = record.nodes.iter().filter(|n| n.role != Role::Worker);
    let list: Vec<_> =
        members.map(|n| format!("unix:{}", layout.socket(&n.name).display())).collect();
    fs::write(&path, list.join(",") + "\n").map_err(LabError::io("cannot write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_come_after_voters() {
        let all = nodes(3, 0, 2).unwrap();
        let names: Vec<_> = all.iter().map(|n| (n.name.as_str(), n.role)).collect();
        assert_eq!(names[2], ("n3", Role::Voter));
        assert_eq!(names[3], ("n4", Role::Worker));
        assert_eq!(all[4].address.to_string(), "10.88.0.5");
        let roles: Vec<_> = nodes(1, 1, 1).unwrap().iter().map(|node| node.role).collect();
        assert_eq!(roles, [Role::Voter, Role::Standby, Role::Worker]);
    }

    #[test]
    fn clusters_that_cannot_be_are_refused() {
        for (voters, workers) in [(0, 1), (2, 0), (9, 0), (3, 250)] {
            assert!(nodes(voters, 0, workers).is_err(), "{voters} {workers}");
        }
    }
}

//! Power: a node boots, loses it without a word, and boots again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::clock::BootInstant;
use crate::config;
use crate::lab::Lab;
use crate::layout::Layout;
use crate::pace::Pace;
use crate::plan::{NodePlan, Part};
use crate::plumbing::cgroup::Hierarchies;
use crate::plumbing::{fabric, loops, lvm, tool};
use crate::record::{LabRecord, NodeRecord, Power};
use crate::wait::wait_until;
use crate::{LabError, parts};

/// How long the kernel may take to end a node's processes and let go of its devices.
pub(crate) const CUT_LIMIT: Duration = Duration::from_secs(60);
const BOOT_LIMIT: Duration = Duration::from_secs(10);

impl Lab {
    /// Cuts a node's power: its link goes down and every process of it dies by SIGKILL. Nothing
    /// says goodbye, which is why the link goes first. Returns the last instant before.
    pub fn kill(&self, node: &str) -> Result<BootInstant, LabError> {
        self.change(|record| {
            let before = record.node(node)?.power;
            if before != Power::On {
                return Err(LabError::Power { node: node.to_owned(), is: "off already" });
            }
            let hierarchies = Hierarchies::discover()?;
            let init = parts::init_pid(&hierarchies, self.layout(), node);
            let now = BootInstant::now();
            fabric::set_link(self.layout(), node, false)?;
            // A node that has died of its own fence is off all the same.
            if let Some(init) = init {
                kill(init, Signal::SIGKILL).map_err(LabError::sys("cannot kill the node"))?;
            }
            set_power(record, node, Power::Off { since_boot_ns: now });
            Ok(now)
        })
    }

    /// Gives a node its power back, with its disk as the cut left it. Waits first until the
    /// kernel has finished the cut: no process, no loop device of the node is left.
    pub fn power_on(&self, node: &str) -> Result<(), LabError> {
        self.change(|record| {
            let mut machine = record.node(node)?.clone();
            if machine.power == Power::On {
                return Err(LabError::Power { node: node.to_owned(), is: "on already" });
            }
            finish_cut(self.layout(), &machine, record.pace)?;
            fabric::detach(self.layout(), node)?;
            machine.power = Power::On;
            boot(self.layout(), record, &machine)?;
            if !machine.linked {
                fabric::set_link(self.layout(), node, false)?;
            }
            set_power(record, node, Power::On);
            Ok(())
        })
    }
}

fn set_power(record: &mut LabRecord, node: &str, power: Power) {
    for found in record.nodes.iter_mut().filter(|n| n.name == node) {
        found.power = power;
    }
}

/// Boots a node: its link, its cgroups, its directories, its init.
pub(crate) fn boot(layout: &Layout, record: &LabRecord, node: &NodeRecord) -> Result<(), LabError> {
    let name = node.name.as_str();
    fabric::attach(layout, name, &layout.netns(name), node.address)?;
    let hierarchies = Hierarchies::discover()?;
    let plan = NodePlan::new(layout, node, record, &hierarchies.unified);
    let scope = NodePlan::init_cgroup(&plan.cgroup);
    hierarchies.make(&scope)?;
    hierarchies.make(&format!("{}/protected", plan.cgroup))?;
    for part in [Part::Guardian, Part::Daemon] {
        hierarchies.make(&NodePlan::unit_cgroup(&plan.cgroup, part))?;
    }
    for dir in [layout.node_dir(name), layout.node_run(name)] {
        fs::create_dir_all(&dir).map_err(LabError::io("cannot make", &dir))?;
    }
    match &node.device {
        Some(device) => lvm::configure(&layout.lvm_dir(name), device)?,
        None => {
            let pool = layout.node_dir(name).join("pool");
            fs::create_dir_all(&pool).map_err(LabError::io("cannot make", &pool))?;
        }
    }
    config::write(layout, node, record)?;
    plan.save()?;
    let (lab, plan_file) = (text(&plan.lab_program), text(&NodePlan::path(&plan.node_run)));
    tool::run(&[&lab, "node-boot", &plan_file])?;
    wait_until(&format!("the boot of {name}"), record.pace.of(BOOT_LIMIT), || {
        let started = |part| parts::host_pid(&hierarchies, layout, name, part).is_ok();
        Ok(started(Part::Guardian) && started(Part::Daemon))
    })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Waits until nothing of a node that lost its power is left in the kernel.
fn finish_cut(layout: &Layout, node: &NodeRecord, pace: Pace) -> Result<(), LabError> {
    let hierarchies = Hierarchies::discover()?;
    let cgroup = layout.node_cgroup(&node.name);
    let limit = pace.of(CUT_LIMIT);
    hierarchies.kill(&cgroup, limit)?;
    match node.device {
        Some(_) => lvm::release(layout, &node.name, limit)?,
        None => loops::release(&layout.node_dir(&node.name), limit)?,
    }
    hierarchies.remove(&cgroup)
}

//! node-boot: makes the namespaces of a node around its init, and leaves.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

use crate::LabError;
use crate::plan::NodePlan;
use crate::plumbing::cgroup::Hierarchies;
use crate::plumbing::mounts;
use crate::sys;

/// Boots the node of this plan. The calling process is spent afterwards: it is half inside.
///
/// Its child is the node's pid 1, and is adopted by the host's init when the caller ends.
pub fn boot(plan_file: &Path) -> Result<(), LabError> {
    let plan = NodePlan::load(plan_file)?;
    sys::keep_descriptors_to_ourselves()
        .map_err(LabError::io("cannot keep the descriptors of", plan_file))?;
    let hierarchies = Hierarchies::discover()?;
    hierarchies.join(&NodePlan::init_cgroup(&plan.cgroup))?;
    // Nobody's terminal: a Ctrl-C there must not reach the node's processes.
    nix::unistd::setsid().map_err(LabError::sys("cannot leave the session"))?;
    let netns = Path::new("/run/netns").join(&plan.netns);
    let netns = File::open(&netns).map_err(LabError::io("cannot open", &netns))?;
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(LabError::sys("cannot enter the netns"))?;
    let mut own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS;
    own.set(CloneFlags::CLONE_NEWIPC, !plan.host_ipc);
    unshare(own).map_err(LabError::sys("cannot make the node's namespaces"))?;
    nix::unistd::sethostname(&plan.node).map_err(LabError::sys("cannot set the host name"))?;
    let aside = plan.node_run.join("aside");
    fs::create_dir_all(&aside).map_err(LabError::io("cannot make", &aside))?;
    mounts::become_node(&plan.lab_dir, &aside)?;
    let log = append(&plan.node_dir.join("node-init.log"))?;
    let errors = log.try_clone().map_err(LabError::io("cannot share the log", plan_file))?;
    Command::new(&plan.lab_program)
        .arg("node-init")
        .arg(plan_file)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(LabError::io("cannot run", &plan.lab_program))?;
    Ok(())
}

pub(super) fn append(path: &Path) -> Result<File, LabError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(LabError::io("cannot open", path))
}

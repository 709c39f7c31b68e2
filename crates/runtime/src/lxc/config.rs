//! Where the LXC driver keeps things, and how long it waits.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of the LXC driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LxcConfig {
    /// Directory of the generated configurations and of LXC's own state. One per node; its path
    /// is short (LXC makes socket names of it).
    pub lxc_path: PathBuf,
    /// Directory of logs and consoles.
    pub log_dir: PathBuf,
    /// Path of this node's cgroups below every hierarchy's mount point, without slashes at its
    /// ends: `holdfast`, or `holdfast-lab/n1`. The guardian's ancestor is `protected` below it.
    pub cgroup_root: String,
    /// First host uid and gid of the 65,536 that containers' 0 to 65,535 become; the volume's
    /// files are mapped by an idmapped mount. `None` runs containers privileged.
    pub idmap_base: Option<u32>,
    /// How long a start may take until init runs.
    pub start_timeout: Duration,
    /// How long any other `lxc-*` call may take.
    pub call_timeout: Duration,
    /// Size at which the console's file begins anew; the one before it is kept.
    pub console_bytes: u64,
}

impl LxcConfig {
    /// The usual settings with these places: unprivileged, 2 min to start (a machine with much else to do
    /// took more than half a minute, and a start that is cut begins anew), 5 s for other calls.
    pub fn new(lxc_path: PathBuf, log_dir: PathBuf, cgroup_root: String) -> Self {
        Self {
            lxc_path,
            log_dir,
            cgroup_root,
            idmap_base: Some(IDMAP_BASE),
            start_timeout: Duration::from_secs(120),
            call_timeout: Duration::from_secs(5),
            console_bytes: 1 << 20,
        }
    }
}

/// The first uid of the range that nobody hands out: above what systemd-nspawn and `/etc/subuid`
/// use, below 2^31 (systemd's "Users, Groups, UIDs and GIDs").
const IDMAP_BASE: u32 = 0x7000_0000;

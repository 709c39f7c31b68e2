//! The configuration that LXC is given for one container (lxc.container.conf(5)).
//!
//! It is written anew at every start, from values only. LXC reads lines, so a newline in a value
//! would be another setting, and a privileged one at that: every value is checked here, whoever
//! else checked it before.

use std::fmt::Write as _;
use std::path::Path;

use super::groups::Groups;
use super::hierarchies::{Carrier, Hierarchies};
use crate::{ContainerNet, RuntimeError, StartRequest};

/// What the node gives to every configuration.
pub(super) struct Node<'a> {
    pub(super) hierarchies: &'a Hierarchies,
    pub(super) idmap_base: Option<u32>,
    pub(super) console: &'a Path,
    pub(super) console_bytes: u64,
    pub(super) apparmor: bool,
}

/// Number of uids and gids of a container.
const IDS: u32 = 65_536;

/// The path that programs are looked for in, inside.
pub(super) const INNER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// System call filter that Debian's LXC ships for its containers.
const SECCOMP_PROFILE: &str = "/usr/share/lxc/config/common.seccomp";

/// Settings of every container. `mixed` keeps the dangerous parts of `/proc` and `/sys` read-only
/// and still lets systemd boot.
const COMMON: &str = "\
lxc.autodev = 1
lxc.tty.max = 0
lxc.pty.max = 1024
lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed
lxc.cap.drop = mac_admin mac_override sys_module sys_rawio sys_time
";

/// A reboot ends a container, and whoever wants it running starts it again, by the same checks as
/// any start (I9). LXC would start it by itself, and in other cgroups at that, so its monitor is
/// ended instead, as the last thing that it does. (`$PPID` is the monitor: LXC executes hooks.)
const NO_REBOOT: &str = r#"/bin/sh -c '[ "$LXC_TARGET" != reboot ] || kill -9 $PPID'"#;

/// Devices that a privileged container may use; an unprivileged one cannot make others.
const DEVICES: [&str; 9] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:* rwm",
    "c 136:* rwm",
];

/// Writes the configuration of one container.
pub(super) fn render(
    node: &Node<'_>,
    groups: &Groups<'_>,
    request: &StartRequest,
) -> Result<String, RuntimeError> {
    let mut conf = Conf(String::from(COMMON));
    conf.set("lxc.rootfs.path", &format!("dir:{}", path_text("root", &request.rootfs)?))?;
    conf.set("lxc.uts.name", request.hostname.as_str())?;
    conf.set("lxc.console.logfile", path_text("console log", node.console)?)?;
    conf.set("lxc.console.size", &node.console_bytes.to_string())?;
    conf.set("lxc.console.rotate", "1")?;
    if node.apparmor {
        conf.set("lxc.apparmor.profile", "generated")?;
        // Without it systemd may not mount what it needs.
        conf.set("lxc.apparmor.allow_nesting", "1")?;
    } else {
        conf.set("lxc.apparmor.profile", "unconfined")?;
    }
    if Path::new(SECCOMP_PROFILE).exists() {
        conf.set("lxc.seccomp.profile", SECCOMP_PROFILE)?;
    }
    // To LXC itself, or to process 1: whichever `lxc_command` lets it see at the root.
    conf.set("lxc.cgroup.relative", if node.hierarchies.delegates() { "0" } else { "1" })?;
    conf.set("lxc.cgroup.dir.container", groups.payload())?;
    conf.set("lxc.cgroup.dir.container.inner", "inner")?;
    conf.set("lxc.cgroup.dir.monitor", &groups.monitor())?;
    conf.set("lxc.cgroup.dir.monitor.pivot", &groups.pivot())?;
    conf.set("lxc.hook.post-stop", NO_REBOOT)?;
    conf.privilege(node)?;
    conf.mounts(node, request)?;
    conf.limits(node.hierarchies, request)?;
    conf.network(request.network.as_ref())?;
    conf.environment(request)?;
    Ok(conf.0)
}

struct Conf(String);

impl Conf {
    fn set(&mut self, key: &str, value: &str) -> Result<(), RuntimeError> {
        if value.contains(['\n', '\r', '\0']) {
            let why = "it holds a newline or NUL character";
            return Err(RuntimeError::Invalid { what: "a container setting", why });
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{key} = {value}");
        Ok(())
    }

    fn privilege(&mut self, node: &Node<'_>) -> Result<(), RuntimeError> {
        if let Some(base) = node.idmap_base {
            self.set("lxc.idmap", &format!("u 0 {base} {IDS}"))?;
            self.set("lxc.idmap", &format!("g 0 {base} {IDS}"))?;
            return self.set("lxc.rootfs.options", "idmap=container");
        }
        let key = match node.hierarchies.carrier("devices") {
            Some(Carrier::V1(_)) => "lxc.cgroup.devices",
            _ => "lxc.cgroup2.devices",
        };
        self.set(&format!("{key}.deny"), "a")?;
        DEVICES.iter().try_for_each(|device| self.set(&format!("{key}.allow"), device))
    }

    /// What LXC reads there are the fields of fstab(5), parted by white space. Where a link leads
    /// out of the container it mounts nothing, and fails.
    fn mounts(&mut self, node: &Node<'_>, request: &StartRequest) -> Result<(), RuntimeError> {
        for mount in &request.mounts {
            let source = path_text("volume", &mount.source)?;
            if source.contains(char::is_whitespace) {
                let why = "its path holds white space";
                return Err(RuntimeError::Invalid { what: "a volume", why });
            }
            let path = mount.path.as_str().trim_start_matches('/');
            let idmap = if node.idmap_base.is_some() { ",idmap=container" } else { "" };
            let entry = format!("{source} {path} none bind,nodev{idmap} 0 0");
            self.set("lxc.mount.entry", &entry)?;
        }
        Ok(())
    }

    fn limits(&mut self, found: &Hierarchies, request: &StartRequest) -> Result<(), RuntimeError> {
        let limits = request.limits;
        let missing = RuntimeError::Cgroups;
        if let Some(memory) = limits.memory {
            let key = match found.carrier("memory") {
                Some(Carrier::V2(_)) => "lxc.cgroup2.memory.max",
                Some(Carrier::V1(_)) => "lxc.cgroup.memory.limit_in_bytes",
                None => return Err(missing("no hierarchy carries the memory controller")),
            };
            self.set(key, &memory.bytes().to_string())?;
        }
        if let Some(milli) = limits.cpu_milli {
            let quota_us = u64::from(milli) * CPU_PERIOD_US / 1000;
            match found.carrier("cpu") {
                Some(Carrier::V2(_)) => {
                    self.set("lxc.cgroup2.cpu.max", &format!("{quota_us} {CPU_PERIOD_US}"))?;
                }
                Some(Carrier::V1(_)) => {
                    self.set("lxc.cgroup.cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                    self.set("lxc.cgroup.cpu.cfs_quota_us", &quota_us.to_string())?;
                }
                None => return Err(missing("no hierarchy carries the cpu controller")),
            }
        }
        if let Some(pids) = limits.pids {
            let key = match found.carrier("pids") {
                Some(Carrier::V2(_)) => "lxc.cgroup2.pids.max",
                Some(Carrier::V1(_)) => "lxc.cgroup.pids.max",
                None => return Err(missing("no hierarchy carries the pids controller")),
            };
            self.set(key, &pids.to_string())?;
        }
        Ok(())
    }

    fn network(&mut self, network: Option<&ContainerNet>) -> Result<(), RuntimeError> {
        let Some(net) = network else { return self.set("lxc.net.0.type", "empty") };
        let link_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // IFNAMSIZ is 16 with its NUL (netdevice(7)).
        if net.link.is_empty() || net.link.len() > 15 || !net.link.chars().all(link_ok) {
            let why = "it is no interface name";
            return Err(RuntimeError::Invalid { what: "the network link", why });
        }
        if net.prefix > 32 {
            let why = "it is longer than an address";
            return Err(RuntimeError::Invalid { what: "the network prefix", why });
        }
        self.set("lxc.net.0.type", "phys")?;
        self.set("lxc.net.0.link", &net.link)?;
        self.set("lxc.net.0.name", "eth0")?;
        self.set("lxc.net.0.flags", "up")?;
        self.set("lxc.net.0.hwaddr", &net.mac.to_string())?;
        self.set("lxc.net.0.ipv4.address", &format!("{}/{}", net.address, net.prefix))?;
        match net.gateway {
            Some(gateway) => self.set("lxc.net.0.ipv4.gateway", &gateway.to_string()),
            None => Ok(()),
        }
    }

    /// The value is quoted as a whole, or LXC would trim what it ends with.
    fn environment(&mut self, request: &StartRequest) -> Result<(), RuntimeError> {
        if !request.env.contains_key("PATH") {
            self.set("lxc.environment", &format!("PATH={INNER_PATH}"))?;
        }
        for (name, value) in &request.env {
            if !env_name_ok(name) {
                let why = "it is empty or holds '=', quotes or white space";
                return Err(RuntimeError::Invalid { what: "an environment name", why });
            }
            self.set("lxc.environment", &format!("\"{name}={value}\""))?;
        }
        Ok(())
    }
}

/// Period of the CPU quota: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// Whether a name can be passed through LXC unchanged.
pub(super) fn env_name_ok(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '=' | '"' | '\'');
    !name.is_empty() && !name.contains(bad)
}

/// A path as LXC can read it: text, absolute, without what its parser would eat.
fn path_text<'p>(what: &'static str, path: &'p Path) -> Result<&'p str, RuntimeError> {
    let text = path.to_str().filter(|t| t.starts_with('/') && t.trim() == *t && !t.contains(':'));
    let why = "it is no absolute path of plain text, or holds a colon";
    text.ok_or(RuntimeError::Invalid { what, why })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use holdfast_types::{ByteSize, ContainerUid, Limits, Protection};

    use super::*;

    fn request() -> StartRequest {
        StartRequest {
            uid: ContainerUid::generate(),
            hostname: "web".parse().unwrap(),
            protection: Protection::Protected,
            rootfs: "/vol/rootfs".into(),
            mounts: Vec::new(),
            limits: Limits {
                memory: Some(ByteSize::mib(64)),
                cpu_milli: Some(500),
                pids: Some(50),
            },
            command: Vec::new(),
            env: BTreeMap::new(),
            network: Some(ContainerNet {
                link: "hf-web".into(),
                mac: "02:48:0a:4d:00:05".parse().unwrap(),
                address: "10.77.0.5".parse().unwrap(),
                prefix: 16,
                gateway: None,
            }),
        }
    }

    fn rendered(request: &StartRequest, idmap_base: Option<u32>) -> Result<String, RuntimeError> {
        let hierarchies = Hierarchies::discover().unwrap();
        let groups = Groups::new(&hierarchies, "lab/n1", request.protection, request.uid);
        let console = Path::new("/log/web.console");
        let node = Node {
            hierarchies: &hierarchies,
            idmap_base,
            console,
            console_bytes: 4096,
            apparmor: false,
        };
        render(&node, &groups, request)
    }

    #[test]
    fn a_configuration_names_everything() {
        let request = request();
        let conf = rendered(&request, Some(7)).unwrap();
        for line in [
            "lxc.rootfs.path = dir:/vol/rootfs",
            "lxc.idmap = u 0 7 65536",
            "lxc.rootfs.options = idmap=container",
            "lxc.net.0.ipv4.address = 10.77.0.5/16",
            &format!("lxc.cgroup.dir.monitor = lab/n1/protected/{}.monitor", request.uid),
        ] {
            assert!(conf.lines().any(|l| l == line), "{line} is not in\n{conf}");
        }
        assert!(conf.contains("67108864") && conf.contains("50000") && conf.contains("pids.max"));
        assert!(rendered(&request, None).unwrap().contains("devices.deny = a"));
    }

    /// I27: no value becomes a setting of its own.
    #[test]
    fn hostile_values_are_refused() {
        let cases: [fn(&mut StartRequest); 7] = [
            |r| r.rootfs = "/a\nlxc.hook.start = /bin/sh".into(),
            |r| r.rootfs = "relative".into(),
            |r| r.rootfs = "/a:/b".into(),
            |r| r.env = [("A".into(), "x\nlxc.idmap = u 0 0 1".into())].into(),
            |r| r.env = [("A B".into(), "x".into())].into(),
            |r| r.network.as_mut().unwrap().link = "eth0 lxc".into(),
            |r| r.network.as_mut().unwrap().prefix = 33,
        ];
        for spoil in cases {
            let mut request = request();
            spoil(&mut request);
            assert!(matches!(rendered(&request, None), Err(RuntimeError::Invalid { .. })));
        }
    }
}

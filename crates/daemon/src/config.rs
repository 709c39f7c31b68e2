//! `/etc/holdfast/holdfastd.toml`: what a machine's owner decides. Unknown keys are errors, so that
//! a misspelt one is not a default in disguise.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use holdfast_agent::TransferLimits;
use holdfast_proto::Address;
use holdfast_types::{ByteSize, NodeName};
use serde::{Deserialize, Deserializer};

use crate::error::DaemonError;

/// Where the file is if nobody says.
pub const DEFAULT_CONFIG: &str = "/etc/holdfast/holdfastd.toml";

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's name in its cluster.
    pub name: NodeName,
    /// Identity, log and snapshots.
    #[serde(default = "data_dir")]
    pub data_dir: PathBuf,
    /// The local socket, for its owner only.
    #[serde(default = "socket")]
    pub socket: PathBuf,
    /// Where the API listens, `host:port`.
    #[serde(default = "listen")]
    pub listen: String,
    /// Where other nodes reach it, `host:port`.
    pub advertise: String,
    /// Where metrics are served, `host:port`; absent for nowhere.
    pub metrics: Option<String>,
    /// Below this cgroup everything of ours lives, relative to each hierarchy's root.
    #[serde(default = "cgroup_root")]
    pub cgroup_root: String,
    /// The guardian.
    #[serde(default)]
    pub guardian: GuardianConfig,
    /// The pool.
    #[serde(default)]
    pub pool: PoolConfig,
    /// What is shipped to other nodes, and received from them.
    #[serde(default)]
    pub replication: ReplicationConfig,
    /// Consensus.
    #[serde(default)]
    pub consensus: ConsensusConfig,
    /// The network.
    pub network: NetworkConfig,
    /// LXC.
    #[serde(default)]
    pub lxc: LxcConfig,
}

/// `[guardian]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardianConfig {
    /// Where it listens.
    pub socket: PathBuf,
    /// Its program, which also puts others below it. `holdfast-freeze` lies beside it.
    pub binary: PathBuf,
    /// The link group that it was told to set down: that of all protected containers' links.
    pub link_group: NonZeroU32,
}

/// `[pool]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// What it is made of.
    pub driver: PoolDriver,
    /// Driver xfs: what it is called, for people; `default` if nobody says. A pool in LVM was given
    /// its name when it was made.
    pub name: Option<String>,
    /// Driver xfs: its directory; `/var/lib/holdfast/pool` if nobody says.
    pub path: Option<PathBuf>,
    /// Driver xfs: with a size it is in a file of its own of that size; without one only where the
    /// directory is on no XFS.
    #[serde(deserialize_with = "size")]
    pub size: Option<ByteSize>,
    /// How much of the replicas is read in a second, to see whether they are still what they were.
    #[serde(deserialize_with = "plain_size")]
    pub scrub_rate: ByteSize,
    /// How many seconds a replica is left alone after it was read to its end.
    pub scrub_every_s: u64,
    /// How often the filesystems of running containers give back what they do not use, in seconds;
    /// 0 is never.
    pub trim_every_s: u64,
    /// Driver lvm: what becomes of writes when the pool is full all the same.
    pub when_full: PoolWhenFull,
}

/// What a pool is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolDriver {
    /// A directory on XFS with reflink, in a file of its own if need be.
    #[default]
    Xfs,
    /// A thin pool in an LVM volume group, made by `holdfast pool create`.
    Lvm,
    /// There is none: the machine is a witness.
    None,
}

/// What becomes of a write that a full thin pool has no room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolWhenFull {
    /// It waits until the pool has grown.
    #[default]
    Pause,
    /// It fails.
    Error,
}

impl PoolConfig {
    /// Its directory, with driver xfs.
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new("/var/lib/holdfast/pool"))
    }

    /// Its name, with driver xfs.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("default")
    }

    fn check(&self) -> Result<(), String> {
        if self.size.is_some_and(|size| size < ByteSize::mib(300)) {
            return Err("pool.size: a pool needs at least 300MiB".into());
        }
        let of_xfs = [
            ("name", self.name.is_some()),
            ("path", self.path.is_some()),
            ("size", self.size.is_some()),
        ];
        match (self.driver, of_xfs.iter().find(|(_, given)| *given)) {
            (PoolDriver::None, Some((key, _))) => {
                Err(format!("pool.{key}: not with driver none, which has no pool"))
            }
            (PoolDriver::Lvm, Some((key, _))) => Err(format!(
                "pool.{key}: not with driver lvm, whose pool is made by holdfast pool create"
            )),
            _ => Ok(()),
        }
    }
}

impl PoolDriver {
    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Lvm => "lvm",
            Self::None => "none",
        }
    }
}

/// `[replication]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicationConfig {
    /// How much this node ships in a second, in all; without limit if nobody says.
    #[serde(deserialize_with = "size")]
    pub rate: Option<ByteSize>,
    /// The same for each transfer by itself.
    #[serde(deserialize_with = "size")]
    pub job_rate: Option<ByteSize>,
    /// How many transfers it ships at a time. One of them is kept for short ones.
    pub sends: usize,
    /// How many it receives at a time; more are refused, and come again.
    pub receives: usize,
}

impl ReplicationConfig {
    fn check(&self) -> Result<(), String> {
        let least = ByteSize(64 << 10);
        let rates = [("rate", self.rate), ("job_rate", self.job_rate)];
        if let Some((key, _)) = rates.iter().find(|(_, rate)| rate.is_some_and(|r| r < least)) {
            return Err(format!("replication.{key}: use at least {least}"));
        }
        let counts = [("sends", self.sends), ("receives", self.receives)];
        match counts.iter().find(|(_, count)| !(2..=64).contains(count)) {
            Some((key, _)) => Err(format!("replication.{key}: use 2 to 64")),
            None => Ok(()),
        }
    }
}

/// `[consensus]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsensusConfig {
    /// How often a leader lets hear from itself, in milliseconds; the same on every node. An answer
    /// that takes nearly as long counts as none, and elections take four to seven times as long:
    /// raise it where machines or the network between them are slow.
    pub heartbeat_ms: u64,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// This node's address below the overlay.
    pub underlay: Ipv4Addr,
    /// VXLAN endpoints beside the nodes.
    #[serde(default)]
    pub overlay_gateways: Vec<Ipv4Addr>,
    /// The overlay's VXLAN network identifier.
    #[serde(default = "vxlan_id")]
    pub vxlan_id: u32,
    /// The overlay's UDP port.
    #[serde(default = "vxlan_port")]
    pub port: u16,
}

/// `[lxc]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LxcConfig {
    /// LXC's own directory for our containers. Their root, which is nobody outside, must be let
    /// through to it: not below the data directory, which is for its owner only.
    pub path: PathBuf,
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, DaemonError> {
        let wrong = |what: String| DaemonError::Config { file: path.to_owned(), what };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        Self::read(&text).map_err(wrong)
    }

    /// Reads and checks the file's text; what is wrong with it is one line.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|span| text[..span.start].lines().count().max(1));
            let place = line.map(|n| format!("line {n}: ")).unwrap_or_default();
            format!("{place}{}", e.message().replace('\n', " "))
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        holdfast_trust::check_address(&self.advertise).map_err(|e| format!("advertise: {e}"))?;
        tcp("listen", &self.listen)?;
        if let Some(metrics) = &self.metrics {
            tcp("metrics", metrics)?;
        }
        if self.advertise.starts_with("0.0.0.0:") || self.advertise.starts_with("[::]:") {
            return Err("advertise: other nodes cannot reach that address".into());
        }
        let pool = self.pool.path();
        let paths = [
            ("pool.path", pool),
            ("data_dir", self.data_dir.as_path()),
            ("socket", self.socket.as_path()),
            ("guardian.socket", self.guardian.socket.as_path()),
            ("guardian.binary", self.guardian.binary.as_path()),
            ("lxc.path", self.lxc.path.as_path()),
        ];
        if let Some((key, _)) = paths.iter().find(|(_, path)| !path.is_absolute()) {
            return Err(format!("{key}: the path must be absolute"));
        }
        let mut parts = self.cgroup_root.split('/');
        if parts.any(|part| part.is_empty() || part == "." || part == "..") {
            return Err("cgroup_root: write a relative path such as holdfast".into());
        }
        if self.network.vxlan_id == 0 || self.network.vxlan_id >= 1 << 24 {
            return Err("network.vxlan_id: use 1 to 16777215".into());
        }
        if !(50..=10_000).contains(&self.consensus.heartbeat_ms) {
            return Err("consensus.heartbeat_ms: use 50 to 10000".into());
        }
        self.replication.check()?;
        self.pool.check()
    }
}

impl Default for GuardianConfig {
    fn default() -> Self {
        Self {
            socket: "/run/holdfast/guardian.sock".into(),
            binary: "/usr/lib/holdfast/holdfast-guardian".into(),
            link_group: NonZeroU32::MIN.saturating_add(71),
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            driver: PoolDriver::Xfs,
            name: None,
            path: None,
            size: None,
            scrub_rate: ByteSize::mib(8),
            scrub_every_s: 7 * 24 * 3600,
            trim_every_s: 24 * 3600,
            when_full: PoolWhenFull::Pause,
        }
    }
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        let TransferLimits { rate, job_rate, sends, receives } = TransferLimits::default();
        Self { rate, job_rate, sends, receives }
    }
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self { heartbeat_ms: 250 }
    }
}

impl Default for LxcConfig {
    fn default() -> Self {
        Self { path: "/run/holdfast/lxc".into() }
    }
}

fn data_dir() -> PathBuf {
    "/var/lib/holdfast".into()
}

fn socket() -> PathBuf {
    "/run/holdfast/holdfastd.sock".into()
}

fn listen() -> String {
    "0.0.0.0:7443".into()
}

fn cgroup_root() -> String {
    "holdfast".into()
}

fn vxlan_id() -> u32 {
    77
}

fn vxlan_port() -> u16 {
    7789
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ByteSize>, D::Error> {
    plain_size(from).map(Some)
}

fn plain_size<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn tcp(key: &str, text: &str) -> Result<(), String> {
    match text.parse() {
        Ok(Address::Tcp(_)) => Ok(()),
        Ok(Address::Unix(_)) | Err(_) => Err(format!("{key}: {text:?} is not host:port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::Code;

    const LEAST: &str = "name = \"n1\"\nadvertise = \"10.0.0.1:7443\"\n";
    const NETWORK: &str = "[network]\nunderlay = \"10.0.0.1\"\n";

    fn load(text: &str) -> Result<Config, DaemonError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path())
    }

    #[test]
    fn three_keys_are_enough() {
        let config = load(&format!("{LEAST}{NETWORK}")).unwrap();
        assert_eq!((config.pool.size, config.guardian.link_group.get()), (None, 72));
        assert_eq!((config.network.vxlan_id, config.network.port), (77, 7789));
    }

    #[test]
    fn an_unknown_key_is_named() {
        for text in [
            format!("{LEAST}datadir = \"/x\"\n{NETWORK}"),
            format!("{LEAST}{NETWORK}[pool]\ndatadir = \"x\"\n"),
        ] {
            let error = load(&text).unwrap_err();
            assert_eq!(error.code(), Code::Config);
            let line = error.to_string();
            assert!(line.contains("datadir") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn wrong_values_are_named_with_their_key() {
        for (line, key) in [
            ("listen = \"nowhere\"\n", "listen"),
            ("data_dir = \"here\"\n", "data_dir"),
            ("cgroup_root = \"../x\"\n", "cgroup_root"),
            ("metrics = \"x:0\"\n", "metrics"),
        ] {
            let error = load(&format!("{LEAST}{line}{NETWORK}")).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let error = load(&format!("{LEAST}{NETWORK}[pool]\nsize = \"4GB\"\n")).unwrap_err();
        assert!(error.to_string().contains("4GB"), "{error}");
    }

    #[test]
    fn replication_is_bounded_and_unlimited_unless_said() {
        let of = |lines: &str| load(&format!("{LEAST}{NETWORK}[replication]\n{lines}"));
        let free = of("").unwrap().replication;
        assert_eq!((free.rate, free.job_rate, free.sends, free.receives), (None, None, 4, 8));
        let said = of("rate = \"100MiB\"\njob_rate = \"20MiB\"\nsends = 2\n").unwrap().replication;
        assert_eq!((said.rate, said.sends), (Some(ByteSize::mib(100)), 2));
        for line in ["rate = \"1KiB\"", "job_rate = \"0\"", "sends = 1", "receives = 65"] {
            let error = of(&format!("{line}\n")).unwrap_err().to_string();
            let key = line.split(' ').next().unwrap();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn what_contradicts_the_driver_is_named() {
        let pool = |lines: &str| load(&format!("{LEAST}{NETWORK}[pool]\n{lines}"));
        assert_eq!(pool("driver = \"lvm\"\n").unwrap().pool.driver, PoolDriver::Lvm);
        for key in ["name = \"a\"", "path = \"/p\"", "size = \"4GiB\""] {
            let error = pool(&format!("driver = \"lvm\"\n{key}\n")).unwrap_err().to_string();
            let name = key.split(' ').next().unwrap();
            assert!(error.contains(&format!("pool.{name}")), "{error}");
            assert!(pool(&format!("driver = \"xfs\"\n{key}\n")).is_ok());
        }
        let error = pool("driver = \"lvm\"\nvg = \"x\"\n").unwrap_err().to_string();
        assert!(error.contains("vg"), "{error}");
        let error = pool("driver = \"zfs\"\n").unwrap_err().to_string();
        assert!(error.contains("zfs"), "{error}");
    }
}

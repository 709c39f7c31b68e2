//! What a user asks for, and what is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Code, DataVolume, ImageName, VolumeName};

/// Whether a container fails over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Fails over; stops when its node loses its lease.
    #[default]
    Protected,
    /// Never moves and keeps running whatever the cluster does.
    Pinned,
}

/// Resource limits. `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Limits {
    /// Memory, enforced by the memory cgroup.
    pub memory: Option<ByteSize>,
    /// CPU time, in thousandths of one core.
    pub cpu_milli: Option<u32>,
    /// Number of processes and threads.
    pub pids: Option<u32>,
}

/// What a user asks for when creating a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image that the root volume is cloned from.
    pub image: Option<ImageName>,
    /// Size of the root volume.
    pub disk: ByteSize,
    /// Resource limits.
    pub limits: Limits,
    /// Whether it fails over.
    pub protection: Protection,
    /// Copies wanted, the primary included. 1 to 5.
    pub copies: u8,
    /// How often the primary ships a snapshot. 1,000 at least.
    pub replicate_every_ms: u64,
    /// How old the best copy may be for a takeover without a person's approval.
    pub max_data_loss_ms: u64,
    /// Takeovers go from the highest to the lowest.
    pub priority: i32,
    /// Runs as init instead of the image's own, if not empty.
    pub command: Vec<String>,
    /// Environment of init.
    pub env: BTreeMap<String, String>,
    /// Volumes beside the root. Names, paths and order are fixed when it is created.
    pub volumes: Vec<DataVolume>,
}

impl Default for ContainerSpec {
    fn default() -> Self {
        Self {
            image: None,
            disk: ByteSize::gib(1),
            limits: Limits::default(),
            protection: Protection::Protected,
            copies: 2,
            replicate_every_ms: 5_000,
            max_data_loss_ms: 60_000,
            priority: 0,
            command: Vec::new(),
            env: BTreeMap::new(),
            volumes: Vec::new(),
        }
    }
}

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No image was named.
    #[error("the spec names no image")]
    NoImage,
    /// The disk is smaller than a filesystem needs or larger than one can be.
    #[error("a disk of {0} is out of range: use 16MiB to 16TiB")]
    Disk(ByteSize),
    /// There are too many data volumes.
    #[error("{0} data volumes are too many: at most {MAX_VOLUMES} are possible")]
    Volumes(usize),
    /// A data volume is smaller than a filesystem needs or larger than one can be.
    #[error("volume {0} of {1} is out of range: use 16MiB to 16TiB")]
    VolumeSize(VolumeName, ByteSize),
    /// Two data volumes have the same name or path.
    #[error("volume {0} has the name or the path of another")]
    VolumeTwice(VolumeName),
    /// The memory limit is too small to start anything, or absurd.
    #[error("a memory limit of {0} is out of range: use 4MiB to 64TiB")]
    Memory(ByteSize),
    /// The CPU limit is zero or absurd.
    #[error("a CPU limit of {0}/1000 core is out of range: use 0.01 to 4096 cores")]
    Cpu(u32),
    /// The process limit is zero or absurd.
    #[error("a limit of {0} processes is out of range: use 8 to 4194304")]
    Pids(u32),
    /// The number of copies is out of range.
    #[error("{0} copies are out of range: use 1 to 5 (the primary counts as one)")]
    Copies(u8),
    /// The replication interval is below the floor or absurd.
    #[error("a replication interval of {0} ms is out of range: use 1s to 24h")]
    ReplicateEvery(u64),
    /// The promise is tighter than the interval can keep.
    #[error("max-data-loss of {max_ms} ms is less than the replication interval of {every_ms} ms")]
    MaxDataLoss {
        /// The promise.
        max_ms: u64,
        /// The interval.
        every_ms: u64,
    },
    /// A command or environment entry that cannot be passed to a program.
    #[error("{0} holds a NUL or newline character, or an environment name is empty or holds '='")]
    Text(&'static str),
    /// The whole spec is over 32 KiB.
    #[error("the spec is {0} bytes of text; at most 32768 are allowed")]
    TooLarge(usize),
}

/// Largest spec, in bytes of its texts (DESIGN section 8).
const MAX_SPEC_BYTES: usize = 32 * 1024;

/// Most data volumes of a container.
pub const MAX_VOLUMES: usize = 7;

impl SpecError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::NoImage | Self::Copies(_) | Self::Text(_) => Code::InvalidArgument,
            Self::ReplicateEvery(_) | Self::MaxDataLoss { .. } => Code::InvalidArgument,
            Self::Volumes(_) | Self::VolumeTwice(_) => Code::InvalidArgument,
            Self::Disk(_) | Self::VolumeSize(..) => Code::InvalidSize,
            Self::Memory(_) | Self::Cpu(_) | Self::Pids(_) => Code::InvalidSize,
            Self::TooLarge(_) => Code::TooLarge,
        }
    }
}

impl ContainerSpec {
    /// Checks every range. A spec that passes is admissible on some large enough cluster.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.image.is_none() {
            return Err(SpecError::NoImage);
        }
        in_range(self.disk, ByteSize::mib(16), ByteSize::gib(16 << 10), SpecError::Disk)?;
        self.check_volumes()?;
        if let Some(memory) = self.limits.memory {
            in_range(memory, ByteSize::mib(4), ByteSize::gib(64 << 10), SpecError::Memory)?;
        }
        if let Some(cpu) = self.limits.cpu_milli {
            in_range(cpu, 10, 4_096_000, SpecError::Cpu)?;
        }
        if let Some(pids) = self.limits.pids {
            in_range(pids, 8, 4_194_304, SpecError::Pids)?;
        }
        in_range(self.copies, 1, 5, SpecError::Copies)?;
        in_range(self.replicate_every_ms, 1_000, 86_400_000, SpecError::ReplicateEvery)?;
        if self.max_data_loss_ms < self.replicate_every_ms {
            return Err(SpecError::MaxDataLoss {
                max_ms: self.max_data_loss_ms,
                every_ms: self.replicate_every_ms,
            });
        }
        self.check_texts()
    }

    /// The sizes of what is kept for it: its disk's first, then those of its data volumes.
    pub fn sizes(&self) -> Vec<ByteSize> {
        std::iter::once(self.disk).chain(self.volumes.iter().map(|v| v.size)).collect()
    }

    /// The sum of those.
    pub fn promised(&self) -> ByteSize {
        ByteSize(self.sizes().into_iter().map(ByteSize::bytes).fold(0, u64::saturating_add))
    }

    fn check_volumes(&self) -> Result<(), SpecError> {
        if self.volumes.len() > MAX_VOLUMES {
            return Err(SpecError::Volumes(self.volumes.len()));
        }
        for (at, volume) in self.volumes.iter().enumerate() {
            let size = volume.size;
            if size < ByteSize::mib(16) || size > ByteSize::gib(16 << 10) {
                return Err(SpecError::VolumeSize(volume.name.clone(), size));
            }
            let same = |other: &DataVolume| other.name == volume.name || other.path == volume.path;
            if self.volumes[..at].iter().any(same) {
                return Err(SpecError::VolumeTwice(volume.name.clone()));
            }
        }
        Ok(())
    }

    fn check_texts(&self) -> Result<(), SpecError> {
        let clean = |s: &str| !s.contains(['\0', '\n', '\r']);
        if !self.command.iter().all(|arg| clean(arg)) {
            return Err(SpecError::Text("command"));
        }
        let env_ok =
            |(k, v): (&String, &String)| !k.is_empty() && !k.contains('=') && clean(k) && clean(v);
        if !self.env.iter().all(env_ok) {
            return Err(SpecError::Text("environment"));
        }
        let texts = self.command.iter().map(String::len);
        let pairs = self.env.iter().map(|(k, v)| k.len() + v.len() + 2);
        let total: usize = texts.chain(pairs).sum();
        if total > MAX_SPEC_BYTES { Err(SpecError::TooLarge(total)) } else { Ok(()) }
    }
}

fn in_range<T: PartialOrd + Copy>(
    value: T,
    low: T,
    high: T,
    err: fn(T) -> SpecError,
) -> Result<(), SpecError> {
    if value < low || value > high { Err(err(value)) } else { Ok(()) }
}

/// What the user wants a container to be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DesiredState {
    /// It should run.
    Running,
    /// It should not run.
    Stopped,
    /// It should be gone, with every copy.
    Deleted,
}

/// What a container was last reported to be doing, by the node that it is assigned to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Assigned; its node has not reported yet.
    Pending,
    /// Its volume is being made or promoted, or its init is starting.
    Starting,
    /// Its init runs.
    Running,
    /// Its init does not run, on purpose.
    Stopped,
    /// Its init cannot be started; the reason is for people.
    Failed {
        /// What went wrong, in one line.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec { image: Some("busybox".parse().unwrap()), ..Default::default() }
    }

    #[test]
    fn the_defaults_are_admissible() {
        assert_eq!(spec().check(), Ok(()));
    }

    #[test]
    fn zero_and_absurd_limits_are_refused_with_their_own_error() {
        type Spoil = fn(&mut ContainerSpec);
        let cases: [(Spoil, Code); 8] = [
            (|s| s.image = None, Code::InvalidArgument),
            (|s| s.disk = ByteSize(0), Code::InvalidSize),
            (|s| s.limits.memory = Some(ByteSize(1)), Code::InvalidSize),
            (|s| s.limits.cpu_milli = Some(0), Code::InvalidSize),
            (|s| s.limits.pids = Some(0), Code::InvalidSize),
            (|s| s.copies = 0, Code::InvalidArgument),
            (|s| s.replicate_every_ms = 10, Code::InvalidArgument),
            (|s| s.env = [("A".into(), "x".repeat(40_000))].into(), Code::TooLarge),
        ];
        for (spoil, code) in cases {
            let mut s = spec();
            spoil(&mut s);
            assert_eq!(s.check().map_err(|e| e.code()), Err(code));
        }
    }

    #[test]
    fn a_promise_tighter_than_the_interval_is_refused() {
        let s = ContainerSpec { max_data_loss_ms: 4_000, ..spec() };
        assert!(matches!(s.check(), Err(SpecError::MaxDataLoss { .. })));
    }

    #[test]
    fn data_volumes_are_few_distinct_and_of_some_size() {
        let of = |texts: &[&str]| ContainerSpec {
            volumes: texts.iter().map(|t| t.parse().unwrap()).collect(),
            ..spec()
        };
        let good = of(&["a=1GiB:/srv", "b=2GiB:/srv/b"]);
        assert_eq!((good.check(), good.promised()), (Ok(()), ByteSize::gib(4)));
        let code = |texts: &[&str]| of(texts).check().unwrap_err().code();
        assert_eq!(code(&["a=1MiB:/srv"]), Code::InvalidSize);
        assert_eq!(code(&["a=1GiB:/srv", "a=1GiB:/var"]), Code::InvalidArgument);
        assert_eq!(code(&["a=1GiB:/srv", "b=1GiB:/srv"]), Code::InvalidArgument);
        let many: Vec<String> = (0..8).map(|i| format!("v{i}=1GiB:/v{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(code(&many), Code::InvalidArgument);
    }

    #[test]
    fn hostile_texts_are_refused() {
        let s = ContainerSpec { command: vec!["sh\nlxc.hook = x".into()], ..spec() };
        assert_eq!(s.check(), Err(SpecError::Text("command")));
    }
}

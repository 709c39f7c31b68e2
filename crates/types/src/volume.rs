//! Data volumes: what a container keeps beside its root.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::size::SizeError;
use crate::{ByteSize, Code, NameError, VolumeName};

/// Longest path of a data volume, in bytes.
const MAX_PATH: usize = 255;
/// Below these the kernel's own filesystems are mounted.
const RESERVED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A text that is no place for a data volume, or no data volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// It is not of the form `name=size:path`.
    #[error("{0:?} is no data volume: write name=size:path, such as data=50GiB:/srv")]
    Form(String),
    /// The path is relative, not normal, of other characters, or too long.
    #[error(
        "{0:?} is no path for a volume: use an absolute one of letters, digits and . _ - without empty parts, . or .."
    )]
    Path(String),
    /// Something else is there.
    #[error(
        "a volume cannot be at {0}: the root, and what is below /proc, /sys and /dev, is taken"
    )]
    Reserved(String),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The size is none.
    #[error(transparent)]
    Size(#[from] SizeError),
}

impl VolumeError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::Form(_) | Self::Path(_) | Self::Reserved(_) => Code::InvalidArgument,
            Self::Name(e) => e.code(),
            Self::Size(e) => e.code(),
        }
    }
}

/// Where in a container a data volume is: an absolute path in its normal form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountPath(String);

impl MountPath {
    /// The path itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts, from the root on; never empty.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1)
    }

    /// What is left of the path below `above`, if it is there.
    pub fn below(&self, above: &Self) -> Option<&str> {
        self.0.strip_prefix(above.as_str())?.strip_prefix('/')
    }
}

impl FromStr for MountPath {
    type Err = VolumeError;
    fn from_str(s: &str) -> Result<Self, VolumeError> {
        let cut = || s.chars().take(80).collect();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let part = |p: &str| !p.is_empty() && p != "." && p != ".." && p.chars().all(plain);
        if s == "/" {
            return Err(VolumeError::Reserved(s.to_owned()));
        }
        let mut parts = s.split('/').skip(1);
        if s.len() > MAX_PATH || !s.starts_with('/') || !parts.all(part) {
            return Err(VolumeError::Path(cut()));
        }
        let path = Self(s.to_owned());
        let taken = |at: &str| path.0 == at || path.below(&Self(at.to_owned())).is_some();
        if RESERVED.into_iter().any(taken) {
            return Err(VolumeError::Reserved(cut()));
        }
        Ok(path)
    }
}

impl TryFrom<String> for MountPath {
    type Error = VolumeError;
    fn try_from(s: String) -> Result<Self, VolumeError> {
        s.parse()
    }
}

impl From<MountPath> for String {
    fn from(path: MountPath) -> String {
        path.0
    }
}

impl fmt::Display for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A volume beside a container's root: snapshotted, shipped and promoted as one set with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataVolume {
    /// Its name, unique in the container.
    pub name: VolumeName,
    /// Its size.
    pub size: ByteSize,
    /// Where the container has it.
    pub path: MountPath,
}

impl FromStr for DataVolume {
    type Err = VolumeError;

    /// Reads `name=size:path`.
    fn from_str(s: &str) -> Result<Self, VolumeError> {
        let form = || VolumeError::Form(s.chars().take(80).collect());
        let (name, rest) = s.split_once('=').ok_or_else(form)?;
        let (size, path) = rest.split_once(':').ok_or_else(form)?;
        Ok(Self { name: name.parse()?, size: size.parse()?, path: path.parse()? })
    }
}

impl fmt::Display for DataVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.name, self.size, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_reads_and_prints_as_the_same() {
        let volume: DataVolume = "data=50GiB:/srv/a_b.c".parse().unwrap();
        assert_eq!(volume.to_string(), "data=50GiB:/srv/a_b.c");
        assert_eq!(volume.path.parts().collect::<Vec<_>>(), ["srv", "a_b.c"]);
        for bad in ["", "data", "data=1GiB", "1GiB:/srv", "Data=1GiB:/srv", "data=1GB:/srv"] {
            assert!(bad.parse::<DataVolume>().is_err(), "{bad}");
        }
    }

    /// The path ends up in LXC's configuration, and directories are made along it.
    #[test]
    fn paths_are_absolute_normal_and_plain() {
        let long = format!("/{}", "a".repeat(255));
        let odd =
            ["srv", "", "//", "/srv/", "/srv//a", "/srv/../etc", "/./a", "/a b", "/a\nb", "/ä"];
        for bad in odd.into_iter().chain([long.as_str()]) {
            assert!(matches!(bad.parse::<MountPath>(), Err(VolumeError::Path(_))), "{bad}");
        }
        for taken in ["/", "/proc", "/sys/fs/cgroup", "/dev/shm"] {
            assert!(matches!(taken.parse::<MountPath>(), Err(VolumeError::Reserved(_))), "{taken}");
        }
        assert!("/devices".parse::<MountPath>().is_ok());
    }

    #[test]
    fn what_is_below_a_path_is_told_by_parts() {
        let path = |s: &str| s.parse::<MountPath>().unwrap();
        assert_eq!(path("/srv/db/1").below(&path("/srv")), Some("db/1"));
        assert_eq!(path("/srv2").below(&path("/srv")), None);
        assert_eq!(path("/srv").below(&path("/srv")), None);
    }
}

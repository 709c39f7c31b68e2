//! Names of network devices, checked, and the names that we give.

use std::fmt;
use std::str::FromStr;

use holdfast_types::ContainerUid;

use crate::NetworkError;

/// The longest name of a network device, in bytes (`IFNAMSIZ` less its NUL).
const MAX_LEN: usize = 15;

/// The name of a network device: 1 to 15 visible ASCII characters without `/` and `:`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host side of a container's veth pair.
    pub fn host_side(uid: ContainerUid) -> Self {
        Self(format!("hv{}", tail(uid)))
    }

    /// The container side of a container's veth pair, before it is moved and renamed.
    pub fn container_side(uid: ContainerUid) -> Self {
        Self(format!("hc{}", tail(uid)))
    }
}

/// The last 11 of a uid's hexadecimal digits: 44 of the bits that UUIDv7 draws at random, and the
/// part that a person can match by eye. Should two ever agree, the alias tells them apart and the
/// second is refused.
fn tail(uid: ContainerUid) -> String {
    let text = uid.0.simple().to_string();
    text[text.len() - 11..].to_owned()
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for IfName {
    type Err = NetworkError;
    fn from_str(s: &str) -> Result<Self, NetworkError> {
        let fine = (1..=MAX_LEN).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
            && s != "."
            && s != "..";
        if fine {
            Ok(Self(s.to_owned()))
        } else {
            Err(NetworkError::BadName { text: s.chars().take(80).collect() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        for good in ["hf0", "a", "enp3s0.100", "abcdefghijklmno"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "a:b", "abcdefghijklmnop", "ä", "a\n"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_containers_names_follow_from_its_uid() {
        let uid: ContainerUid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(IfName::host_side(uid).as_str(), "hv302099a8057");
        assert_eq!(IfName::container_side(uid).as_str(), "hc302099a8057");
        assert!(IfName::host_side(uid).as_str().parse::<IfName>().is_ok());
    }
}

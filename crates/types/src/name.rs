//! Names people give: RFC 1123 labels.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Code;

/// A name that is no RFC 1123 label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a valid {what} name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
)]
pub struct NameError {
    /// What was to be named.
    pub what: &'static str,
    /// The text as given, cut to 80 characters.
    pub text: String,
}

impl NameError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        Code::InvalidName
    }
}

/// Longest label of RFC 1123 (and 1035), in octets.
const MAX_LABEL_LEN: usize = 63;

fn is_label(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = s.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            bytes.len() <= MAX_LABEL_LEN
                && inner(first)
                && inner(last)
                && bytes.iter().all(|&b| inner(b) || b == b'-')
        }
        _ => false,
    }
}

/// Reads a text that is to be a `T`, without a copy of it in between.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> serde::de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// Clones share the text.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The label itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                if is_label(s) {
                    Ok(Self(s.into()))
                } else {
                    Err(NameError { what: $what, text: s.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(PhantomData))
            }
        }
    };
}

label!(
    /// A node's name, unique in its cluster.
    NodeName, "node"
);
label!(
    /// A container's name, unique in its cluster while it exists.
    ContainerName, "container"
);
label!(
    /// An image's name, unique in its cluster while it exists.
    ImageName, "image"
);
label!(
    /// A data volume's name, unique in its container.
    VolumeName, "volume"
);
label!(
    /// A pool's name. The volume group that is made for it has the same.
    PoolName, "pool"
);

label!(
    /// A label's key. `domain` names the failure domain.
    LabelKey, "label"
);

label!(
    /// A kept snapshot's name, unique in its container while it exists.
    SnapshotName, "snapshot"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "web", "web-1", "1", "a".repeat(63).as_str()] {
            assert!(good.parse::<ContainerName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "Web", "a.b", "a_b", "ä", "a b", "../x", &"a".repeat(64)] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_from_disk_is_checked_too() {
        assert!(serde_name("\"../etc\"").is_err());
        fn serde_name(text: &str) -> Result<NodeName, String> {
            NodeName::try_from(text.trim_matches('"').to_owned()).map_err(|e| e.to_string())
        }
    }
}

//! Names of cgroups below the ancestor.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use holdfast_types::Code;
use serde::{Deserialize, Serialize};

/// A text that names no cgroup below the ancestor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no cgroup below the ancestor: use 1 to 4 names joined by '/', each 1 to 128 of a-z, A-Z, 0-9, '-', '_', '.', '@' or ':', not beginning with '.' or \"cgroup.\""
)]
pub struct ChildPathError {
    /// The text as given, cut to 80 characters.
    pub text: String,
}

impl ChildPathError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// The path of a cgroup relative to the ancestor, such as `web` or `web/payload`.
///
/// It cannot name the ancestor itself, leave it, or name one of its control files: only the
/// guardian freezes and kills the ancestor (DESIGN section 5, rule 3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChildPath(String);

const MAX_DEPTH: usize = 4;
const MAX_NAME_LEN: usize = 128;

impl ChildPath {
    /// The path, relative to the ancestor.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_cgroup_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.@:".contains(&b);
    (1..=MAX_NAME_LEN).contains(&name.len())
        && !name.starts_with('.')
        && !name.starts_with("cgroup.")
        && name.bytes().all(allowed)
}

impl FromStr for ChildPath {
    type Err = ChildPathError;
    fn from_str(s: &str) -> Result<Self, ChildPathError> {
        if s.split('/').count() <= MAX_DEPTH && s.split('/').all(is_cgroup_name) {
            Ok(Self(s.to_owned()))
        } else {
            Err(ChildPathError { text: s.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for ChildPath {
    type Error = ChildPathError;
    fn try_from(s: String) -> Result<Self, ChildPathError> {
        s.parse()
    }
}

impl From<ChildPath> for String {
    fn from(path: ChildPath) -> String {
        path.0
    }
}

impl fmt::Display for ChildPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 3: nobody but the guardian touches the ancestor itself, and nothing outside it is
    /// reached by asking the guardian (I27).
    #[test]
    fn only_names_below_the_ancestor_are_accepted() {
        for good in ["web", "web/payload", "a/b/c/d", "lxc.monitor.web", "x@1"] {
            assert!(good.parse::<ChildPath>().is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in [
            "",
            ".",
            "..",
            "/",
            "/web",
            "web/",
            "web//x",
            "../x",
            "web/../..",
            "a/b/c/d/e",
            "cgroup.kill",
            "web/cgroup.procs",
            "a b",
            "a\0b",
            "a\nb",
            "ä",
            long.as_str(),
        ] {
            assert!(bad.parse::<ChildPath>().is_err(), "{bad:?}");
        }
    }
}

//! Names of volume groups and logical volumes.

use std::fmt;
use std::str::FromStr;

use super::Refusal;

/// A name that LVM takes for a group or a volume (lvm(8), *VALID NAMES*), and no option of a
/// command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// A name that is written in this program.
    pub(super) fn ours(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// As LVM has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Refusal;

    fn from_str(s: &str) -> Result<Self, Refusal> {
        let ok = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
        let good = (1..=60).contains(&s.len())
            && !s.starts_with('-')
            && s != "."
            && s != ".."
            && s.chars().all(ok);
        match good {
            true => Ok(Self(s.to_owned())),
            false => Err(Refusal::BadName { name: s.chars().take(80).collect() }),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name with shell characters is no name, nor is one that would be an option.
    #[test]
    fn names_that_are_no_names_are_refused() {
        for good in ["vg", "vg-0", "a+b_c.d"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        let long = "x".repeat(61);
        for bad in ["", "-vg", "a b", "$(reboot)", "a/b", "..", "a;b", "a\nb", "ä", &long] {
            let refused = bad.parse::<Name>().unwrap_err();
            assert!(matches!(refused, Refusal::BadName { .. }), "{bad}");
        }
    }
}

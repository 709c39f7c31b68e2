//! Sizes in bytes, written in IEC units (`10GiB`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Code;

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: write a whole number with an IEC unit, such as 512MiB or 10GiB")]
pub struct SizeError {
    /// The text as given, cut to 80 characters.
    pub text: String,
}

impl SizeError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        Code::InvalidSize
    }
}

/// A number of bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl ByteSize {
    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    /// Exact where a unit divides the value, else one decimal of the largest unit that fits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match UNITS.iter().find(|(_, unit)| self.0 >= *unit) {
            None => format!("{}B", self.0),
            Some((name, unit)) if self.0.is_multiple_of(*unit) => {
                format!("{}{name}", self.0 / unit)
            }
            Some((name, unit)) => format!("{:.1}{name}", self.0 as f64 / *unit as f64),
        };
        f.pad(&text)
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    /// Accepts `10GiB`, `10G` (the same), `512MiB`, `4096B` and plain bytes.
    fn from_str(s: &str) -> Result<Self, SizeError> {
        let err = || SizeError { text: s.chars().take(80).collect() };
        let digits = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let number: u64 = s[..digits].parse().map_err(|_| err())?;
        let unit = match &s[digits..] {
            "" | "B" => 1,
            suffix => UNITS
                .iter()
                .find(|(name, _)| suffix == *name || suffix == &name[..1])
                .map(|(_, unit)| *unit)
                .ok_or_else(err)?,
        };
        number.checked_mul(unit).map(Self).ok_or_else(err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in
            [("10GiB", 10 << 30), ("10G", 10 << 30), ("1KiB", 1024), ("7", 7), ("7B", 7)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        assert_eq!(ByteSize::gib(10).to_string(), "10GiB");
        assert_eq!(ByteSize(1536 << 20).to_string(), "1.5GiB");
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for bad in ["", "GiB", "-1GiB", "1.5GiB", "10GB", "99999999999999TiB", "1 GiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}

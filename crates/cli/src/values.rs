//! Values of the command line that are nobody else's business, as newtypes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use holdfast_types::{Code, LabelError, LabelKey, LabelValue, NameError};

/// A text that is not the value that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("{0:?} is not a duration: write a whole number with a unit, such as 500ms, 5s or 2m")]
    Duration(String),
    #[error("{0:?} is not a number of cores: write 0.001 to 4096, such as 0.5 or 2")]
    Cpus(String),
    #[error("{0:?} is not an environment variable: write NAME=VALUE")]
    Env(String),
    #[error("{0:?} is not a label: write KEY=VALUE")]
    Label(String),
    #[error(transparent)]
    LabelKey(#[from] NameError),
    #[error(transparent)]
    LabelValue(#[from] LabelError),
}

impl ValueError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Duration(_) | Self::Env(_) | Self::Label(_) => Code::InvalidArgument,
            Self::LabelKey(error) => error.code(),
            Self::LabelValue(error) => error.code(),
            Self::Cpus(_) => Code::InvalidSize,
        }
    }
}

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelArg {
    pub(crate) key: LabelKey,
    pub(crate) value: LabelValue,
}

impl FromStr for LabelArg {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        let (key, value) = s.split_once('=').ok_or_else(|| ValueError::Label(cut(s)))?;
        Ok(Self { key: key.parse()?, value: value.parse()? })
    }
}

/// `500ms`, `5s`, `2m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DurationArg(pub(crate) Duration);

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl DurationArg {
    pub(crate) fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub(crate) fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for DurationArg {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        let err = || ValueError::Duration(cut(s));
        let digits = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let number: u64 = s[..digits].parse().map_err(|_| err())?;
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &s[digits..]).ok_or_else(err)?;
        let millis = number.checked_mul(*unit).ok_or_else(err)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for DurationArg {
    /// The largest unit that divides it, so that it reads back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let fits = |unit: u64| millis.is_multiple_of(unit) && millis > 0;
        match UNITS.iter().find(|(_, unit)| fits(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", millis / unit),
            None => f.write_str("0s"),
        }
    }
}

/// CPU time in cores, with at most three decimals; held in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpus {
    pub(crate) milli: u32,
}

impl FromStr for Cpus {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        let err = || ValueError::Cpus(cut(s));
        let (whole, decimals) = s.split_once('.').unwrap_or((s, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
            return Err(err());
        }
        let whole: u32 = whole.parse().map_err(|_| err())?;
        let milli: u32 = format!("{decimals:0<3}").parse().map_err(|_| err())?;
        let milli = whole.checked_mul(1_000).and_then(|w| w.checked_add(milli));
        milli.map(|milli| Self { milli }).ok_or_else(err)
    }
}

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvVar {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for EnvVar {
    type Err = ValueError;
    fn from_str(s: &str) -> Result<Self, ValueError> {
        match s.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(ValueError::Env(cut(s))),
        }
    }
}

fn cut(s: &str) -> String {
    s.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_the_same() {
        for (text, millis) in [("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000)] {
            let duration: DurationArg = text.parse().unwrap();
            assert_eq!(duration.millis(), millis);
            assert_eq!(duration.to_string(), text);
        }
        assert_eq!("0s".parse::<DurationArg>().unwrap().to_string(), "0s");
        for bad in ["", "5", "s", "-1s", "1.5s", "5 s", "5S", "99999999999999999999h", "5d"] {
            assert!(bad.parse::<DurationArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cores_are_read_to_the_thousandth() {
        for (text, milli) in [("0.5", 500), ("2", 2_000), ("0.001", 1), ("1.25", 1_250)] {
            assert_eq!(text.parse(), Ok(Cpus { milli }), "{text}");
        }
        for bad in ["", ".", "1.", ".5", "-1", "0.0001", "1e3", "99999999999"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }

    #[test]
    fn environment_variables_may_have_empty_values_but_no_empty_names() {
        let var = EnvVar { name: "A".into(), value: "b=c".into() };
        assert_eq!("A=b=c".parse(), Ok(var));
        assert!("A=".parse::<EnvVar>().is_ok());
        assert!("=b".parse::<EnvVar>().is_err());
        assert!("A".parse::<EnvVar>().is_err());
    }
}

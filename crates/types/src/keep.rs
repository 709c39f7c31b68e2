//! How many scheduled snapshots are kept: `hourly=24,daily=7`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Code, TimestampMs};

/// All rules of a schedule together keep so many at most, which leaves room for people's own.
const MAX_TOTAL: u32 = 100;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A stretch of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Period {
    /// A minute.
    Minutely,
    /// An hour.
    Hourly,
    /// A day.
    Daily,
    /// A week, from Monday.
    Weekly,
    /// A month.
    Monthly,
}

impl Period {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Minutely, "minutely"),
        (Self::Hourly, "hourly"),
        (Self::Daily, "daily"),
        (Self::Weekly, "weekly"),
        (Self::Monthly, "monthly"),
    ];

    /// The number of the stretch that holds that moment: later stretches have higher ones.
    pub fn number(self, at: TimestampMs) -> u64 {
        /// 1970-01-01 was a Thursday.
        const DAYS_FROM_MONDAY: u64 = 3;
        match self {
            Self::Minutely => at.0 / MINUTE_MS,
            Self::Hourly => at.0 / HOUR_MS,
            Self::Daily => at.0 / DAY_MS,
            Self::Weekly => (at.0 / DAY_MS + DAYS_FROM_MONDAY) / 7,
            Self::Monthly => {
                let date = at.date();
                date.year * 12 + date.month
            }
        }
    }

    fn as_str(self) -> &'static str {
        let named = Self::ALL.iter().find(|(period, _)| *period == self);
        named.map_or("", |(_, name)| name)
    }
}

/// Of how many minutes, hours, days, weeks and months the newest snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Period, u16>", into = "BTreeMap<Period, u16>")]
pub struct KeepRules(BTreeMap<Period, u16>);

/// A text that is no keep rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Not of the form.
    #[error(
        "{0:?} is no keep rule: write minutely, hourly, daily, weekly or monthly with a number, such as hourly=24,daily=7"
    )]
    Form(String),
    /// One period twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// Nothing, or more than a container may have.
    #[error("the rules keep {0} snapshots: use 1 to {MAX_TOTAL}")]
    Total(u32),
}

impl KeepError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

impl KeepRules {
    /// Each period, and of how many of them the newest snapshot is kept.
    pub fn iter(&self) -> impl Iterator<Item = (Period, usize)> + '_ {
        self.0.iter().map(|(period, count)| (*period, usize::from(*count)))
    }
}

impl TryFrom<BTreeMap<Period, u16>> for KeepRules {
    type Error = KeepError;
    fn try_from(rules: BTreeMap<Period, u16>) -> Result<Self, KeepError> {
        let total = rules.values().map(|count| u32::from(*count)).sum();
        match (1..=MAX_TOTAL).contains(&total) && rules.values().all(|count| *count > 0) {
            true => Ok(Self(rules)),
            false => Err(KeepError::Total(total)),
        }
    }
}

impl From<KeepRules> for BTreeMap<Period, u16> {
    fn from(rules: KeepRules) -> Self {
        rules.0
    }
}

impl FromStr for KeepRules {
    type Err = KeepError;
    fn from_str(s: &str) -> Result<Self, KeepError> {
        let form = || KeepError::Form(s.chars().take(80).collect());
        let mut rules = BTreeMap::new();
        for rule in s.split(',') {
            let (name, count) = rule.split_once('=').ok_or_else(form)?;
            let named = Period::ALL.iter().find(|(_, known)| *known == name);
            let (period, name) = named.ok_or_else(form)?;
            if !count.bytes().all(|b| b.is_ascii_digit()) {
                return Err(form());
            }
            let count: u16 = count.parse().map_err(|_| form())?;
            if rules.insert(*period, count).is_some() {
                return Err(KeepError::Twice(name));
            }
        }
        Self::try_from(rules)
    }
}

impl fmt::Display for KeepRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (period, count)) in self.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}={count}", period.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_and_print_as_the_same() {
        let rules: KeepRules = "daily=7,hourly=24".parse().unwrap();
        assert_eq!(rules.to_string(), "hourly=24,daily=7");
        assert_eq!(rules.to_string().parse(), Ok(rules));
        for bad in ["", "hourly", "hourly=", "hourly=-1", "hourly=+1", "hourly=0", "yearly=1"] {
            assert!(bad.parse::<KeepRules>().is_err(), "{bad}");
        }
        for bad in ["hourly=1,hourly=2", "hourly=99,daily=2", "hourly=65536", "hourly=1;daily=1"] {
            assert!(bad.parse::<KeepRules>().is_err(), "{bad}");
        }
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let at = |ms| TimestampMs(ms);
        // Sunday 2026-11-22 23:59:59.999 and the Monday after it.
        let (sunday, monday) = (at(1_795_391_999_999), at(1_795_392_000_000));
        assert_eq!(Period::Weekly.number(sunday) + 1, Period::Weekly.number(monday));
        assert_eq!(Period::Monthly.number(sunday), Period::Monthly.number(monday));
        // 2026-11-30 and 2026-12-01, then 2027-01-01.
        let (november, december) = (at(1_796_083_199_999), at(1_796_083_200_000));
        assert_eq!(Period::Monthly.number(november) + 1, Period::Monthly.number(december));
        let january = at(1_798_761_600_000);
        assert_eq!(Period::Monthly.number(december) + 1, Period::Monthly.number(january));
    }
}

//! Wall-clock instants. For people and event lists only: no safety decision reads them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC, as the proposer of an entry saw them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TimestampMs(pub u64);

impl TimestampMs {
    /// This instant less `age_ms`; zero at the earliest.
    pub fn before(self, age_ms: u64) -> Self {
        Self(self.0.saturating_sub(age_ms))
    }

    /// Milliseconds from `earlier` to this instant; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A day of the civil calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: u64,
    /// From 1.
    pub(crate) month: u64,
    /// From 1.
    pub(crate) day: u64,
}

impl TimestampMs {
    /// The day in UTC (Hinnant, *chrono-Compatible Low-Level Date Algorithms*, `civil_from_days`).
    pub(crate) fn date(self) -> Date {
        /// Days from 0000-03-01 to 1970-01-01.
        const TO_EPOCH: u64 = 719_468;
        const DAYS_OF_ERA: u64 = 146_097;
        let days = self.0 / 86_400_000 + TO_EPOCH;
        let (era, of_era) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Date { year, month, day }
    }

    /// The second in UTC as part of a name: `20261123t101500z`.
    pub fn in_a_name(self) -> String {
        let Date { year, month, day } = self.date();
        let second = self.0 / 1_000 % 86_400;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        format!("{year:04}{month:02}{day:02}t{hour:02}{minute:02}{second:02}z")
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_named_by_the_civil_calendar() {
        for (ms, name) in [
            (0, "19700101t000000z"),
            (951_782_400_000, "20000229t000000z"),
            (1_709_164_800_000, "20240229t000000z"),
            (1_795_428_900_999, "20261123t101500z"),
            (4_107_542_399_000, "21000228t235959z"),
            (4_107_542_400_000, "21000301t000000z"),
        ] {
            assert_eq!(TimestampMs(ms).in_a_name(), name);
        }
    }
}

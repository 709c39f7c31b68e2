//! The clocks. No decision about containers reads the time of day; people, schedules and certificates do.

use std::fs;

use holdfast_fence::guardian::DEFAULT_RTC;

use super::{Finding, sys};

#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    steered: bool,
    /// Whether the real-time clock's seconds can be read.
    rtc: bool,
}

impl Facts {
    pub(super) fn gather() -> Self {
        let seconds = fs::read_to_string(DEFAULT_RTC);
        let rtc = seconds.is_ok_and(|text| text.trim().parse::<u64>().is_ok());
        Self { steered: sys::clock_is_steered(), rtc }
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![clock(facts.steered), rtc(facts.rtc)]
}

fn clock(steered: bool) -> Finding {
    const NAME: &str = "clock";
    if steered {
        return Finding::ok(NAME, "the time is synchronised");
    }
    let what = "the time is not synchronised: events, schedules of snapshots and the validity of \
                certificates go by it";
    Finding::warning(NAME, what, "apt-get install chrony, and let it reach its servers")
}

fn rtc(readable: bool) -> Finding {
    const NAME: &str = "rtc";
    if readable {
        return Finding::ok(NAME, "the real-time clock can be read");
    }
    let what = format!("{DEFAULT_RTC} cannot be read: a pause of a virtual machine goes unnoticed");
    let cure = "give the virtual machine a real-time clock, and its kernel the driver (rtc_cmos); \
                until then never pause or restore it";
    Finding::warning(NAME, what, cure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn clocks_are_worth_a_warning() {
        for (steered, of_clock) in [(true, Grade::Ok), (false, Grade::Warning)] {
            for (rtc, of_rtc) in [(true, Grade::Ok), (false, Grade::Warning)] {
                let found = check(&Facts { steered, rtc });
                assert_eq!((found[0].grade, found[1].grade), (of_clock, of_rtc));
            }
        }
    }
}

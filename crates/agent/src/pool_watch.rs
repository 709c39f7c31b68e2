//! Watches how full the pool is, and says so before it hurts.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::internal;
use holdfast_storage::Capacity;
use holdfast_types::Report;
use tracing::warn;

use crate::context::Context;
use crate::error::blocking;
use crate::report;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Past this, operators are told.
const WARN_PERCENT: u8 = 80;

/// So far below a mark it counts as left: a pool at the mark must not be told of at each look.
const CALM_PERCENT: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Fine,
    Filling,
    Full,
}

impl Level {
    /// The level of a pool so full, of which `told` was said last.
    fn of(percent: u8, threshold_percent: u8, told: Self) -> Self {
        let at = |percent: u8| match percent {
            p if p >= threshold_percent => Self::Full,
            p if p >= WARN_PERCENT => Self::Filling,
            _ => Self::Fine,
        };
        at(percent).max(told.min(at(percent.saturating_add(CALM_PERCENT))))
    }
}

/// Watches for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let mut told = Level::Fine;
    loop {
        if let Some(parts) = context.parts() {
            let pool = parts.pool.clone();
            match blocking(move || pool.capacity()).await {
                Ok(capacity) => {
                    context.set_capacity(message(&parts.driver, &capacity));
                    told = tell(&context, &capacity, told).await;
                }
                Err(error) => warn!(error = %error.line(), "the pool cannot be measured"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn message(driver: &str, capacity: &Capacity) -> internal::Capacity {
    internal::Capacity {
        driver: driver.to_owned(),
        size_bytes: capacity.size.bytes(),
        used_bytes: capacity.used.bytes(),
        promised_bytes: capacity.promised.bytes(),
        admits: capacity.admit(holdfast_types::ByteSize(0)).is_ok(),
    }
}

async fn tell(context: &Context, capacity: &Capacity, told: Level) -> Level {
    let percent = capacity.used_percent();
    let level = Level::of(percent, capacity.threshold_percent, told);
    if level == told {
        return told;
    }
    let (kind, message) = match level {
        Level::Fine => ("pool-ok", format!("the pool is at {percent} % again")),
        Level::Filling => ("pool-filling", format!("the pool is at {percent} %")),
        Level::Full => (
            "pool-full",
            format!(
                "the pool is at {percent} %: nothing new is admitted, replicas are not received"
            ),
        ),
    };
    let report = Report::Notice { kind: kind.to_owned(), uid: None, message };
    match report::send(context, &report).await {
        Ok(()) => level,
        Err(_) => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I20: operators hear of it before and when admission stops, and not at each look.
    #[test]
    fn a_pool_is_told_of_once_at_each_mark() {
        let mut told = Level::Fine;
        let mut levels = Vec::new();
        for percent in [70, 80, 79, 80, 91, 89, 90, 87, 78, 77] {
            told = Level::of(percent, 90, told);
            levels.push(told);
        }
        use Level::{Filling, Fine, Full};
        let expected = [Fine, Filling, Filling, Filling, Full, Full, Full, Filling, Filling, Fine];
        assert_eq!(levels, expected);
    }
}

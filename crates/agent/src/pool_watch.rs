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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Fine,
    Filling,
    Full,
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
    let level = match percent {
        p if p >= capacity.threshold_percent => Level::Full,
        p if p >= WARN_PERCENT => Level::Filling,
        _ => Level::Fine,
    };
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

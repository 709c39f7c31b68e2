//! Waiting for a condition, never for luck.

use std::time::{Duration, Instant};

use crate::LabError;

/// Calls `done` every few milliseconds until it says so; after `limit` it is an error that names
/// `what` was waited for.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut done: impl FnMut() -> Result<bool, LabError>,
) -> Result<(), LabError> {
    let end = Instant::now() + limit;
    loop {
        if done()? {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(LabError::Deadline { what: what.to_owned(), seconds: limit.as_secs() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

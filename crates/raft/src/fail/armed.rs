//! What a point does in the tests: it counts, and where it is armed it kills or fails, once.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

/// Every point there is. One that is reached and not listed, or listed and never reached, fails
/// the tests.
pub(crate) const POINTS: &[&str] = &[
    "identity.created",
    "identity.written",
    "identity.synced",
    "identity.renamed",
    "identity.durable",
    "log.tail.created",
    "log.tail.written",
    "log.tail.synced",
    "log.tail.renamed",
    "log.tail.durable",
    "open.begun",
    "open.opened",
    "open.proved",
    "open.durable",
    "append.begun",
    "append.written",
    "flush.begun",
    "flush.flushed",
    "flush.synced",
    "tail.written",
    "tail.synced",
    "flush.recorded",
    "vote.begun",
    "vote.written",
    "vote.durable",
    "truncate.begun",
    "truncate.recorded",
    "truncate.removed",
    "truncate.durable",
    "purge.begun",
    "purge.marked",
    "purge.durable",
    "purge.deleted",
    "snapshot.created",
    "snapshot.written",
    "snapshot.synced",
    "snapshot.renamed",
    "snapshot.durable",
    "install.begun",
    "install.kept",
];

/// What an armed point does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL.
    Kill,
    /// The disk cannot.
    Io,
    /// The disk is full.
    Full,
}

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Io => "EIO",
            Self::Full => "ENOSPC",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Kill, Self::Io, Self::Full].into_iter().find(|fault| fault.name() == name)
    }
}

/// A fault at the `nth` passing of a point, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) point: String,
    pub(crate) nth: u64,
    pub(crate) fault: Fault,
}

#[derive(Default)]
struct Armed {
    plan: Option<Plan>,
    passed: Option<BTreeMap<String, u64>>,
}

static ARMED: Mutex<Armed> = Mutex::new(Armed { plan: None, passed: None });

/// Counts from now on, and does what is planned.
pub(crate) fn arm(plan: Option<Plan>) {
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    *armed = Armed { plan, passed: Some(BTreeMap::new()) };
}

/// How often each point was passed since [`arm`].
pub(crate) fn passed() -> BTreeMap<String, u64> {
    let armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    armed.passed.clone().unwrap_or_default()
}

pub(crate) fn at(point: &str) -> io::Result<()> {
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    let Armed { plan, passed: Some(passed) } = &mut *armed else { return Ok(()) };
    assert!(POINTS.contains(&point), "{point} is not listed");
    let times = passed.entry(point.to_owned()).or_default();
    *times += 1;
    match plan {
        Some(plan) if plan.point == point && plan.nth == *times => match plan.fault {
            Fault::Kill => {
                kill_process(getpid(), Signal::KILL).expect("this process");
                // Nothing more is done while the signal is on its way.
                loop {
                    std::thread::park();
                }
            }
            Fault::Io => Err(Errno::IO.into()),
            Fault::Full => Err(Errno::NOSPC.into()),
        },
        _ => Ok(()),
    }
}

pub(crate) fn at_file(file: &Path, step: &str) -> io::Result<()> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // Tests of single files call theirs what they like.
    let point = format!("{name}.{step}");
    at(&point)
}

//! The guardian: whether it runs, and what the host lets it do to be punctual.

use std::fs;

use holdfast_fence::GuardianClient;
use holdfast_fence::protocol::{Hardening, Status};
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::Config;

/// More than it has mapped.
const LOCKED_BYTES: u64 = 64 << 20;

/// `CAP_IPC_LOCK` (linux/capability.h): who has it locks without limit.
const IPC_LOCK: u64 = 1 << 14;

#[derive(Debug, Clone)]
pub(super) struct Facts {
    socket: String,
    /// Its account, or why there is none.
    status: Result<Box<Status>, String>,
    /// How much memory a process started here may lock; nothing for as much as it likes.
    may_lock_bytes: Option<u64>,
}

impl Facts {
    pub(super) fn gather(config: &Config) -> Self {
        let socket = &config.guardian.socket;
        let status = GuardianClient::connect(socket).and_then(|mut client| client.status());
        let limited = !has_capability(IPC_LOCK);
        Self {
            socket: socket.display().to_string(),
            status: status.map(Box::new).map_err(|e| e.to_string()),
            may_lock_bytes: getrlimit(Resource::Memlock).current.filter(|_| limited),
        }
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    match &facts.status {
        Ok(status) => {
            let mut found =
                vec![Finding::ok("guardian", format!("it answers at {}", facts.socket))];
            found.extend(hardening(status.hardening));
            found
        }
        Err(why) => {
            let cure = "systemctl enable --now holdfast-guardian; without it no container starts";
            vec![Finding::warning("guardian", why, cure), memory_lock(facts.may_lock_bytes)]
        }
    }
}

/// What the host refused. Its real-time clock is another file's.
fn hardening(given: Hardening) -> Vec<Finding> {
    let Hardening { memory_locked, realtime, oom_exempt, mounts_propagate, rtc: _ } = given;
    let late = "it runs as any other process: on a busy machine it may be late, and kill instead of freezing";
    [
        (
            memory_locked,
            Finding::warning(
                "guardian-memory",
                "its memory is not locked: where memory is short it may be late",
                "start it with LimitMEMLOCK=infinity, as its unit does",
            ),
        ),
        (
            realtime,
            Finding::warning(
                "guardian-realtime",
                late,
                "start it with LimitRTPRIO=50, as its unit does, in a group with a real-time share",
            ),
        ),
        (
            oom_exempt,
            Finding::warning(
                "guardian-oom",
                "the OOM killer may choose it, and every protected container with it",
                "start it with OOMScoreAdjust=-1000, as its unit does",
            ),
        ),
        (
            mounts_propagate,
            Finding::problem(
                "guardian-mounts",
                "the root mount is not shared: volumes do not appear to protected containers",
                "mount --make-rshared /, and start the guardian anew, in no mount namespace of its own",
            ),
        ),
    ]
    .into_iter()
    .map(|(given, refused)| match given {
        true => Finding::ok(refused.name, "as it should be"),
        false => refused,
    })
    .collect()
}

fn memory_lock(may_lock_bytes: Option<u64>) -> Finding {
    const NAME: &str = "guardian-memory";
    match may_lock_bytes {
        Some(bytes) if bytes < LOCKED_BYTES => Finding::warning(
            NAME,
            format!("what is started from here may lock {bytes} bytes, and no more"),
            "start the guardian by its unit, or after ulimit -l unlimited",
        ),
        _ => Finding::ok(NAME, "its memory can be locked"),
    }
}

/// Whether this process has it in effect (proc(5)).
fn has_capability(bit: u64) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0) & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    const ALL: Hardening = Hardening {
        memory_locked: true,
        realtime: true,
        oom_exempt: true,
        rtc: true,
        mounts_propagate: true,
    };

    fn worst(given: Hardening) -> Vec<(&'static str, Grade)> {
        let found = hardening(given).into_iter().filter(|finding| finding.grade != Grade::Ok);
        found.map(|finding| (finding.name, finding.grade)).collect()
    }

    #[test]
    fn what_the_host_refuses_the_guardian_is_said() {
        assert_eq!(worst(ALL), []);
        let shut = Hardening { mounts_propagate: false, ..ALL };
        assert_eq!(worst(shut), [("guardian-mounts", Grade::Problem)]);
        let slow = Hardening { realtime: false, memory_locked: false, oom_exempt: false, ..ALL };
        assert!(worst(slow).iter().all(|(_, grade)| *grade == Grade::Warning));
        assert_eq!(worst(slow).len(), 3);
    }

    #[test]
    fn without_a_guardian_what_it_needs_is_looked_at() {
        let of = |may_lock_bytes| {
            let facts = Facts { socket: "/g".into(), status: Err("gone".into()), may_lock_bytes };
            check(&facts).iter().map(|finding| finding.grade).collect::<Vec<_>>()
        };
        assert_eq!(of(None), [Grade::Warning, Grade::Ok]);
        assert_eq!(of(Some(8 << 20)), [Grade::Warning; 2]);
    }
}

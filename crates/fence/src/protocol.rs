//! What the agent and the guardian say to each other.
//!
//! One JSON object per packet of a unix SOCK_SEQPACKET socket, at most [`MAX_MESSAGE_BYTES`] long;
//! every [`Request`] is answered by one [`Reply`] with the same `seq`. Instants are nanoseconds of
//! CLOCK_BOOTTIME, so both sides must be on one machine, and are.

use serde::{Deserialize, Serialize};

use crate::ChildPath;

/// Largest message in either direction.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// How far ahead of now a deadline may lie: the longest lease (60 s) and a tenth.
pub const MAX_DEADLINE_AHEAD_NS: u64 = 66_000_000_000;

/// A numbered request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client; comes back in the reply.
    pub seq: u64,
    /// What is asked.
    pub request: Request,
}

/// What may be asked of the guardian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How are things?
    Status,
    /// Extends a live lease. Refused when fenced; an earlier deadline than the one in force
    /// changes nothing.
    Renew(Grant),
    /// Lets everything below the ancestor run until the deadline (rule 5). The sender has killed
    /// before what this node no longer owns. While live the same as `Renew`.
    Thaw(Grant),
    /// Ends the lease now; answered when everything has stopped.
    Relinquish,
    /// Kills one container's subtree; works while frozen.
    Kill {
        /// Which one, below the ancestor.
        child: ChildPath,
    },
}

/// A lease as the leader granted it (DESIGN section 5, rule 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// `s`: noted before the heartbeat was sent that the grant answers. A grant from before a
    /// relinquishment or a pause of the machine is worth nothing: somebody may have taken over.
    pub sent_ns: u64,
    /// `s + T`: when the lease ends.
    pub deadline_ns: u64,
}

/// The answer to the [`Call`] with the same `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The call's number; 0 if the call could not be read.
    pub seq: u64,
    /// What happened.
    pub response: Response,
}

/// What the guardian answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To `Status`.
    Status(Box<Status>),
    /// To `Renew` and `Thaw`: the lease now ends at this instant.
    Granted {
        /// The deadline in force; never earlier than one granted before it.
        deadline_ns: u64,
    },
    /// To `Relinquish`: everything below the ancestor is frozen, dead or has SIGKILL pending, and
    /// the links are down.
    Stopped(FenceRecord),
    /// To `Kill`.
    Killed(KillOutcome),
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why the guardian did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A renewal came after the lease had ended: kill what is no longer owned, then thaw.
    #[error("the lease has ended and everything is fenced; thaw instead")]
    Fenced,
    /// A fence is under way; ask again when it is complete.
    #[error("a fence is under way")]
    Fencing,
    /// The deadline is not in the future.
    #[error("the deadline has passed")]
    DeadlinePassed,
    /// The deadline is farther away than any lease is long.
    #[error("the deadline is farther away than the longest lease")]
    DeadlineTooFar,
    /// The grant was asked for before the node relinquished or the machine was paused (rule 7).
    #[error(
        "the grant is older than a relinquishment or a pause of the machine; ask for a new one"
    )]
    StaleGrant,
    /// The kernel refused a step; the fence is in force.
    #[error("the kernel refused: {0}")]
    Kernel(String),
    /// The guardian is about to exit.
    #[error("the guardian is shutting down")]
    ShuttingDown,
    /// The packet was no call, or was too long.
    #[error("the message is malformed: {0}")]
    Malformed(String),
}

/// What `Kill` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillOutcome {
    /// There is no such cgroup: nothing of it runs.
    NotThere,
    /// SIGKILL is pending for, or has ended, every process of the subtree.
    Killed {
        /// Whether processes of it are still there (dying, or in uninterruptible sleep: its
        /// volume is not free yet).
        populated: bool,
    },
}

/// Where the guardian stands. `Live --deadline, relinquish, clock jump--> Fencing --> Fenced
/// --thaw--> Live`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Everything is stopped, verified. The state at start.
    Fenced,
    /// A lease is in force.
    Live {
        /// When it ends.
        deadline_ns: u64,
    },
    /// The lease has ended and not everything is known to have stopped.
    Fencing {
        /// When it ended.
        due_ns: u64,
    },
}

/// Why a fence began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceCause {
    /// The guardian started.
    Start,
    /// The lease ran out.
    Deadline,
    /// It was asked to.
    Relinquished,
    /// The real-time clock and CLOCK_BOOTTIME parted (rule 7): the machine was paused.
    ClockJump,
    /// A thaw could not be carried through.
    ThawFailed,
    /// The guardian was told to end.
    Shutdown,
}

/// When each part of a fence was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRecord {
    /// Why it began.
    pub cause: FenceCause,
    /// When everything should have begun to stop: the lease's end, or when it was asked for.
    pub due_ns: u64,
    /// When `cgroup.freeze` had been written.
    pub freeze_written_ns: Option<u64>,
    /// When the kernel had set the last link of the group down.
    pub links_down_ns: Option<u64>,
    /// When everything was seen frozen.
    pub frozen_ns: Option<u64>,
    /// When what would not freeze was killed.
    pub killed_ns: Option<u64>,
    /// When everything had stopped.
    pub complete_ns: Option<u64>,
}

impl FenceRecord {
    /// A fence of which nothing is done yet.
    pub(crate) fn begun(cause: FenceCause, due_ns: u64) -> Self {
        Self {
            cause,
            due_ns,
            freeze_written_ns: None,
            links_down_ns: None,
            frozen_ns: None,
            killed_ns: None,
            complete_ns: None,
        }
    }
}

/// The guardian's account of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where it stands.
    pub phase: Phase,
    /// When this guardian started; another value means another guardian, and that everything
    /// protected before it is dead.
    pub instance_ns: u64,
    /// The guardian's own process id, in its own pid namespace.
    pub guardian_pid: i32,
    /// The init of the protected pid namespace, as numbered in the guardian's own one: the target
    /// of `holdfast-guardian enter`.
    pub init_pid: i32,
    /// `F`, as the guardian was told: it must not be longer than the cluster's.
    pub fence_budget_ms: u64,
    /// Leases begun by `Thaw`, since start.
    pub thaws: u64,
    /// Leases extended by `Renew`, since start.
    pub renewals: u64,
    /// Fences begun, since start.
    pub fences: u64,
    /// The last fence, complete or not.
    pub last_fence: Option<FenceRecord>,
    /// Whether the host let the guardian protect itself.
    pub hardening: Hardening,
    /// Whether processes are below the ancestor.
    pub populated: bool,
}

/// What the host let the guardian do for its own punctuality. Each `false` weakens no promise (the
/// kernel timer holds in any case), but makes an untimely kill instead of a freeze likelier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hardening {
    /// Its memory is locked.
    pub memory_locked: bool,
    /// It runs under SCHED_FIFO.
    pub realtime: bool,
    /// Its OOM score is −1000.
    pub oom_exempt: bool,
    /// There is a real-time clock to compare with (rule 7). Without one a pause of the whole
    /// virtual machine is not noticed.
    pub rtc: bool,
    /// The root mount is shared, so that volumes mounted later appear to protected containers.
    pub mounts_propagate: bool,
}

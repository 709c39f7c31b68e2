//! From leadership in Raft to the controller's loops, and back.
//!
//! ```text
//! follower ──reign ready──▶ Leadership::begin ─▶ published, lead() runs
//!     ▲                                               │
//!     └────── reign gone, or of another term: unpublished, lead() dropped
//! ```

use std::sync::Arc;

use holdfast_controller::{Leadership, lead};
use holdfast_core::State;
use holdfast_raft::{Leadership as Seen, RaftNode, Reign};
use holdfast_types::ClusterId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::channels::Channels;
use crate::error::DaemonError;
use crate::ports::RaftPorts;

/// Follows this node's leadership until consensus stops. The loops end with this future.
pub(crate) async fn follow(
    raft: RaftNode,
    cluster: ClusterId,
    channels: Channels,
    published: watch::Sender<Option<Arc<Leadership>>>,
) -> Result<(), DaemonError> {
    let mut leadership = raft.leadership();
    let mut loops = JoinSet::new();
    let mut term = None;
    loop {
        let reign = may_lead(&leadership.borrow_and_update());
        if reign.map(|reign| reign.term) != term {
            published.send_replace(None);
            loops.shutdown().await;
            if let Some(reign) = reign {
                let mine = begin(&raft, reign);
                let ports = RaftPorts::new(raft.clone(), cluster, reign.term, channels.clone());
                loops.spawn(lead(Arc::new(ports), mine.clone()));
                published.send_replace(Some(mine));
            }
            term = reign.map(|reign| reign.term);
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() {
                return Ok(());
            },
            Some(_) = loops.join_next() => {
                return Err(DaemonError::Ended { task: "the leader's loops" });
            }
        }
    }
}

/// A reign in which leases may be granted: everything that was in the log when it began is applied
/// (DESIGN section 5 rule 2). Before that this leader might grant to a life that is lost already.
fn may_lead(now: &Seen) -> Option<Reign> {
    now.reign.filter(|reign| reign.ready)
}

fn begin(raft: &RaftNode, reign: Reign) -> Arc<Leadership> {
    info!(term = reign.term, "leading");
    Arc::new(leadership(reign, &raft.state()))
}

/// The leadership of a reign: it counts from when this process gained it.
fn leadership(reign: Reign, state: &State) -> Leadership {
    let began_ms = u64::try_from(reign.since.as_millis()).unwrap_or(u64::MAX);
    Leadership::begin(reign.term, began_ms, state)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_types::{LeaseSettings, NodeId};

    use super::*;

    const GAINED: Duration = Duration::from_secs(9);

    fn reign(ready: bool) -> Reign {
        Reign { term: 3, since: GAINED, ready }
    }

    /// I12, rule 2.
    #[test]
    fn a_leader_that_has_not_applied_its_log_does_not_lead_yet() {
        let of = |ready| may_lead(&Seen { term: 3, leader: None, reign: Some(reign(ready)) });
        assert_eq!(of(false), None);
        assert_eq!(of(true).map(|reign| reign.term), Some(3));
    }

    /// I8, rules 2 and 4: no node is lost sooner than a lease of the leader before can have ended.
    #[test]
    fn a_leadership_counts_from_when_this_process_gained_it() {
        let lease = LeaseSettings::default();
        let leadership = leadership(reign(true), &State::default());
        let due_ms = leadership.leases.next_due_ms([NodeId(1)].into_iter(), &lease);
        assert_eq!(due_ms, Some(9_000 + lease.lost_after_ms()));
    }
}

//! Who leads, as this node knows it, and since when this process does.
//!
//! ```text
//!  no leader heard ──► follower of L ──► no leader heard    (silence longer than an election)
//!        │                   │
//!        └────────► leads term t, not ready ──► ready       (an entry of term t is applied)
//! ```
//!
//! A leader's first entry in its term follows everything that was in its log when it began, so
//! once an entry of its term is applied, all of that is (DESIGN section 5 rule 2). Leadership is
//! never restored after a restart, so a reign belongs to one process. What is said here may be
//! stale by the time it is read; only a read round proves leadership.

use std::time::Duration;

use holdfast_types::NodeId;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::Fatal;
use openraft::metrics::RaftMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use tokio::sync::watch;

use crate::error::RaftError;
use crate::net::Heard;
use crate::published::Applied;
use crate::store::Health;
use crate::sys::boottime;
use crate::types::TypeConfig;

/// A node and where it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Its address, as the membership has it.
    pub addr: String,
}

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The newest term that this node knows.
    pub term: u64,
    /// The leader, if this node leads or heard from it lately.
    pub leader: Option<Peer>,
    /// Set while this node leads.
    pub reign: Option<Reign>,
}

/// This process's time as leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// The term. A later reign has a higher one.
    pub term: u64,
    /// When this process noticed that it leads, never earlier than it did: CLOCK_BOOTTIME.
    pub since: Duration,
    /// Whether everything that was in the log when the reign began is applied.
    pub ready: bool,
}

/// The task that keeps [`Leadership`] current.
pub(crate) struct Watcher {
    pub(crate) me: NodeId,
    pub(crate) metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) heard: Heard,
    pub(crate) health: Health,
    pub(crate) silence: Duration,
    pub(crate) out: watch::Sender<Leadership>,
}

impl Watcher {
    pub(crate) async fn run(mut self) {
        loop {
            let now = self.judge();
            self.out.send_if_modified(|before| {
                let changed = *before != now;
                if changed && before.reign.map(|r| r.term) != now.reign.map(|r| r.term) {
                    tracing::info!(term = now.term, leads = now.reign.is_some(), "leadership");
                }
                *before = now;
                changed
            });
            let alive = tokio::select! {
                changed = self.metrics.changed() => changed.is_ok(),
                changed = self.applied.changed() => changed.is_ok(),
                () = tokio::time::sleep(self.silence / 4) => true,
            };
            self.look(alive);
            if !alive {
                self.out.send_modify(|l| *l = Leadership { term: l.term, ..Leadership::default() });
                return;
            }
        }
    }

    /// Has it told if consensus ended here, and not because it was asked to.
    fn look(&self, alive: bool) {
        let what = match &self.metrics.borrow_watched().running_state {
            Err(Fatal::Stopped) => return,
            Err(fatal) => fatal.to_string(),
            Ok(()) if alive => return,
            Ok(()) => "one of its tasks panicked".to_owned(),
        };
        self.health.fail(RaftError::Internal { what });
    }

    fn judge(&mut self) -> Leadership {
        let applied_term = self.applied.borrow_and_update().term;
        let metrics = self.metrics.borrow_and_update();
        let term = metrics.current_term;
        if metrics.running_state.is_err() {
            return Leadership { term, leader: None, reign: None };
        }
        let leads = metrics.state == ServerState::Leader;
        let leader = metrics.current_leader.map(NodeId).filter(|leader| {
            if *leader == self.me { leads } else { self.heard.lately(*leader, self.silence) }
        });
        let leader = leader.map(|node| Peer {
            node,
            addr: metrics
                .membership_config
                .get_node(&node.0)
                .map(|n| n.addr.clone())
                .unwrap_or_default(),
        });
        let before = self.out.borrow().reign;
        let reign = leads.then(|| Reign::now(before, term, applied_term, boottime()));
        Leadership { term, leader, reign }
    }
}

impl Reign {
    /// The reign of `term`, seen at `now`, if what was seen last is `before`.
    fn now(before: Option<Reign>, term: u64, applied_term: u64, now: Duration) -> Self {
        let since = before.filter(|r| r.term == term).map_or(now, |r| r.since);
        Self { term, since, ready: applied_term == term }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DESIGN section 5 rule 2: ready only with an entry of its own term applied, and counted from
    /// when this process gained it, once and for all.
    #[test]
    fn a_reign_begins_when_it_is_gained_and_is_ready_when_its_log_is_applied() {
        let at = Duration::from_secs;
        let gained = Reign::now(None, 4, 3, at(10));
        assert_eq!(gained, Reign { term: 4, since: at(10), ready: false });
        let ready = Reign::now(Some(gained), 4, 4, at(12));
        assert_eq!(ready, Reign { term: 4, since: at(10), ready: true });
        let next = Reign::now(Some(ready), 6, 4, at(20));
        assert_eq!(next, Reign { term: 6, since: at(20), ready: false });
    }
}

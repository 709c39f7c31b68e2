//! Whom this node believes, and whom its cluster wants believed: two numbers that heartbeats carry.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by who keeps the node's certificate and who talks to the leader.
#[derive(Debug, Default)]
pub struct Standing {
    own: AtomicU64,
    wanted: AtomicU64,
}

impl Standing {
    /// This node believes other authorities from now on.
    pub fn set(&self, own: u64) {
        self.own.store(own, Ordering::Relaxed);
    }

    /// What its heartbeats say.
    pub fn own(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    /// The leader said what it should be; 0 if it did not.
    pub fn want(&self, wanted: u64) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether the cluster wants others believed than this node does.
    pub fn is_behind(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        wanted != 0 && wanted != self.own()
    }
}

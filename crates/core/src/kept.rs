//! A container's named snapshots.
//!
//! ```text
//!  create ──▶ Wanted ──taken by the primary──▶ Taken ──▶ removed
//!               │ ▲                              │
//!               │ └── a takeover: taken anew     │ a takeover from an older snapshot
//!               ▼     by the next primary        ▼
//!            failed                          LeftBehind: only a lost node has it
//! ```
//!
//! The cluster chooses a snapshot's uuid when it is asked for. So the primary takes it once however
//! often it begins anew, and every holder knows what to keep before it comes.

use std::collections::BTreeSet;

use holdfast_types::{
    ByteSize, Code, KeptBy, KeptView, NodeId, OperationId, RestoreView, Revision, RunState,
    SnapshotId, SnapshotName, SnapshotUuid, TimestampMs,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Container, Refusal, State};

/// One named snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its identity, also before it is taken.
    pub uuid: SnapshotUuid,
    /// On whose behalf.
    pub by: KeptBy,
    /// When it was asked for.
    pub created: TimestampMs,
    /// What ends when it is taken.
    pub operation: Option<OperationId>,
    /// How far it is.
    pub state: KeptState,
    /// An event has said that the node that runs the container has no copy of it.
    #[serde(default)]
    pub missed: bool,
}

/// How far a named snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptState {
    /// The container's node is to take it.
    Wanted,
    /// It is there.
    Taken(Taken),
    /// A takeover went on from before it: it is off the chain, and only who took it has it.
    LeftBehind(Taken),
}

/// A named snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// What was taken.
    pub id: SnapshotId,
    /// When, on the clock of the node that took it.
    pub taken: TimestampMs,
    /// The volume's size then.
    pub size: ByteSize,
    /// The nodes that said that they hold it.
    pub holders: BTreeSet<NodeId>,
}

/// A stopped container is to begin anew as one of its snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// What ends when it has.
    pub operation: OperationId,
    /// The snapshot to begin as.
    pub from: SnapshotName,
    /// The snapshot of what is there now, which is taken first.
    pub before: SnapshotName,
}

/// A schedule's last snapshot was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleFailed {
    /// When it was asked for.
    pub at: TimestampMs,
    /// Why it was not taken, in one line.
    pub reason: String,
}

impl Kept {
    /// What was taken, if it is on the chain.
    pub fn taken(&self) -> Option<&Taken> {
        match &self.state {
            KeptState::Taken(taken) => Some(taken),
            KeptState::Wanted | KeptState::LeftBehind(_) => None,
        }
    }

    /// Has it taken by the next primary. Its old identity may exist already, on the lost node: the
    /// entry's revision, which no two entries share, makes another of it.
    fn want_anew(&mut self, revision: Revision) {
        let (high, low) = self.uuid.0.as_u64_pair();
        self.uuid = SnapshotUuid(Uuid::from_u64_pair(high, low ^ revision.0));
        self.state = KeptState::Wanted;
        self.missed = false;
    }
}

impl Container {
    /// The container's node is another one now, and went on from `branch`. Returns the names of the
    /// snapshots that are left behind.
    pub(crate) fn branch_kept(
        &mut self,
        branch: &SnapshotId,
        revision: Revision,
    ) -> Vec<SnapshotName> {
        let before = self.restore.as_ref().map(|restore| restore.before.clone());
        let mut left_behind = Vec::new();
        for (name, kept) in &mut self.kept {
            let beyond = |taken: &Taken| taken.id.order() > branch.order();
            match &kept.state {
                KeptState::Wanted => kept.want_anew(revision),
                KeptState::Taken(taken) if !beyond(taken) => {}
                // What is there now is not what it was.
                KeptState::Taken(_) if before.as_ref() == Some(name) => kept.want_anew(revision),
                KeptState::Taken(taken) => {
                    kept.state = KeptState::LeftBehind(taken.clone());
                    left_behind.push(name.clone());
                }
                KeptState::LeftBehind(_) => {}
            }
        }
        left_behind
    }

    /// The named snapshots of which its node is not known to have a copy, and who is, as far as that
    /// is news.
    pub(crate) fn miss_kept(&mut self) -> Vec<(SnapshotName, BTreeSet<NodeId>)> {
        let mut missed = Vec::new();
        for (name, kept) in &mut self.kept {
            if let KeptState::Taken(taken) = &kept.state
                && !taken.holders.contains(&self.node)
                && !std::mem::replace(&mut kept.missed, true)
            {
                missed.push((name.clone(), taken.holders.clone()));
            }
        }
        missed
    }

    /// What that node, which holds it, is told of its named snapshots.
    pub(crate) fn kept_views(&self, node: NodeId) -> Vec<KeptView> {
        let view = |(name, kept): (&SnapshotName, &Kept)| {
            let mut holders: Vec<_> = match &kept.state {
                KeptState::Wanted => Vec::new(),
                KeptState::Taken(taken) => taken.holders.iter().copied().collect(),
                KeptState::LeftBehind(_) => return None,
            };
            let wanted = kept.state == KeptState::Wanted;
            let held = holders.contains(&node);
            if node != self.node {
                holders.retain(|holder| *holder == self.node);
            }
            Some(KeptView { name: name.clone(), uuid: kept.uuid, wanted, held, holders })
        };
        self.kept.iter().filter_map(view).collect()
    }

    /// What its node is told of its restore.
    pub(crate) fn restore_view(&self) -> Option<RestoreView> {
        let restore = self.restore.as_ref()?;
        Some(RestoreView {
            operation: restore.operation,
            from: self.kept.get(&restore.from)?.uuid,
            before: self.kept.get(&restore.before)?.uuid,
        })
    }

    /// The named snapshot.
    pub fn kept_named(&self, name: &SnapshotName) -> Result<&Kept, Refusal> {
        let missing = || format!("container {} has no snapshot {name}", self.name);
        self.kept.get(name).ok_or_else(|| Refusal::new(Code::NotFound, missing()))
    }

    /// The named snapshot, which must be there and on the chain.
    pub fn kept_taken(&self, name: &SnapshotName) -> Result<&Taken, Refusal> {
        let message = match &self.kept_named(name)?.state {
            KeptState::Taken(taken) => return Ok(taken),
            KeptState::Wanted => format!("snapshot {name} of {} is not taken yet", self.name),
            KeptState::LeftBehind(_) => format!(
                "snapshot {name} was left behind in a takeover of {}: no copy of it is on its chain; \
                 see holdfast diverged ls",
                self.name
            ),
        };
        Err(Refusal::new(Code::WrongState, message))
    }

    /// Whether it has a snapshot of that name that is still to be taken.
    pub(crate) fn is_wanted(&self, name: &SnapshotName) -> bool {
        self.kept.get(name).is_some_and(|kept| kept.state == KeptState::Wanted)
    }

    /// Whether its volume is still to be made of what it comes from.
    pub fn is_unmade(&self) -> bool {
        self.run == RunState::Pending && self.chain.branch().is_none() && !self.was_made()
    }

    /// Whether somebody has said that there is data of it.
    pub fn was_made(&self) -> bool {
        self.made || !self.copies.is_empty()
    }
}

impl State {
    /// A container that is still to be made on that node of a snapshot of that one.
    pub fn unmade_clone_on(&self, original: &Container, node: NodeId) -> Option<&Container> {
        self.containers.unmade_clones(original.uid.into()).find(|c| c.node == node)
    }

    /// Refuses if a container is still to be made of one of these snapshots of that one.
    pub(crate) fn refuse_while_cloned(
        &self,
        original: &Container,
        concerns: impl Fn(SnapshotUuid) -> bool,
    ) -> Result<(), Refusal> {
        let mut clones = self.containers.unmade_clones(original.uid.into());
        let concerned = clones.find(|c| concerns(c.image_snapshot.uuid));
        let Some(clone) = concerned else { return Ok(()) };
        let message = format!("container {} is still being made from it", clone.name);
        Err(Refusal::new(Code::InUse, message))
    }
}

//! Changing who takes part.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_types::NodeId;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, InitializeError, RaftError as OpenraftError,
};
use openraft::{BasicNode, ChangeMembers};
use tokio::time::timeout;

use crate::error::RaftError;
use crate::node::RaftNode;
use crate::types::TypeConfig;

impl RaftNode {
    /// Forms a cluster of this node alone, reached by others at `addr`, and returns once it leads
    /// and is ready.
    pub async fn initialize(&self, addr: &str) -> Result<(), RaftError> {
        let members = BTreeMap::from([(self.id().0, BasicNode::new(addr))]);
        self.raft().initialize(members).await.map_err(|e| match e {
            OpenraftError::APIError(InitializeError::NotAllowed(_)) => {
                RaftError::AlreadyInitialized
            }
            OpenraftError::APIError(InitializeError::NotInMembers(e)) => {
                RaftError::Internal { what: e.to_string() }
            }
            OpenraftError::Fatal(_) => self.stopped(),
        })?;
        let mut leadership = self.leadership();
        let ready = leadership.wait_for(|l| l.reign.is_some_and(|r| r.ready));
        match timeout(self.timing().deadline(), ready).await {
            Err(_) => Err(RaftError::Timeout),
            Ok(Err(_)) => Err(self.stopped()),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Adds a node without a vote, or changes nothing if it is a member at that address already.
    /// It receives the log from then on; see [`metrics`](Self::metrics) for how far it is.
    pub async fn add_learner(&self, node: NodeId, addr: &str) -> Result<(), RaftError> {
        let node = BTreeMap::from([(node.0, BasicNode::new(addr))]);
        self.change(ChangeMembers::AddNodes(node)).await
    }

    /// Makes exactly these members the voters, through a joint membership; former voters stay as
    /// learners. Called again it completes a change that was cut short.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), RaftError> {
        let voters = voters.into_iter().map(|node| node.0).collect();
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Removes a learner for good. Its id is never used again.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), RaftError> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node.0]))).await
    }

    /// Hands leadership to a voter and returns once this node no longer leads.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), RaftError> {
        if self.leadership_now().reign.is_none() {
            return Err(self.not_leader());
        }
        if !self.metrics().voters.contains(&to) {
            return Err(RaftError::NotMember { node: to });
        }
        if to == self.id() {
            return Ok(());
        }
        self.raft().trigger().transfer_leader(to.0).await.map_err(|_| self.stopped())?;
        let mut leadership = self.leadership();
        let given_up = leadership.wait_for(|l| l.reign.is_none());
        match timeout(self.timing().deadline(), given_up).await {
            Err(_) => Err(RaftError::Timeout),
            Ok(Err(_)) => Err(self.stopped()),
            Ok(Ok(_)) => Ok(()),
        }
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), RaftError> {
        // In a task of its own: given up between its two steps it would leave the membership
        // joint.
        let raft = self.raft().clone();
        let task = tokio::spawn(async move { raft.change_membership(change, true).await });
        match timeout(self.timing().deadline() + STEP, task).await {
            Err(_) => Err(self.late()),
            Ok(Err(_)) => Err(self.stopped()),
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(e))) => Err(self.refused(e)),
        }
    }

    /// What a refused write means here.
    pub(crate) fn refused(
        &self,
        error: OpenraftError<TypeConfig, ClientWriteError<TypeConfig>>,
    ) -> RaftError {
        let error = match error {
            OpenraftError::Fatal(_) => return self.stopped(),
            OpenraftError::APIError(error) => error,
        };
        match error {
            ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_) => {
                self.not_leader()
            }
            ClientWriteError::ChangeMembershipError(e) => match e {
                ChangeMembershipError::InProgress(_)
                | ChangeMembershipError::UncommittedLeaderLog(_) => RaftError::MembershipBusy,
                ChangeMembershipError::LearnerNotFound(e) => {
                    RaftError::NotMember { node: NodeId(e.node_id) }
                }
                other => RaftError::Membership { what: other.to_string() },
            },
            ClientWriteError::PreconditionFailed(e) => {
                RaftError::Membership { what: e.to_string() }
            }
        }
    }
}

/// A joint change commits twice.
const STEP: Duration = Duration::from_secs(1);

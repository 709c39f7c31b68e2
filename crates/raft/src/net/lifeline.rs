//! A call to the leader that lasts as long as its process: that it breaks is the first sign of the
//! leader's death, and comes long before its silence would be long enough.
//!
//! ```text
//! follower of L ──linger──▶ L      broken: pre-votes now and then, while nobody has been elected
//! ```
//!
//! It is a sign and no proof, so all that follows from it is a pre-vote: a node that heard from a
//! leader within its lease grants none and asks for none, and a leader that lives is not disturbed.
//! Voters take turns, for two that stand at once get no majority.

use std::time::Duration;

use holdfast_types::NodeId;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::Code;

use super::channel::Purpose;
use super::client::Network;
use crate::leadership::{Leadership, Peer};
use crate::types::Raft;
use crate::watchdog::Fitness;

/// Each voter stands this often,
const PERIOD: Duration = Duration::from_millis(150);
/// and so often in a row. Then it is looked whether the leader can be called after all.
const TRIES: u32 = 12;
/// One that should not lead leaves so many turns to the others: by then nobody holds to the leader
/// any more, and one that is fit would have been elected.
const RELUCTANT: u32 = TRIES / 2;
/// Before the call is made again.
const PAUSE: Duration = Duration::from_millis(500);

/// The task that keeps the call up, on a node that follows.
pub(crate) struct Lifeline {
    pub(super) network: Network,
    pub(super) raft: Raft,
    pub(super) leadership: watch::Receiver<Leadership>,
    /// A node that should not lead leaves the others the first turns.
    pub(super) fitness: Fitness,
}

/// A leadership of another node.
type Followed = (u64, Peer);

impl Lifeline {
    /// Runs until consensus stops here.
    pub(crate) async fn run(mut self) {
        let mut followed = None;
        loop {
            let (me, before) = (self.network.me(), followed);
            followed = self::followed(&self.leadership.borrow_and_update(), me, before.as_ref());
            let Some((term, leader)) = followed.clone() else {
                match self.leadership.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            };
            let mut leadership = self.leadership.clone();
            let moved = async {
                let stays =
                    |now: &Leadership| self::followed(now, me, followed.as_ref()) == followed;
                leadership.wait_for(|now| !stays(now)).await.is_ok()
            };
            tokio::select! {
                () = self.linger(&leader) => {}
                runs = moved => match runs {
                    true => continue,
                    false => return,
                },
            }
            tracing::debug!(node = %leader.node, "the leader's connection broke");
            self.stand(term, leader.node).await;
            sleep(PAUSE).await;
        }
    }

    /// Returns when the connection to the leader is broken, or cannot be made.
    async fn linger(&self, leader: &Peer) {
        let (node, addr) = (leader.node.0, &leader.addr);
        let peer = self.network.peer(node, addr, Purpose::Life);
        let (Ok(mut client), Ok(request)) = (peer.client(), peer.request(&())) else { return };
        let ended = match client.linger(request).await {
            Ok(answer) => answer.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        peer.forget();
        // A version that has no such call lives all the same.
        if ended.is_err_and(|status| status.code() == Code::Unimplemented) {
            std::future::pending::<()>().await;
        }
    }

    /// Stands for election in place of the leader of `term`, until there is a later term.
    async fn stand(&self, term: u64, gone: NodeId) {
        for turn in 0..TRIES {
            let wait = {
                let metrics = self.raft.metrics();
                let now = metrics.borrow_watched();
                if now.current_term != term || now.state != ServerState::Follower {
                    return;
                }
                let voters = now.membership_config.voter_ids().map(NodeId);
                let Some(offset) = offset(voters, self.network.me(), gone) else { return };
                if turn == 0 { offset } else { PERIOD }
            };
            sleep(wait).await;
            if turn < RELUCTANT && self.fitness.borrow().is_some() {
                continue;
            }
            if self.raft.trigger().elect(true).await.is_err() {
                return;
            }
        }
    }
}

/// The other node that leads, or that led `before` in the same term and has fallen silent: only about then
/// does nobody hold to it any more, so those who stand must go on.
fn followed(now: &Leadership, me: NodeId, before: Option<&Followed>) -> Option<Followed> {
    match &now.leader {
        Some(leader) if leader.node == me || leader.addr.is_empty() => None,
        Some(leader) => Some((now.term, leader.clone())),
        None => before.filter(|(term, _)| *term == now.term).cloned(),
    }
}

/// When in the period it is this voter's turn; nothing for a node without a vote.
fn offset(voters: impl Iterator<Item = NodeId>, me: NodeId, gone: NodeId) -> Option<Duration> {
    let mut left: Vec<_> = voters.filter(|voter| *voter != gone).collect();
    left.sort_unstable();
    let rank = left.iter().position(|voter| *voter == me)?;
    Some(PERIOD * u32::try_from(rank).ok()? / u32::try_from(left.len()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_take_turns_and_others_stand_aside() {
        let voters = || [3, 1, 5, 2].into_iter().map(NodeId);
        let of = |me| offset(voters(), NodeId(me), NodeId(1));
        assert_eq!([of(2), of(3), of(5)], [0, 50, 100].map(|ms| Some(Duration::from_millis(ms))));
        assert_eq!(of(7), None, "it has no vote");
    }

    #[test]
    fn nobody_lingers_with_itself() {
        let leader = Some(Peer { node: NodeId(2), addr: "a:1".into() });
        let now = Leadership { term: 4, leader, reign: None };
        assert_eq!(followed(&now, NodeId(2), None), None);
        let other = followed(&now, NodeId(1), None).map(|(term, leader)| (term, leader.node));
        assert_eq!(other, Some((4, NodeId(2))));
    }

    /// Where all were unfit they stopped to stand just when nobody held to the leader any more.
    #[test]
    fn who_fell_silent_is_stood_for_until_there_is_a_later_term() {
        let peer = Peer { node: NodeId(2), addr: "a:1".into() };
        let before = Some((4, peer.clone()));
        let at = |term, leader| Leadership { term, leader, reign: None };
        let of = |now: &Leadership| followed(now, NodeId(1), before.as_ref());
        assert_eq!(of(&at(4, None)), before);
        assert_eq!(of(&at(4, Some(peer))), before);
        assert_eq!(of(&at(5, None)), None);
        assert_eq!(followed(&at(4, None), NodeId(1), None), None);
    }
}

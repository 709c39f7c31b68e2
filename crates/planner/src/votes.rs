//! Who votes in Raft: how many, which nodes, and what to change next.
//!
//! One step at a time, each of which leaves a majority that answers:
//!
//! | step | when |
//! |---|---|
//! | replace | a voter was lost, or silent to the leader, for [`REPLACE_AFTER_MS`], and a standby has its log |
//! | grow | fewer vote than should, and standbys are there |
//! | shrink | more vote than should, or an even number that nobody asked for |
//! | spread | a failure domain has most of the votes, and a standby elsewhere can take one over |
//!
//! Three vote below five nodes, else five; more, up to seven, by the wish of people alone. A standby
//! that somebody asked for gets a vote only in place of a lost voter. A voter that comes back after
//! it was replaced is a standby.
//!
//! The leader records a step in the log, and then brings Raft in line with it: a learner first, a
//! voter only with the log. Whatever was cut short in between is seen again by the next leader.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::{MAX_VOTERS, Node, NodeLife, NodeRole, SetRoles, State};
use holdfast_types::NodeId;

/// How long a voter may be away before another votes in its place.
pub const REPLACE_AFTER_MS: u64 = 60_000;

/// From so many nodes on five voters, below three (DESIGN section 8).
const LARGE: usize = 5;

/// So many standbys are wanted besides the voters; what joins beyond that is a worker.
const SPARE: usize = 2;

/// A follower that lacks at most so many entries has the log.
const CAUGHT_UP: u64 = 256;

/// Raft as its leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quorum {
    /// Who leads.
    pub leader: NodeId,
    /// Who votes. During a change, the voters of both memberships.
    pub voters: BTreeSet<NodeId>,
    /// Whether a change of the voters is under way.
    pub joint: bool,
    /// Every other member.
    pub followers: BTreeMap<NodeId, Follower>,
    /// For how long it has led.
    pub leading_ms: u64,
    /// Who has answered within this time is there.
    pub lately_ms: u64,
}

/// How far a member is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Follower {
    /// Entries that it lacks.
    pub behind: u64,
    /// Since it answered last; none if it never did in this reign.
    pub silent_ms: Option<u64>,
}

impl Quorum {
    /// Whether the node takes part now.
    pub fn answers(&self, id: NodeId) -> bool {
        id == self.leader || self.silent_ms(id) < self.lately_ms
    }

    /// Whether the node takes part now, and has the log.
    pub fn has_log(&self, id: NodeId) -> bool {
        let near = |f: &Follower| f.behind <= CAUGHT_UP && f.silent_ms.is_some();
        id == self.leader || self.answers(id) && self.followers.get(&id).is_some_and(near)
    }

    /// Whether most of these answer.
    pub fn carries(&self, voters: &BTreeSet<NodeId>) -> bool {
        self.answering(voters) * 2 > voters.len()
    }

    /// How many of these answer.
    pub fn answering(&self, voters: &BTreeSet<NodeId>) -> usize {
        voters.iter().filter(|id| self.answers(**id)).count()
    }

    /// Since the node answered last, or since this reign began.
    fn silent_ms(&self, id: NodeId) -> u64 {
        let follower = self.followers.get(&id);
        follower.and_then(|f| f.silent_ms).unwrap_or(self.leading_ms)
    }
}

/// The next step, if there is one. Nothing while the last one is not done, nor without a majority
/// that answers. `unheard_ms` is for how long a node has had no lease of this leader's, by the leader's
/// own clock; none if it never had one.
pub fn plan_votes(
    state: &State,
    quorum: &Quorum,
    unheard_ms: impl Fn(NodeId) -> Option<u64>,
) -> Option<SetRoles> {
    let ballot = Ballot { state, quorum, unheard_ms: &unheard_ms, voters: voters(state) };
    if quorum.joint || !quorum.carries(&quorum.voters) {
        return None;
    }
    if ballot.voters != quorum.voters {
        // A leader that is to hand over may wait for long until another is fit to lead.
        let others = quorum.voters.iter().filter(|id| **id != quorum.leader);
        let waits = others.eq(&ballot.voters);
        return ballot.replace(|id| waits || !quorum.voters.contains(&id));
    }
    let grown = || ballot.replace(|_| true).or_else(|| ballot.grow());
    grown().or_else(|| ballot.shrink()).or_else(|| ballot.spread())
}

/// Who is to vote in place of a voter that is taken out, if anybody can. Where its role was taken from
/// it already, that is who was chosen then.
pub fn substitute(state: &State, quorum: &Quorum, gone: NodeId) -> Option<NodeId> {
    let ballot = Ballot { state, quorum, unheard_ms: &|_| None, voters: voters(state) };
    let without = ballot.without(gone);
    if without.len() == ballot.voters.len() {
        let chosen = |id: &&NodeId| !quorum.voters.contains(id) && quorum.has_log(**id);
        return without.iter().find(chosen).copied();
    }
    ballot.best(&without, |_| true).map(|node| node.id)
}

/// Refuses to let a node go without which no majority of the voters would answer, with the figures.
pub fn may_leave(
    state: &State,
    quorum: &Quorum,
    node: &Node,
    successor: Option<NodeId>,
) -> Result<(), String> {
    if !quorum.voters.contains(&node.id) {
        return Ok(());
    }
    let others = quorum.voters.iter().copied().filter(|id| *id != node.id);
    let after: BTreeSet<NodeId> = others.chain(successor).collect();
    if quorum.carries(&after) {
        return Ok(());
    }
    let silent = after.iter().filter(|id| !quorum.answers(**id));
    let silent = silent.filter_map(|id| state.nodes.get(id)).map(|n| n.name.to_string());
    Err(format!(
        "without {}, {} of {} voters would answer, and {} must; these do not: {}",
        node.name,
        quorum.answering(&after),
        after.len(),
        after.len() / 2 + 1,
        silent.collect::<Vec<_>>().join(", ")
    ))
}

/// The part of a node that joins and leaves it to the cluster.
pub fn part_of_newcomer(state: &State) -> NodeRole {
    let has_log = |n: &&Node| n.role.has_log() && !matches!(n.life, NodeLife::Lost { .. });
    let members = state.nodes.values().filter(has_log).count();
    // At once: until there are three, nothing survives the loss of one.
    if voters(state).len() < 3 {
        NodeRole::Voter
    } else if members < by_size(state.nodes.len() + 1) + SPARE {
        NodeRole::Standby
    } else {
        NodeRole::Worker
    }
}

fn voters(state: &State) -> BTreeSet<NodeId> {
    state.nodes.values().filter(|n| n.role.votes()).map(|n| n.id).collect()
}

fn by_size(nodes: usize) -> usize {
    if nodes < LARGE { 3 } else { 5 }
}

/// The state of one decision.
struct Ballot<'a> {
    state: &'a State,
    quorum: &'a Quorum,
    unheard_ms: &'a dyn Fn(NodeId) -> Option<u64>,
    /// By the state; Raft may still be on its way there.
    voters: BTreeSet<NodeId>,
}

impl Ballot<'_> {
    /// Lets a standby vote in place of a voter that is gone. One that Raft never had is taken off
    /// the list even without: everything else waits for it.
    fn replace(&self, only: impl Fn(NodeId) -> bool) -> Option<SetRoles> {
        let gone = self.voters.iter().filter(|id| only(**id));
        let gone: Vec<_> = gone.filter_map(|id| Some((*id, self.gone(*id)?))).collect();
        gone.into_iter().find_map(|(id, why)| {
            let without = self.without(id);
            let name = self.name(id);
            match self.best(&without, |_| true) {
                Some(node) => {
                    let reason = format!("{name} {why}, and {} votes in its place", node.name);
                    self.step(&[node.id], &[id], reason)
                }
                None if !self.quorum.voters.contains(&id) => {
                    self.step(&[], &[id], format!("{name} {why}, and never had the log"))
                }
                None => None,
            }
        })
    }

    fn grow(&self) -> Option<SetRoles> {
        let mut more = self.voters.clone();
        let mut chosen = Vec::new();
        while let Some(node) = self.best(&more, |n| self.wants_vote(n)) {
            more.insert(node.id);
            chosen.push(node.id);
        }
        let now = self.voters.len();
        let mut wanted = more.len().min(self.target());
        chosen.truncate(wanted.saturating_sub(now));
        // An even number survives no more losses than the odd one below it; but of two nodes both
        // vote, so that what is acknowledged is on two disks.
        if wanted > 2
            && wanted.is_multiple_of(2)
            && !self.all_asked(self.voters.iter().chain(&chosen))
        {
            wanted -= 1;
            chosen.truncate(wanted.saturating_sub(now));
        }
        let reason = format!("{wanted} of {} nodes vote", self.state.nodes.len());
        (!chosen.is_empty()).then(|| self.step(&chosen, &[], reason)).flatten()
    }

    fn shrink(&self) -> Option<SetRoles> {
        let (now, target) = (self.voters.len(), self.target());
        let is_fine = now % 2 == 1 || now <= 2 || self.all_asked(&self.voters);
        let wanted = match (now > target, is_fine) {
            // One more than so many people wanted, rather than an even number.
            (true, _) => target + (target + 1) % 2,
            (false, true) => return None,
            (false, false) => now - 1,
        };
        if wanted >= now {
            return None;
        }
        let mut left = self.voters.clone();
        let mut out = Vec::new();
        while left.len() > wanted {
            let spared = |id: &NodeId| {
                let asked = self.state.nodes.get(id).is_some_and(asked_to_vote);
                asked && self.quorum.answers(*id)
            };
            // The leader if there is nobody else: it hands over before it loses its vote.
            let worst = left.iter().filter(|id| !spared(id)).max_by_key(|id| {
                let follows = **id != self.quorum.leader;
                (follows, !self.quorum.answers(**id), self.crowd(&left, **id), **id)
            });
            let worst = *worst?;
            left.remove(&worst);
            out.push(worst);
        }
        let nodes = self.state.nodes.len();
        self.step(&[], &out, format!("{wanted} voters are enough for {nodes} nodes"))
    }

    /// Takes a vote out of a domain that has most of them.
    fn spread(&self) -> Option<SetRoles> {
        let before = self.largest(&self.voters);
        if before * 2 <= self.voters.len() {
            return None;
        }
        let crowded = self.voters.iter().filter(|id| {
            let node = self.state.nodes.get(id);
            self.crowd(&self.voters, **id) == before
                && **id != self.quorum.leader
                && !node.is_some_and(asked_to_vote)
        });
        let out = *crowded.max_by_key(|id| (!self.quorum.answers(**id), **id))?;
        let without = self.without(out);
        let node = self.best(&without, |n| self.wants_vote(n))?;
        let after = without.iter().copied().chain([node.id]).collect();
        if self.largest(&after) >= before {
            return None;
        }
        let domain = self.state.nodes.get(&out)?.domain()?;
        let reason =
            format!("{before} of {} votes were in the failure domain {domain}", self.voters.len());
        self.step(&[node.id], &[out], reason)
    }

    /// A step that leaves a majority which answers, or none.
    fn step(&self, ins: &[NodeId], outs: &[NodeId], reason: String) -> Option<SetRoles> {
        let kept = self.voters.iter().filter(|id| !outs.contains(id));
        let after: BTreeSet<NodeId> = kept.chain(ins).copied().collect();
        if !self.quorum.carries(&after) {
            return None;
        }
        let role = |id: &NodeId| Some((*id, self.state.nodes.get(id)?.voting_role()));
        let roles = ins.iter().filter_map(role);
        let roles = roles.chain(outs.iter().map(|id| (*id, NodeRole::Standby))).collect();
        Some(SetRoles { roles, reason })
    }

    /// The best standby to vote beside these: where fewest votes are in its failure domain, first
    /// those that were to vote, last those that somebody wanted as standbys.
    fn best(&self, beside: &BTreeSet<NodeId>, fits: impl Fn(&Node) -> bool) -> Option<&Node> {
        let ready = self.state.nodes.values().filter(|n| {
            let is_free = n.role == NodeRole::Standby && !beside.contains(&n.id);
            is_free && n.is_up() && self.quorum.has_log(n.id) && fits(n)
        });
        ready.min_by_key(|n| {
            let wish = match n.asked {
                Some(NodeRole::Voter | NodeRole::Witness) => 0,
                None | Some(NodeRole::Worker) => 1,
                Some(NodeRole::Standby) => 2,
            };
            (self.crowd(beside, n.id), wish, n.id)
        })
    }

    fn wants_vote(&self, node: &Node) -> bool {
        node.asked != Some(NodeRole::Standby)
    }

    /// How many should vote.
    fn target(&self) -> usize {
        by_size(self.state.nodes.len()).max(self.asked().min(MAX_VOTERS))
    }

    /// Whether each of these was wanted as a voter.
    fn all_asked<'a>(&self, of: impl IntoIterator<Item = &'a NodeId>) -> bool {
        of.into_iter().all(|id| self.state.nodes.get(id).is_some_and(asked_to_vote))
    }

    /// How many were wanted as voters.
    fn asked(&self) -> usize {
        self.state.nodes.values().filter(|n| asked_to_vote(n)).count()
    }

    /// Why a voter is to be replaced, if it is.
    fn gone(&self, id: NodeId) -> Option<String> {
        if id == self.quorum.leader {
            return None;
        }
        // Not since the time in the state, which is of a wall clock.
        let lost_ms = match &self.state.nodes.get(&id)?.life {
            NodeLife::Lost { .. } => (self.unheard_ms)(id).unwrap_or(self.quorum.leading_ms),
            NodeLife::New | NodeLife::Up => 0,
        };
        let silent_ms = self.quorum.silent_ms(id);
        if silent_ms >= REPLACE_AFTER_MS {
            Some(format!("was silent for {} s", silent_ms / 1_000))
        } else {
            let lost = format!("is lost, and had its last lease {} s ago", lost_ms / 1_000);
            (lost_ms >= REPLACE_AFTER_MS).then_some(lost)
        }
    }

    fn without(&self, id: NodeId) -> BTreeSet<NodeId> {
        self.voters.iter().copied().filter(|other| *other != id).collect()
    }

    /// How many of these are in the failure domain of `id`, itself included where it is of them. A
    /// node without a domain fails alone.
    fn crowd(&self, of: &BTreeSet<NodeId>, id: NodeId) -> usize {
        let domain = |id: &NodeId| self.state.nodes.get(id).and_then(Node::domain);
        match domain(&id) {
            None => usize::from(of.contains(&id)),
            mine => of.iter().filter(|other| domain(other) == mine).count(),
        }
    }

    fn largest(&self, of: &BTreeSet<NodeId>) -> usize {
        of.iter().map(|id| self.crowd(of, *id)).max().unwrap_or(0)
    }

    fn name(&self, id: NodeId) -> String {
        self.state.nodes.get(&id).map(|n| n.name.to_string()).unwrap_or_default()
    }
}

fn asked_to_vote(node: &Node) -> bool {
    node.role.has_log() && node.asked.is_some_and(NodeRole::votes)
}

/// What a person should know of the votes, one line each.
pub fn vote_trouble(state: &State, quorum: &Quorum) -> Vec<String> {
    let ballot = Ballot { state, quorum, unheard_ms: &|_| None, voters: voters(state) };
    let mut lines = Vec::new();
    let (count, nodes) = (ballot.voters.len(), state.nodes.len());
    match count {
        0 => {}
        1 if nodes > 1 => lines.push(format!(
            "one voter for {nodes} nodes: its loss stops the cluster; add voters: holdfast node join"
        )),
        1 => {}
        2 => lines.push(
            "two voters: the loss of either stops the cluster; add a third node, or a witness: \
             holdfast node join --role witness"
                .into(),
        ),
        even if even % 2 == 0 => lines.push(format!(
            "{even} voters survive no more losses than {}: add one, or remove one",
            even - 1
        )),
        _ => {}
    }
    let answering = quorum.answering(&ballot.voters);
    let spare = state.nodes.values().any(|n| n.role == NodeRole::Standby && n.is_up());
    for id in ballot.voters.iter().filter(|id| !quorum.answers(**id)) {
        let then = if spare {
            format!("another takes its vote after {} s", REPLACE_AFTER_MS / 1_000)
        } else {
            "there is no standby to vote in its place".into()
        };
        lines.push(format!(
            "voter {} does not answer ({answering} of {count} do, {} must): {then}",
            ballot.name(*id),
            count / 2 + 1
        ));
    }
    let largest = ballot.largest(&ballot.voters);
    let crowded = ballot.voters.iter().find(|id| ballot.crowd(&ballot.voters, **id) == largest);
    let domain = crowded.and_then(|id| state.nodes.get(id)).and_then(Node::domain);
    if let Some(domain) = domain.filter(|_| count > 1 && largest * 2 > count) {
        let share = if largest == count { "all".into() } else { format!("{largest} of {count}") };
        lines.push(format!(
            "{share} voters are in the failure domain {domain}: its loss stops the cluster"
        ));
    }
    lines
}

/// Why a node that is to vote does not yet, or is about to lose its vote; nothing if all is well.
pub fn vote_note(state: &State, quorum: &Quorum, node: &Node) -> Option<String> {
    if !node.role.votes() {
        return None;
    }
    let seconds = quorum.silent_ms(node.id) / 1_000;
    match (quorum.voters.contains(&node.id), quorum.answers(node.id)) {
        (true, true) => None,
        (true, false) => Some(match substitute(state, quorum, node.id) {
            Some(_) => format!("silent for {seconds} s"),
            None => format!("silent for {seconds} s, no standby"),
        }),
        (false, false) => Some("no vote yet: does not answer".into()),
        (false, true) => {
            let behind = quorum.followers.get(&node.id).map_or(0, |f| f.behind);
            Some(format!("no vote yet: {behind} entries behind"))
        }
    }
}

#[cfg(test)]
mod tests;

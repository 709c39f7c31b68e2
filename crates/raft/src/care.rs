//! Whether this node is fit to lead, and who is in its place. Decided here, done by `watchdog`.
//!
//! A leader on a slow disk, in a process that stalls, or on a disk that is nearly full makes the whole
//! cluster slow, or soon leaderless at the worst moment. It hands over while it still can.
//!
//! ```text
//!        3 bad seconds of the last 5, or less free than the floor
//!  fit ────────────────────────────────────────────────────────────► unfit: does not stand, declines
//!   ▲                                                                  a transfer, tells the leader;
//!   └──────────────────────────────────────────────────────────────    gives up leadership
//!        30 good seconds in a row, with twice the floor free;
//!        twice as many after each time that it did not last
//! ```
//!
//! Leadership never goes back and forth: it is only given to a voter that answered lately, has nearly
//! all of the log and is fit, and a node that gave it up stays unfit for 30 s of good behaviour at least.
//! Where all are as slow as each other it would go round; so who was fit for no longer than it took
//! to become so takes twice as long the next time. Where all are unfit, the one that leads goes on. So does
//! one whose vote its successor would need, but would get too late.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use holdfast_types::NodeId;

/// Seconds that are looked back on, and how many of them may not be bad.
const WINDOW: usize = 5;
const BAD: usize = 3;
/// Good seconds in a row that make a node fit again.
const CALM: u32 = 30;
/// As many as it takes after the fifth time that it did not last, and more.
const MOST_CALM: u32 = 16 * CALM;
/// Who did not answer for longer, or for four heartbeats if that is longer, is not handed leadership.
const LATELY_MS: u64 = 1_000;
/// Nor is who lacks more entries: nothing is proposed until a successor has them all, and what brings
/// them renews the lease of the leader that gives way.
const MOST_BEHIND: u64 = 256;

/// What a leader must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CareLimits {
    /// A second is bad if a sync of the log, or a turn of the loop, took at least this long in it; or
    /// four heartbeats, if that is longer.
    pub slow_ms: u64,
    /// Below this much free space on the log's filesystem a node does not lead, in bytes.
    pub floor_bytes: u64,
}

impl Default for CareLimits {
    fn default() -> Self {
        Self { slow_ms: 1_000, floor_bytes: 64 << 20 }
    }
}

impl CareLimits {
    /// For a cluster whose leader lets hear from itself this often.
    pub(crate) fn with_heartbeat(self, heartbeat_ms: u64) -> Self {
        Self { slow_ms: self.slow_ms.max(4 * heartbeat_ms), ..self }
    }

    /// Consensus that does not answer for so long stands still.
    pub(crate) fn loop_patience(&self) -> Duration {
        Duration::from_millis(self.slow_ms.saturating_mul(5))
    }
}

/// Why a node should not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The log's disk is slow.
    SlowDisk {
        /// How long a sync took.
        sync_ms: u64,
    },
    /// The process, or the machine, does not get on.
    Stalled {
        /// How long it stood still.
        stall_ms: u64,
    },
    /// The log's filesystem is nearly full.
    NearlyFull {
        /// What is left.
        free_bytes: u64,
    },
}

impl Unfit {
    /// Whether who asks this node for its vote waits for it in vain: for less than a second (`Timing`),
    /// while a vote is synced twice before it is given. One that lacks space votes as fast as any.
    pub(crate) fn votes_late(&self) -> bool {
        matches!(self, Self::SlowDisk { .. } | Self::Stalled { .. })
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlowDisk { sync_ms } => {
                write!(f, "a sync of its log takes {sync_ms} ms: look at its disk")
            }
            Self::Stalled { stall_ms } => {
                write!(f, "its daemon stood still for {stall_ms} ms: the machine is overloaded")
            }
            Self::NearlyFull { free_bytes } => {
                let mib = free_bytes >> 20;
                write!(f, "its data directory has {mib} MiB left: free space on that filesystem")
            }
        }
    }
}

/// What was seen in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The longest sync, or how long the one under way has taken by now.
    pub(crate) sync_ms: u64,
    /// How late this sample came, or how long consensus took to answer.
    pub(crate) stall_ms: u64,
    /// If it is known.
    pub(crate) free_bytes: Option<u64>,
}

/// What a node thinks of itself.
pub(crate) struct Care {
    limits: CareLimits,
    /// The newest last; bad ones say why.
    recent: VecDeque<Option<Unfit>>,
    calm: u32,
    /// So many good seconds make it fit now.
    needed: u32,
    /// Seconds since it became so; nothing before it ever was unfit.
    fit_for: Option<u32>,
    unfit: Option<Unfit>,
}

impl Care {
    pub(crate) fn new(limits: CareLimits) -> Self {
        let recent = VecDeque::new();
        Self { limits, recent, calm: 0, needed: CALM, fit_for: None, unfit: None }
    }

    /// Takes another second into account.
    pub(crate) fn step(&mut self, sample: &Sample) -> Option<Unfit> {
        let bad = self.bad(sample);
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(bad);
        self.calm = if bad.is_some() { 0 } else { self.calm + 1 };
        // What is full does not pass.
        let at_once = bad.filter(|bad| matches!(bad, Unfit::NearlyFull { .. }));
        let often = self.recent.iter().flatten().count() >= BAD;
        if self.unfit.is_none() {
            self.fit_for = self.fit_for.map(|secs| secs.saturating_add(1));
        }
        match bad {
            Some(why) if at_once.is_some() || often || self.unfit.is_some() => {
                if self.unfit.is_none() {
                    let lasted = self.fit_for.is_none_or(|secs| secs > self.needed);
                    self.needed = if lasted { CALM } else { MOST_CALM.min(2 * self.needed) };
                }
                self.unfit = Some(why);
            }
            None if self.unfit.is_some() && self.calm >= self.needed => {
                (self.unfit, self.fit_for) = (None, Some(0));
            }
            _ => {}
        }
        self.unfit
    }

    fn bad(&self, sample: &Sample) -> Option<Unfit> {
        let CareLimits { slow_ms, floor_bytes } = self.limits;
        let was_full = matches!(self.unfit, Some(Unfit::NearlyFull { .. }));
        let floor = if was_full { floor_bytes.saturating_mul(2) } else { floor_bytes };
        let Sample { sync_ms, stall_ms, free_bytes } = *sample;
        match free_bytes {
            Some(free_bytes) if free_bytes < floor => Some(Unfit::NearlyFull { free_bytes }),
            _ if sync_ms >= slow_ms => Some(Unfit::SlowDisk { sync_ms }),
            _ if stall_ms >= slow_ms => Some(Unfit::Stalled { stall_ms }),
            _ => None,
        }
    }
}

/// Whether a node stands for election when its leader is silent. One that is unfit leaves it to the
/// others, until it is plain that nobody else does it.
pub(crate) fn may_stand(unfit: bool, leaderless: Duration, patience: Duration) -> bool {
    !unfit || leaderless >= patience
}

/// A voter, as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    /// How many entries it lacks.
    pub(crate) behind: u64,
    /// How long ago it last answered; nothing if it never did.
    pub(crate) silent_ms: Option<u64>,
    /// Whether it said that it should not lead.
    pub(crate) unfit: bool,
    /// Whether its vote comes in time all the same: always, if it is fit.
    pub(crate) votes: bool,
}

/// Who is to lead next: of those that are there and fit, the one that lacks least. Nobody unless those that
/// are there and vote in time are a majority of each of `alone`: of the memberships, where this node's own
/// vote comes too late to count.
pub(crate) fn successor(
    voters: impl IntoIterator<Item = Candidate>,
    alone: &[BTreeSet<NodeId>],
    heartbeat_ms: u64,
) -> Option<NodeId> {
    let lately_ms = LATELY_MS.max(4 * heartbeat_ms);
    let is_there = |voter: &Candidate| voter.silent_ms.is_some_and(|silent| silent < lately_ms);
    let there: Vec<_> = voters.into_iter().filter(is_there).collect();
    let elect = |members: &BTreeSet<NodeId>| {
        let electors = there.iter().filter(|voter| voter.votes && members.contains(&voter.node));
        electors.count() > members.len() / 2
    };
    if !alone.iter().all(elect) {
        return None;
    }
    let near = there.iter().filter(|voter| !voter.unfit && voter.behind <= MOST_BEHIND);
    near.min_by_key(|voter| (voter.behind, voter.node)).map(|voter| voter.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CareLimits = CareLimits { slow_ms: 1_000, floor_bytes: 100 };
    const GOOD: Sample = Sample { sync_ms: 20, stall_ms: 3, free_bytes: Some(1_000) };
    const SLOW: Sample = Sample { sync_ms: 1_500, ..GOOD };

    fn after(samples: &[(Sample, usize)]) -> Option<Unfit> {
        let mut care = Care::new(LIMITS);
        let all = samples.iter().flat_map(|(sample, times)| std::iter::repeat_n(sample, *times));
        all.map(|sample| care.step(sample)).last().flatten()
    }

    #[test]
    fn a_disk_that_stays_slow_makes_unfit_and_a_hiccup_does_not() {
        assert_eq!(after(&[(GOOD, 100)]), None);
        assert_eq!(after(&[(GOOD, 9), (SLOW, 2), (GOOD, 3), (SLOW, 2), (GOOD, 1)]), None);
        assert_eq!(after(&[(SLOW, 3)]), Some(Unfit::SlowDisk { sync_ms: 1_500 }));
        let now_and_then = [(SLOW, 1), (GOOD, 1), (SLOW, 1), (GOOD, 1), (SLOW, 1)];
        assert!(after(&now_and_then).is_some());
        let stalls = Sample { stall_ms: 4_000, ..GOOD };
        assert_eq!(after(&[(stalls, 3)]), Some(Unfit::Stalled { stall_ms: 4_000 }));
    }

    /// It becomes fit once, after a while, not each time that the disk is well for a moment.
    #[test]
    fn only_a_long_calm_makes_fit_again() {
        let calm = CALM as usize;
        assert!(after(&[(SLOW, 3), (GOOD, calm - 1)]).is_some());
        assert!(after(&[(SLOW, 3), (GOOD, calm - 1), (SLOW, 1), (GOOD, calm - 1)]).is_some());
        assert_eq!(after(&[(SLOW, 3), (GOOD, calm)]), None);
        assert_eq!(after(&[(SLOW, 3), (GOOD, calm), (SLOW, 2)]), None, "it begins anew");
    }

    /// Where all disks are as slow, leadership went round every 40 seconds for ever.
    #[test]
    fn who_is_unfit_again_at_once_takes_longer_to_become_fit() {
        let mut care = Care::new(LIMITS);
        let mut until_fit = || {
            for _ in 0..3 {
                care.step(&SLOW);
            }
            (1..1_000).find(|_| care.step(&GOOD).is_none())
        };
        let calms: Vec<_> = (0..7).filter_map(|_| until_fit()).collect();
        assert_eq!(calms, [1, 2, 4, 8, 16, 16, 16].map(|times| times * CALM));
        // Once it has lasted all is as in the beginning.
        for sample in [vec![&GOOD; MOST_CALM as usize + 1], vec![&SLOW; 3]].concat() {
            care.step(sample);
        }
        assert_eq!((1..1_000).find(|_| care.step(&GOOD).is_none()), Some(CALM));
    }

    #[test]
    fn too_little_space_counts_at_once_and_until_there_is_twice_as_much() {
        let free = |free_bytes| Sample { free_bytes: Some(free_bytes), ..GOOD };
        let calm = CALM as usize;
        assert_eq!(after(&[(free(100), 9)]), None);
        assert_eq!(after(&[(free(99), 1)]), Some(Unfit::NearlyFull { free_bytes: 99 }));
        assert!(after(&[(free(99), 1), (free(199), 2 * calm)]).is_some());
        assert_eq!(after(&[(free(99), 1), (free(200), calm)]), None);
        assert_eq!(after(&[(Sample { free_bytes: None, ..GOOD }, 9)]), None, "it is not known");
    }

    #[test]
    fn a_cluster_that_takes_its_time_gives_its_disks_some() {
        let slow_ms = |heartbeat_ms| CareLimits::default().with_heartbeat(heartbeat_ms).slow_ms;
        assert_eq!([100, 250, 2_500].map(slow_ms), [1_000, 1_000, 10_000]);
        let patience =
            |heartbeat_ms| CareLimits::default().with_heartbeat(heartbeat_ms).loop_patience();
        assert_eq!([250, 2_500].map(patience), [5, 50].map(Duration::from_secs));
    }

    #[test]
    fn the_unfit_stand_when_nobody_else_does() {
        let secs = Duration::from_secs;
        assert!(may_stand(false, secs(0), secs(3)));
        assert!(!may_stand(true, secs(0), secs(3)) && !may_stand(true, secs(2), secs(3)));
        assert!(may_stand(true, secs(3), secs(3)));
    }

    #[test]
    fn leadership_goes_to_the_fit_voter_that_lacks_least() {
        let voter = |node, behind, silent_ms, unfit| Candidate {
            node: NodeId(node),
            behind,
            silent_ms,
            unfit,
            votes: !unfit,
        };
        let best =
            |voters: &[Candidate]| successor(voters.iter().copied(), &[], 250).map(|node| node.0);
        let (near, far) = (voter(3, 2, Some(100), false), voter(2, 9, Some(100), false));
        assert_eq!(best(&[far, near]), Some(3));
        assert_eq!(best(&[far, Candidate { unfit: true, ..near }]), Some(2));
        assert_eq!(best(&[far, Candidate { silent_ms: Some(1_000), ..near }]), Some(2));
        assert_eq!(best(&[Candidate { silent_ms: None, ..near }]), None);
        let slow = [Candidate { silent_ms: Some(1_900), ..near }];
        assert_eq!(best(&slow), None);
        assert_eq!(successor(slow, &[], 500), Some(NodeId(3)), "of a cluster that takes its time");
        assert_eq!(
            best(&[near, voter(2, 2, Some(0), false)]),
            Some(2),
            "always the same of equals"
        );
    }

    /// The cluster stood still until its next leader had 50,000 entries, however long that took.
    #[test]
    fn leadership_does_not_wait_for_a_voter_that_is_far_behind() {
        let voter = |behind| Candidate {
            node: NodeId(2),
            behind,
            silent_ms: Some(100),
            unfit: false,
            votes: true,
        };
        assert_eq!(successor([voter(MOST_BEHIND + 1)], &[], 250), None);
        assert_eq!(successor([voter(50_000)], &[], 250), None);
        assert_eq!(successor([voter(MOST_BEHIND)], &[], 250), Some(NodeId(2)));
    }

    /// A leader on a slow disk handed over again and again to one that lacked its vote, and nobody led.
    #[test]
    fn a_slow_leader_goes_on_where_the_fit_cannot_elect_one_of_them_without_it() {
        let voter = |node, silent_ms, unfit| Candidate {
            node: NodeId(node),
            behind: 0,
            silent_ms: Some(silent_ms),
            unfit,
            votes: !unfit,
        };
        let members = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let three = [members(&[1, 2, 3])];
        let (fit, down, slow) = (voter(2, 100, false), voter(3, 9_000, false), voter(3, 100, true));
        assert_eq!(successor([fit, down], &three, 250), None);
        assert_eq!(successor([fit, slow], &three, 250), None);
        assert_eq!(successor([fit, voter(3, 100, false)], &three, 250), Some(NodeId(2)));
        // One that is far behind does not lead, but votes.
        let behind = Candidate { behind: 50_000, ..voter(3, 100, false) };
        assert_eq!(successor([fit, behind], &three, 250), Some(NodeId(2)));
        // Nor does one whose disk is nearly full.
        let full = Candidate { votes: true, ..slow };
        assert_eq!(successor([fit, full], &three, 250), Some(NodeId(2)));
        assert_eq!(successor([full], &[members(&[3])], 250), None, "but it does not lead");
        // In a change of the voters each membership decides.
        let joint = [members(&[1, 2, 3]), members(&[1, 2, 4, 5])];
        let of =
            |five| successor([fit, voter(3, 100, false), voter(4, 100, false), five], &joint, 250);
        assert_eq!(of(voter(5, 9_000, false)), None);
        assert_eq!(of(voter(5, 100, false)), Some(NodeId(2)));
        // Where this node's vote counts, that of one other is enough.
        assert_eq!(successor([fit, down], &[], 250), Some(NodeId(2)));
        assert!(Unfit::SlowDisk { sync_ms: 1_500 }.votes_late());
        assert!(Unfit::Stalled { stall_ms: 1_500 }.votes_late());
        assert!(!Unfit::NearlyFull { free_bytes: 9 }.votes_late());
    }
}

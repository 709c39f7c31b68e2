//! What is done to the nodes, from a seed: the same seed plans the same. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// A kind of harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The leader's daemon is killed, and started again.
    LeaderKill,
    /// Another's is.
    FollowerKill,
    /// The leader's daemon is stopped for some seconds, and goes on as if nothing had happened.
    LeaderPause,
    /// Another's is.
    FollowerPause,
    /// The nodes fall into two sides, which hear nothing of each other.
    Symmetric,
    /// Some do not hear others, who hear them.
    OneWay,
    /// Two do not hear each other, and all others hear both.
    Partial,
    /// A voter is without power for so long that a standby gets its vote.
    Replacement,
}

impl Kind {
    /// All that need nothing but voters.
    pub const PLAIN: [Self; 7] = [
        Self::LeaderKill,
        Self::FollowerKill,
        Self::LeaderPause,
        Self::FollowerPause,
        Self::Symmetric,
        Self::OneWay,
        Self::Partial,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeaderKill => "leader-kill",
            Self::FollowerKill => "follower-kill",
            Self::LeaderPause => "leader-pause",
            Self::FollowerPause => "follower-pause",
            Self::Symmetric => "symmetric",
            Self::OneWay => "one-way",
            Self::Partial => "partial",
            Self::Replacement => "replacement",
        })
    }
}

/// One harm.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// How long it lasts: longer than an election takes, and than a node is silent before it is lost.
    pub(super) hold: Duration,
    /// Decides what is left open.
    pub(super) dice: Dice,
}

/// Harm without end: all kinds in one order, then in another.
#[derive(Debug)]
pub(super) struct Schedule {
    dice: Dice,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Schedule {
    pub(super) fn new(seed: u64, kinds: &[Kind]) -> Self {
        Self { dice: Dice::new(seed), kinds: kinds.to_vec(), left: Vec::new() }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            self.dice.shuffle(&mut self.left);
        }
        let kind = self.left.pop()?;
        let hold = Duration::from_millis(2_500 + self.dice.roll() % 3_000);
        Some(Fault { kind, hold, dice: Dice::new(self.dice.roll()) })
    }
}

/// Pairs of nodes of which the second hears nothing of the first.
pub(super) type Drops = BTreeSet<(String, String)>;

impl Fault {
    /// What is cut by a partition; nothing for what is none. The leader is in the midst of it, or among
    /// the fewer, more often than not.
    pub(super) fn drops(&self, leader: &str, nodes: &[String]) -> Drops {
        let mut dice = self.dice.clone();
        let mut others: Vec<_> = nodes.iter().filter(|node| *node != leader).collect();
        dice.shuffle(&mut others);
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let Some(one) = others.first() else { return Drops::new() };
        match self.kind {
            Kind::Symmetric => {
                // The fewer, so that a majority is left.
                let few = (nodes.len() - 1) / 2;
                let mut few: BTreeSet<&str> =
                    others.iter().take(few).map(|node| node.as_str()).collect();
                if dice.percent(60) {
                    few.pop_first();
                    few.insert(leader);
                }
                let apart =
                    |a: &&String, b: &&String| few.contains(a.as_str()) != few.contains(b.as_str());
                let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (a, b)));
                pairs.filter(|(a, b)| apart(a, b)).map(|(a, b)| pair(a, b)).collect()
            }
            Kind::OneWay => match dice.below(4) {
                // Nobody hears the leader, who hears all.
                0 => others.iter().map(|other| pair(leader, other)).collect(),
                // The leader hears nobody, and is heard by all.
                1 => others.iter().map(|other| pair(other, leader)).collect(),
                2 => [pair(one, leader)].into(),
                _ => [pair(leader, one)].into(),
            },
            Kind::Partial => {
                // Two followers have little to say to each other, but for elections.
                let second = others.get(1).filter(|_| dice.percent(25));
                let other = second.map_or(leader, |node| node.as_str());
                [pair(other, one), pair(one, other)].into()
            }
            Kind::LeaderKill
            | Kind::FollowerKill
            | Kind::LeaderPause
            | Kind::FollowerPause
            | Kind::Replacement => Drops::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("n{n}")).collect()
    }

    #[test]
    fn a_seed_plans_the_same_again_and_all_kinds_in_turn() {
        let planned = |seed| -> Vec<_> {
            Schedule::new(seed, &Kind::PLAIN).take(21).map(|f| (f.kind, f.hold)).collect()
        };
        assert_eq!(planned(7), planned(7));
        assert_ne!(planned(7), planned(8));
        for turn in planned(7).chunks(7) {
            let kinds: BTreeSet<_> = turn.iter().map(|(kind, _)| *kind).collect();
            assert_eq!(kinds.len(), 7);
        }
    }

    #[test]
    fn partitions_are_what_they_are_called() {
        for (seed, count) in (0..100).flat_map(|seed| [(seed, 3), (seed, 5)]) {
            let nodes = nodes(count);
            let fault = |kind| {
                Fault { kind, hold: Duration::ZERO, dice: Dice::new(seed) }.drops("n2", &nodes)
            };
            let back = |drops: &Drops| -> Drops {
                drops.iter().map(|(a, b)| (b.clone(), a.clone())).collect()
            };
            let both = fault(Kind::Symmetric);
            assert_eq!(both, back(&both));
            let few = (count - 1) / 2;
            assert_eq!(both.len(), 2 * few * (count - few), "two sides, one of them a majority");
            let one_way = fault(Kind::OneWay);
            assert!(!one_way.is_empty() && one_way.is_disjoint(&back(&one_way)));
            let partial = fault(Kind::Partial);
            assert_eq!((partial.len(), &partial), (2, &back(&partial)));
            assert!(fault(Kind::LeaderKill).is_empty());
        }
    }
}

//! Cables: a node's link goes down and up, and single directions are cut.

use std::collections::BTreeSet;

use crate::LabError;
use crate::lab::Lab;
use crate::plumbing::fabric;

impl Lab {
    /// Takes a node's link to the fabric down.
    pub fn cut(&self, node: &str) -> Result<(), LabError> {
        self.set_linked(node, false)
    }

    /// Drops what `node` would receive from `from`, and nothing else: call it both ways for a
    /// partition between two.
    pub fn cut_from(&self, node: &str, from: &str) -> Result<(), LabError> {
        self.change(|record| {
            record.node(node)?;
            record.node(from)?;
            record.drops.insert((from.to_owned(), node.to_owned()));
            fabric::set_drops(self.layout(), &record.drops)
        })
    }

    /// Drops what travels from the first to the second node of each of these pairs, and nothing else,
    /// from one frame to the next: any partition, also one that some see and others do not. Whatever
    /// was cut between nodes before is healed; links that are down stay down.
    pub fn partition(&self, drops: BTreeSet<(String, String)>) -> Result<(), LabError> {
        self.change(|record| {
            for node in drops.iter().flat_map(|(from, to)| [from, to]) {
                record.node(node)?;
            }
            fabric::set_drops(self.layout(), &drops)?;
            record.drops = drops;
            Ok(())
        })
    }

    /// Undoes every cut of this node, whichever side it is on.
    pub fn heal(&self, node: &str) -> Result<(), LabError> {
        self.change(|record| {
            record.node(node)?;
            let touches = |(from, to): &(String, String)| from == node || to == node;
            let rest: BTreeSet<_> = record.drops.iter().filter(|p| !touches(p)).cloned().collect();
            if rest != record.drops {
                fabric::set_drops(self.layout(), &rest)?;
                record.drops = rest;
            }
            Ok(())
        })?;
        self.set_linked(node, true)
    }

    fn set_linked(&self, node: &str, up: bool) -> Result<(), LabError> {
        self.change(|record| {
            record.node(node)?;
            fabric::set_link(self.layout(), node, up)?;
            for found in record.nodes.iter_mut().filter(|n| n.name == node) {
                found.linked = up;
            }
            Ok(())
        })
    }
}

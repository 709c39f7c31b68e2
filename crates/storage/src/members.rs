//! What a volume consists of: its root, and data members beside it that are one set with it.
//!
//! All members have one address space: member 0 is the root and begins at 0, data member *m* begins
//! at *m* × 16 TiB, the largest size of one. So a snapshot of the set is one snapshot, a delta of it
//! one list of extents, and a stream one stream; nothing of a set is ever mountable without the rest
//! of the same moment (I17). No extent crosses from one member into the next.

use holdfast_types::{ByteSize, VolumeName};
use serde::{Deserialize, Serialize};

use crate::pool::round_size;
use crate::{Error, Result};

/// How many data members a volume may have.
pub const MAX_DATA: usize = 7;

/// Members are so many bits apart.
const APART: u32 = 44;

/// A data member. Which ones there are, and in which order, is fixed when the volume is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name, for people.
    pub name: VolumeName,
    /// Its size.
    pub size: ByteSize,
    /// It began empty, and nobody has said yet that there is something on it: until then no snapshot
    /// is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blank: bool,
}

impl Member {
    /// A member of that name and size with something on it.
    pub fn new(name: VolumeName, size: ByteSize) -> Self {
        Self { name, size, blank: false }
    }
}

/// The sizes of a volume's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The root's.
    pub root: ByteSize,
    /// The data members, in their order.
    pub data: Vec<Member>,
}

impl From<ByteSize> for Shape {
    fn from(root: ByteSize) -> Self {
        Self { root, data: Vec::new() }
    }
}

impl Shape {
    /// Each member's size in bytes, the root's first.
    pub fn sizes(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.root).chain(self.data.iter().map(|m| m.size)).map(ByteSize::bytes)
    }

    /// The sum of all.
    pub fn bytes(&self) -> u64 {
        self.sizes().fold(0, u64::saturating_add)
    }

    /// The address after the last byte.
    pub fn end(&self) -> u64 {
        let last = self.data.len();
        start(last).saturating_add(self.sizes().nth(last).unwrap_or(0))
    }

    /// Whether a range lies in one member.
    pub fn contains(&self, address: u64, len: u64) -> bool {
        let (member, offset) = locate(address);
        let size = self.sizes().nth(member);
        size.is_some_and(|size| offset.checked_add(len).is_some_and(|end| end <= size))
    }

    /// The shape that a request for this one gets: each size rounded up.
    pub fn rounded(&self) -> Result<Self> {
        let round = |m: &Member| Ok(Member { size: round_size(m.size)?, ..m.clone() });
        let data = self.data.iter().map(round).collect::<Result<Vec<_>>>()?;
        if data.len() > MAX_DATA {
            let size = ByteSize(self.bytes());
            return Err(Error::BadSize { size, reason: "it has more than 7 data members" });
        }
        Ok(Self { root: round_size(self.root)?, data })
    }

    /// Refuses what is smaller than a base in any member, or lacks one.
    pub(crate) fn require_at_least(&self, base: &Self, reason: &'static str) -> Result<()> {
        let sizes: Vec<u64> = self.sizes().collect();
        let smaller = |(member, least)| sizes.get(member).is_none_or(|size| *size < least);
        match base.sizes().enumerate().find(|found| smaller(*found)) {
            None => Ok(()),
            Some((member, _)) => {
                let size = ByteSize(sizes.get(member).copied().unwrap_or(0));
                Err(Error::BadSize { size, reason })
            }
        }
    }

    /// Whether both are of the same members and sizes, whatever is on them.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let like = |(a, b): (&Member, &Member)| a.name == b.name && a.size == b.size;
        self.root == other.root
            && self.data.len() == other.data.len()
            && self.data.iter().zip(&other.data).all(like)
    }
}

/// The address of a member's first byte.
pub fn start(member: usize) -> u64 {
    (member as u64) << APART
}

/// The member that an address belongs to, and the offset in it.
pub fn locate(address: u64) -> (usize, u64) {
    ((address >> APART) as usize, address & ((1 << APART) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(data: &[u64]) -> Shape {
        let member = |(i, mib): (usize, &u64)| {
            Member::new(format!("d{i}").parse().unwrap(), ByteSize::mib(*mib))
        };
        Shape { root: ByteSize::mib(8), data: data.iter().enumerate().map(member).collect() }
    }

    #[test]
    fn an_address_belongs_to_one_member() {
        assert_eq!(locate(start(3) + 5), (3, 5));
        assert_eq!(locate(start(1) - 1), (0, (16 << 40) - 1));
        let shape = shape(&[4, 12]);
        assert_eq!(shape.end(), start(2) + (12 << 20));
        assert!(shape.contains(0, 8 << 20) && !shape.contains(0, (8 << 20) + 1));
        assert!(shape.contains(start(2) + (8 << 20), 4 << 20) && !shape.contains(start(3), 1));
        assert!(!shape.contains(start(1) - 1, 2) && !shape.contains(u64::MAX, 2));
    }

    #[test]
    fn a_shape_is_rounded_and_bounded() {
        let mut odd = shape(&[4]);
        odd.data[0].size = ByteSize(1);
        assert!(odd.rounded().unwrap().is_like(&shape(&[4])));
        assert!(shape(&[4; 8]).rounded().is_err());
        assert!(shape(&[4, 0]).rounded().is_err());
    }

    /// I19: a set does not grow out of one with more in it.
    #[test]
    fn a_base_has_no_more_than_what_is_built_on_it() {
        let base = shape(&[4]);
        assert!(shape(&[4]).require_at_least(&base, "x").is_ok());
        assert!(shape(&[8, 4]).require_at_least(&base, "x").is_ok());
        assert!(shape(&[]).require_at_least(&base, "x").is_err());
        assert!(base.require_at_least(&shape(&[8]), "x").is_err());
    }
}

//! What happened in turn, oldest first: a queue whose clone costs nothing, as a [`Map`]'s.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeFrom;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Map;

/// A queue with clones for nothing.
pub struct Queue<T> {
    /// Under numbers without a gap.
    all: Map<u64, T>,
    next: u64,
}

impl<T> Queue<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.values()
    }

    fn first(&self) -> u64 {
        self.next - self.all.len() as u64
    }
}

impl<T: Clone> Queue<T> {
    /// Adds one at the end.
    pub fn push_back(&mut self, one: T) {
        self.all.insert(self.next, one);
        self.next += 1;
    }

    /// Takes the oldest.
    pub fn pop_front(&mut self) -> Option<T> {
        self.all.remove(&self.first())
    }

    /// The oldest.
    pub fn front(&self) -> Option<&T> {
        self.get(0)
    }

    /// The newest.
    pub fn back(&self) -> Option<&T> {
        self.get(self.len().checked_sub(1)?)
    }

    /// The one at that place, counted from the oldest.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.all.get(&(self.first() + at as u64))
    }

    /// All from that place on.
    pub fn range(&self, from: RangeFrom<usize>) -> impl Iterator<Item = &T> {
        let first = self.first() + from.start as u64;
        self.all.range_from(&first).map(|(_, one)| one)
    }

    /// The place of the first for which `before` does not hold; it holds for none after that.
    pub fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle) {
                Some(one) if before(one) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone(), next: self.next }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { all: Map::default(), next: 0 }
    }
}

impl<T: fmt::Debug> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: PartialEq> PartialEq for Queue<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<T: Eq> Eq for Queue<T> {}

impl<T: Serialize> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, T: Deserialize<'de> + Clone> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Members(PhantomData))
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Clone> Visitor<'de> for Members<T> {
    type Value = Queue<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut queue = Queue::default();
        while let Some(one) = members.next_element()? {
            queue.push_back(one);
        }
        Ok(queue)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn it_is_a_queue_and_is_encoded_as_one() {
        let (mut queue, mut plain) = (Queue::default(), VecDeque::new());
        for number in 0..5_000u64 {
            queue.push_back(number);
            plain.push_back(number);
            if number >= 1_000 {
                assert_eq!(queue.pop_front(), plain.pop_front());
            }
        }
        assert!(queue.iter().eq(plain.iter()));
        assert_eq!((queue.len(), queue.back()), (plain.len(), plain.back()));
        for wanted in [0, 4_000, 4_321, 9_999] {
            let at = queue.partition_point(|number| *number < wanted);
            assert_eq!(at, plain.partition_point(|number| *number < wanted));
            assert!(queue.range(at..).eq(plain.range(at..)));
        }
        let bytes = rmp_serde::to_vec_named(&plain).unwrap();
        assert_eq!(rmp_serde::to_vec_named(&queue).unwrap(), bytes);
        assert_eq!(rmp_serde::from_slice::<Queue<u64>>(&bytes).unwrap(), queue);
        while plain.pop_front().is_some() {
            assert!(queue.pop_front().is_some());
        }
        assert_eq!((queue.pop_front(), queue.back()), (None, None));
    }
}

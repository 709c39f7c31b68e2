//! Sets and maps of a few: sorted slices of exactly their size. A standard tree takes memory for
//! eleven when it has one, and a state has millions that have one to three.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sorted set of a few.
#[derive(Clone, PartialEq, Eq)]
pub struct FewSet<T>(Box<[T]>);

/// A sorted map of a few.
#[derive(Clone, PartialEq, Eq)]
pub struct FewMap<K, V>(Box<[(K, V)]>);

impl<T> FewSet<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// Removes all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<T: Ord> FewSet<T> {
    /// Whether that one is among them.
    pub fn contains(&self, one: &T) -> bool {
        self.0.binary_search(one).is_ok()
    }

    /// Adds one; whether it was not there.
    pub fn insert(&mut self, one: T) -> bool {
        let Err(at) = self.0.binary_search(&one) else { return false };
        insert_at(&mut self.0, at, one);
        true
    }

    /// Removes one; whether it was there.
    pub fn remove(&mut self, one: &T) -> bool {
        let Ok(at) = self.0.binary_search(one) else { return false };
        remove_at(&mut self.0, at);
        true
    }
}

impl<K, V> FewMap<K, V> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<K: Ord, V> FewMap<K, V> {
    /// The value of that key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => insert_at(&mut self.0, at, (key, value)),
        }
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &K) -> bool {
        let Ok(at) = self.find(key) else { return false };
        remove_at(&mut self.0, at);
        true
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(k, _)| k.cmp(key))
    }
}

fn insert_at<T>(all: &mut Box<[T]>, at: usize, one: T) {
    let mut some = std::mem::take(all).into_vec();
    some.reserve_exact(1);
    some.insert(at, one);
    *all = some.into_boxed_slice();
}

fn remove_at<T>(all: &mut Box<[T]>, at: usize) {
    let mut some = std::mem::take(all).into_vec();
    some.remove(at);
    *all = some.into_boxed_slice();
}

impl<T> Default for FewSet<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<K, V> Default for FewMap<K, V> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for FewSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for FewMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<T: Ord> PartialEq<BTreeSet<T>> for FewSet<T> {
    fn eq(&self, other: &BTreeSet<T>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Ord, V> std::ops::Index<&K> for FewMap<K, V> {
    type Output = V;

    /// # Panics
    /// If there is no such key.
    fn index(&self, key: &K) -> &V {
        self.get(key).expect("no such key")
    }
}

impl<T: Ord> FromIterator<T> for FewSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut all: Vec<T> = all.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        Self(all.into_boxed_slice())
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for FewSet<T> {
    fn from(all: [T; N]) -> Self {
        all.into_iter().collect()
    }
}

impl<T: Ord> From<BTreeSet<T>> for FewSet<T> {
    fn from(all: BTreeSet<T>) -> Self {
        Self(all.into_iter().collect())
    }
}

impl<'a, T: Ord + Copy> Extend<&'a T> for FewSet<T> {
    fn extend<I: IntoIterator<Item = &'a T>>(&mut self, more: I) {
        for one in more {
            self.insert(*one);
        }
    }
}

impl<'a, T> IntoIterator for &'a FewSet<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Serialize> Serialize for FewSet<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, T: Deserialize<'de> + Ord> Deserialize<'de> for FewSet<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from_iter)
    }
}

impl<K: Serialize, V: Serialize> Serialize for FewMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, K, V> Deserialize<'de> for FewMap<K, V>
where
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A key that comes twice has its last value, as everywhere.
        BTreeMap::deserialize(deserializer).map(|all| Self(all.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_the_standard_ones_are() {
        let (mut set, mut plain) = (FewSet::default(), BTreeSet::new());
        let (mut map, mut plain_map) = (FewMap::default(), BTreeMap::new());
        for number in [5u64, 3, 9, 5, 1, 3, 7] {
            assert_eq!(set.insert(number), plain.insert(number));
            map.insert(number, number + 1);
            plain_map.insert(number, number + 1);
        }
        assert_eq!(set, plain);
        assert!(map.iter().eq(plain_map.iter()));
        let (a, b) = (rmp_serde::to_vec_named(&set), rmp_serde::to_vec_named(&plain));
        assert_eq!(a.unwrap(), b.unwrap());
        let bytes = rmp_serde::to_vec_named(&plain_map).unwrap();
        assert_eq!(rmp_serde::to_vec_named(&map).unwrap(), bytes);
        assert_eq!(rmp_serde::from_slice::<FewMap<u64, u64>>(&bytes).unwrap(), map);
        for number in [9u64, 2, 1] {
            assert_eq!(set.remove(&number), plain.remove(&number));
            assert_eq!(map.remove(&number), plain_map.remove(&number).is_some());
            assert_eq!(map.get(&number), None);
        }
        assert_eq!(set, plain);
    }
}

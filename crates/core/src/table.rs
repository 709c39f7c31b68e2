//! Rows under their keys: a [`Map`] whose rows are shared as well, for rows of some size.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Map;

/// A sorted map with clones for nothing, whose rows are copied one by one when they change.
pub struct Table<K, T> {
    rows: Map<K, Arc<T>>,
}

impl<K, T> Table<K, T> {
    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Its keys and rows in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.rows.iter().map(|(key, row)| (key, &**row))
    }

    /// Its keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.rows.keys()
    }

    /// Its rows in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.rows.values().map(|row| &**row)
    }
}

impl<K: Ord + Clone, T> Table<K, T> {
    /// The row of that key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key).map(|row| &**row)
    }

    /// The same, to be held on to.
    pub fn shared<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Arc<T>>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key).cloned()
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.rows.contains_key(key)
    }

    /// Sets a row, and returns the one before.
    pub fn insert(&mut self, key: K, row: impl Into<Arc<T>>) -> Option<Arc<T>> {
        self.rows.insert(key, row.into())
    }

    /// Removes a row, and returns it.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<Arc<T>>
    where
        K: Borrow<Q>,
    {
        self.rows.remove(key)
    }

    /// The row of that key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut T>
    where
        K: Borrow<Q>,
        T: Clone,
    {
        self.rows.get_mut(key).map(Arc::make_mut)
    }

    /// Changes every row.
    pub fn for_each_mut(&mut self, mut change: impl FnMut(&mut T))
    where
        T: Clone,
    {
        for key in self.keys().cloned().collect::<Vec<_>>() {
            if let Some(row) = self.get_mut(&key) {
                change(row);
            }
        }
    }

    /// Keeps the rows for which `wanted` holds.
    pub fn retain(&mut self, mut wanted: impl FnMut(&K, &T) -> bool) {
        self.rows.retain(|key, row| wanted(key, row));
    }
}

impl<K, T> Clone for Table<K, T> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone() }
    }
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { rows: Map::default() }
    }
}

impl<K: fmt::Debug, T: fmt::Debug> fmt::Debug for Table<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.fmt(f)
    }
}

impl<K: PartialEq, T: PartialEq> PartialEq for Table<K, T> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl<K: Eq, T: Eq> Eq for Table<K, T> {}

impl<K: Ord + Clone, T> std::ops::Index<&K> for Table<K, T> {
    type Output = T;

    /// # Panics
    /// If there is no such key.
    fn index(&self, key: &K) -> &T {
        &self.rows[key]
    }
}

impl<K: Ord + Clone, T> FromIterator<(K, T)> for Table<K, T> {
    fn from_iter<I: IntoIterator<Item = (K, T)>>(rows: I) -> Self {
        Self { rows: rows.into_iter().map(|(key, row)| (key, Arc::new(row))).collect() }
    }
}

impl<K: Serialize, T: Serialize> Serialize for Table<K, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K, T> Deserialize<'de> for Table<K, T>
where
    K: Deserialize<'de> + Ord + Clone,
    T: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(|rows| Self { rows })
    }
}

//! A sorted map whose clone costs nothing: clones share what neither has changed since.
//!
//! A B+ tree whose nodes are counted references. A change copies the nodes between the root and its
//! leaf if another clone still sees them, and else changes them in place; so a reader may hold a
//! state for as long as it likes, and the price is what has changed meanwhile.
//!
//! ```text
//!            [ k0 │ k32 │ k64 ]                a change below k32 in a clone:
//!           ╱      │       ╲                   the root and that leaf are copied,
//!   [k0…k31]   [k32…k63]   [k64…]              the other leaves belong to both
//! ```
//!
//! Order is the keys' and nothing else, so every node of a cluster iterates alike (I4). Keys that
//! come in order fill their leaves: that is how containers are made and how states are decoded.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Rows of a leaf, and children of a branch, at most.
const WIDTH: usize = 32;

/// A sorted map with clones for nothing.
pub struct Map<K, V> {
    root: Option<Arc<Node<K, V>>>,
    len: usize,
}

/// Never empty, but for a moment within a removal.
#[derive(Clone)]
enum Node<K, V> {
    Leaf(Vec<(K, V)>),
    /// Each child with a key that none in it is below, but for the first child of a branch, which
    /// also takes what is below its key.
    Branch(Vec<Child<K, V>>),
}

type Child<K, V> = (K, Arc<Node<K, V>>);

impl<K, V> Map<K, V> {
    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its rows in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut iter = Iter { above: Vec::new(), leaf: [].iter(), left: self.len };
        if let Some(root) = &self.root {
            iter.descend(root);
        }
        iter
    }

    /// Its keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Its values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Map<K, V> {
    /// The value of that key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Node::Leaf(rows) => return find(rows, key).ok().map(|at| &rows[at].1),
                Node::Branch(children) => node = &children[child_of(children, key)].1,
            }
        }
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Its rows from that key on, in order.
    pub fn range_from<'a, Q>(
        &'a self,
        from: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        // How many are left is not known, and the bound that the walk stops at is not needed.
        let mut iter = Iter { above: Vec::new(), leaf: [].iter(), left: usize::MAX };
        let mut node = self.root.as_deref();
        while let Some(Node::Branch(children)) = node {
            let at = child_of(children, from);
            iter.above.push(children[at + 1..].iter());
            node = Some(&children[at].1);
        }
        if let Some(Node::Leaf(rows)) = node {
            iter.leaf = rows[find(rows, from).unwrap_or_else(|at| at)..].iter();
        }
        std::iter::from_fn(move || iter.step())
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// Sets the value of a key, and returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Some(root) = &mut self.root else {
            self.root = Some(Arc::new(Node::Leaf(vec![(key, value)])));
            self.len = 1;
            return None;
        };
        let (old, sibling) = put(root, key, value);
        if let Some(sibling) = sibling {
            let first = (root.first_key().clone(), root.clone());
            *root = Arc::new(Node::Branch(vec![first, sibling]));
        }
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes a key, and returns the value that it had.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if !self.contains_key(key) {
            return None;
        }
        let root = self.root.as_mut()?;
        let old = take(root, key)?;
        self.len -= 1;
        while let Node::Branch(children) = &**root
            && let [(_, only)] = &children[..]
        {
            *root = only.clone();
        }
        if root.len() == 0 {
            self.root = None;
        }
        Some(old)
    }

    /// The value of that key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if !self.contains_key(key) {
            return None;
        }
        let mut node = self.root.as_mut()?;
        loop {
            match Arc::make_mut(node) {
                Node::Leaf(rows) => {
                    return find(rows, key).ok().map(|at| &mut rows[at].1);
                }
                Node::Branch(children) => {
                    let at = child_of(children, key);
                    node = &mut children[at].1;
                }
            }
        }
    }

    /// The value of that key, which begins as the default one, to be changed.
    pub fn get_or_default(&mut self, key: &K) -> Option<&mut V>
    where
        V: Default,
    {
        if !self.contains_key(key) {
            self.insert(key.clone(), V::default());
        }
        self.get_mut(key)
    }

    /// Keeps the rows for which `wanted` holds.
    pub fn retain(&mut self, mut wanted: impl FnMut(&K, &V) -> bool) {
        let gone = self.iter().filter(|(key, value)| !wanted(key, value));
        for key in gone.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.remove(&key);
        }
    }
}

impl<K, V> Node<K, V> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(rows) => rows.len(),
            Self::Branch(children) => children.len(),
        }
    }

    fn first_key(&self) -> &K {
        match self {
            Self::Leaf(rows) => &rows[0].0,
            Self::Branch(children) => &children[0].0,
        }
    }

    /// Takes in what is above all of its own.
    fn absorb(&mut self, right: Self) {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => left.extend(right),
            (Self::Branch(left), Self::Branch(right)) => left.extend(right),
            _ => unreachable!("every leaf is equally far from the root"),
        }
    }
}

fn find<K: Borrow<Q>, V, Q: Ord + ?Sized>(rows: &[(K, V)], key: &Q) -> Result<usize, usize> {
    rows.binary_search_by(|(k, _)| k.borrow().cmp(key))
}

fn child_of<K: Borrow<Q>, V, Q: Ord + ?Sized>(children: &[Child<K, V>], key: &Q) -> usize {
    children.partition_point(|(k, _)| k.borrow() <= key).saturating_sub(1)
}

/// The value before, and what no longer fits into the node.
type Put<K, V> = (Option<V>, Option<Child<K, V>>);

fn put<K: Ord + Clone, V: Clone>(node: &mut Arc<Node<K, V>>, key: K, value: V) -> Put<K, V> {
    match Arc::make_mut(node) {
        Node::Leaf(rows) => match find(rows, &key) {
            Ok(at) => (Some(std::mem::replace(&mut rows[at].1, value)), None),
            Err(at) => {
                let right = insert_at(rows, at, (key, value));
                (None, right.map(|right| (right[0].0.clone(), Arc::new(Node::Leaf(right)))))
            }
        },
        Node::Branch(children) => {
            let at = child_of(children, &key);
            let (old, sibling) = put(&mut children[at].1, key, value);
            let right = sibling.and_then(|sibling| insert_at(children, at + 1, sibling));
            (old, right.map(|right| (right[0].0.clone(), Arc::new(Node::Branch(right)))))
        }
    }
}

/// Returns the right part if there were too many for one node. What is added at the end leaves a
/// full node behind.
fn insert_at<T>(all: &mut Vec<T>, at: usize, one: T) -> Option<Vec<T>> {
    all.reserve_exact(1);
    all.insert(at, one);
    if all.len() <= WIDTH {
        return None;
    }
    let at_end = at + 1 == all.len();
    let right = all.split_off(if at_end { WIDTH } else { WIDTH / 2 });
    all.shrink_to_fit();
    Some(right)
}

fn take<K, V, Q>(node: &mut Arc<Node<K, V>>, key: &Q) -> Option<V>
where
    K: Ord + Clone + Borrow<Q>,
    V: Clone,
    Q: Ord + ?Sized,
{
    match Arc::make_mut(node) {
        Node::Leaf(rows) => find(rows, key).ok().map(|at| rows.remove(at).1),
        Node::Branch(children) => {
            let at = child_of(children, key);
            let old = take(&mut children[at].1, key)?;
            tidy(children, at);
            Some(old)
        }
    }
}

/// Drops a child that became empty, and joins one that became small with a neighbour.
fn tidy<K: Clone, V: Clone>(children: &mut Vec<Child<K, V>>, at: usize) {
    match children[at].1.len() {
        0 => drop(children.remove(at)),
        small if small <= WIDTH / 4 && children.len() > 1 => {
            let left = at.min(children.len() - 2);
            if children[left].1.len() + children[left + 1].1.len() <= WIDTH {
                let (from, right) = children.remove(left + 1);
                let mut right = Arc::unwrap_or_clone(right);
                if let Node::Branch(children) = &mut right {
                    // It is the first of a branch no longer, and may have what is below its key.
                    children[0].0 = from;
                }
                Arc::make_mut(&mut children[left].1).absorb(right);
            }
        }
        _ => {}
    }
}

/// The rows of a [`Map`] in order.
pub struct Iter<'a, K, V> {
    above: Vec<std::slice::Iter<'a, Child<K, V>>>,
    leaf: std::slice::Iter<'a, (K, V)>,
    left: usize,
}

impl<'a, K, V> Iter<'a, K, V> {
    fn descend(&mut self, mut node: &'a Node<K, V>) {
        loop {
            match node {
                Node::Leaf(rows) => {
                    self.leaf = rows.iter();
                    return;
                }
                Node::Branch(children) => {
                    let mut children = children.iter();
                    let Some((_, first)) = children.next() else { return };
                    self.above.push(children);
                    node = first;
                }
            }
        }
    }

    fn step(&mut self) -> Option<(&'a K, &'a V)> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            let siblings = self.above.last_mut()?;
            match siblings.next() {
                Some((_, next)) => self.descend(next),
                None => drop(self.above.pop()),
            }
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.step()?;
        self.left -= 1;
        Some(row)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for Map<K, V> {}

impl<K: Ord, V> std::ops::Index<&K> for Map<K, V> {
    type Output = V;

    /// # Panics
    /// If there is no such key.
    fn index(&self, key: &K) -> &V {
        self.get(key).expect("no such key")
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        let mut map = Self::default();
        for (key, value) in rows {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Serialize, V: Serialize> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, K, V> Deserialize<'de> for Map<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Rows(PhantomData))
    }
}

struct Rows<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Rows<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    type Value = Map<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::default();
        // What the input says of its length takes no memory (I27).
        while let Some((key, value)) = rows.next_entry()? {
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A sequence that looks like none (Knuth's LCG), for reproducible steps.
    fn steps(seed: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(seed), |x| {
            Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
        })
        .map(|x| x >> 33)
    }

    fn same(map: &Map<u64, u64>, plain: &BTreeMap<u64, u64>) {
        assert!(map.iter().eq(plain.iter()));
        assert_eq!((map.len(), map.iter().len_hint()), (plain.len(), plain.len()));
    }

    impl<K, V> Iter<'_, K, V> {
        fn len_hint(&self) -> usize {
            self.size_hint().0
        }
    }

    /// A branch that was joined with its neighbour lost what was below its first child's key.
    #[test]
    fn what_is_below_a_joined_branch_s_first_key_is_still_found() {
        let mut map: Map<u64, u64> = Map::default();
        for key in 0..3_000 {
            map.insert(key, key);
        }
        for key in 1_024..=1_055 {
            map.remove(&key);
        }
        map.insert(1_030, 1);
        for key in (1_200..2_000).chain(0..800) {
            map.remove(&key);
        }
        assert_eq!(map.get(&1_030), Some(&1));
        assert_eq!(map.insert(1_030, 2), Some(1));
        assert!(map.iter().all(|(key, value)| map.get(key) == Some(value)));
    }

    /// The same, wherever ranges are taken out and filled again.
    #[test]
    fn every_row_is_found_whatever_ranges_come_and_go() {
        for seed in 1..=20 {
            let (mut map, mut plain) = (Map::default(), BTreeMap::new());
            for key in 0..4_000u64 {
                map.insert(key, key);
                plain.insert(key, key);
            }
            let mut random = steps(seed);
            for _ in 0..60 {
                let mut below = |most: u64| random.next().unwrap() % most;
                let (from, len) = (below(4_000), below(900));
                for key in from..from + len {
                    assert_eq!(map.remove(&key), plain.remove(&key), "{key}");
                }
                for _ in 0..below(40) {
                    let key = from + below(len + 1);
                    assert_eq!(map.insert(key, len), plain.insert(key, len), "{key}");
                }
            }
            same(&map, &plain);
            assert!(plain.iter().all(|(key, value)| map.get(key) == Some(value)));
        }
    }

    /// Whatever is done to it, it is what a plain sorted map is; and no clone ever changes (I4).
    #[test]
    fn it_is_a_sorted_map_and_its_clones_never_change() {
        for (seed, keys) in [(1, 8), (2, 200), (3, 5_000), (4, 1 << 30)] {
            let (mut map, mut plain) = (Map::default(), BTreeMap::new());
            let mut held = Vec::new();
            let mut random = steps(seed);
            let mut next = move || random.next().unwrap_or_default();
            for step in 0..20_000u64 {
                let key = next() % keys;
                // Growing and shrinking in turn.
                let removes = if step / 4_000 % 2 == 0 { 3 } else { 7 };
                match next() % 10 {
                    what if what < removes => assert_eq!(map.remove(&key), plain.remove(&key)),
                    8 => {
                        let (a, b) = (map.get_mut(&key), plain.get_mut(&key));
                        assert_eq!(a, b);
                        if let (Some(a), Some(b)) = (a, b) {
                            (*a, *b) = (step, step);
                        }
                    }
                    _ => assert_eq!(map.insert(key, step), plain.insert(key, step)),
                }
                assert_eq!(map.get(&key), plain.get(&key));
                if step % 1_000 == 0 {
                    held.push((map.clone(), plain.clone()));
                    let from = next() % keys;
                    assert!(map.range_from(&from).eq(plain.range(from..)));
                }
            }
            same(&map, &plain);
            held.iter().for_each(|(map, plain)| same(map, plain));
            map.retain(|key, _| key % 3 == 0);
            plain.retain(|key, _| key % 3 == 0);
            same(&map, &plain);
            for key in plain.keys() {
                map.remove(key);
            }
            same(&map, &BTreeMap::new());
        }
    }

    /// What comes in order fills its leaves, so that a million rows take what they must.
    #[test]
    fn keys_in_order_fill_their_leaves() {
        let map: Map<u64, ()> = (0..10_000).map(|key| (key, ())).collect();
        fn leaves(node: &Node<u64, ()>) -> usize {
            match node {
                Node::Leaf(_) => 1,
                Node::Branch(children) => children.iter().map(|(_, child)| leaves(child)).sum(),
            }
        }
        assert_eq!(leaves(map.root.as_ref().unwrap()), 10_000usize.div_ceil(WIDTH));
    }

    #[test]
    fn it_is_encoded_as_a_map_is() {
        let map: Map<u64, String> = (0..100).map(|key| (key, key.to_string())).collect();
        let plain: BTreeMap<u64, String> = (0..100).map(|key| (key, key.to_string())).collect();
        let bytes = rmp_serde::to_vec_named(&plain).unwrap();
        assert_eq!(rmp_serde::to_vec_named(&map).unwrap(), bytes);
        assert_eq!(rmp_serde::from_slice::<Map<u64, String>>(&bytes).unwrap(), map);
    }
}

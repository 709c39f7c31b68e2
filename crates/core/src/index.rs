//! Who belongs to what: the way back from a column of a table to its rows. Derived, never encoded.

use crate::Map;

/// For each `A`, a sorted set of `B`.
#[derive(Debug, Clone)]
pub(crate) struct Index<A, B>(Map<A, Map<B, ()>>);

impl<A: Ord + Clone, B: Ord + Clone> Index<A, B> {
    pub(crate) fn add(&mut self, of: &A, one: B) {
        if let Some(all) = self.0.get_or_default(of) {
            all.insert(one, ());
        }
    }

    pub(crate) fn remove(&mut self, of: &A, one: &B) {
        let Some(all) = self.0.get_mut(of) else { return };
        all.remove(one);
        if all.is_empty() {
            self.0.remove(of);
        }
    }

    /// Those of `of`, in order.
    pub(crate) fn of<'a>(&'a self, of: &A) -> impl Iterator<Item = &'a B> + use<'a, A, B> {
        self.0.get(of).into_iter().flat_map(Map::keys)
    }

    pub(crate) fn count(&self, of: &A) -> usize {
        self.0.get(of).map_or(0, Map::len)
    }
}

impl<A, B> Default for Index<A, B> {
    fn default() -> Self {
        Self(Map::default())
    }
}

//! Which blocks of a volume were written to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::HASH_BLOCK;

/// Blocks in a word.
const WORD: u64 = 64;

/// The blocks of [`HASH_BLOCK`] that a delta writes to: a sparse bitmap, word by number, so that a
/// TiB written at random takes 32 KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Touched {
    words: BTreeMap<u64, u64>,
    /// It may be any block.
    #[serde(default)]
    any: bool,
}

impl Touched {
    /// What it was before an interruption that nothing is known of.
    pub(crate) fn anything() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Whether it may be any block.
    pub(crate) fn is_anything(&self) -> bool {
        self.any
    }

    /// Something was written there.
    pub(crate) fn add(&mut self, offset: u64, len: u64) {
        let (mut block, end) = (offset / HASH_BLOCK, (offset + len).div_ceil(HASH_BLOCK));
        while block < end {
            let word = block / WORD;
            let first = block % WORD;
            let last = (end - word * WORD).min(WORD);
            let bits = (u64::MAX >> (WORD - last)) & (u64::MAX << first);
            *self.words.entry(word).or_default() |= bits;
            block = (word + 1) * WORD;
        }
    }

    /// Whether something was written to that block.
    pub(crate) fn contains(&self, block: u64) -> bool {
        let word = self.words.get(&(block / WORD)).copied().unwrap_or(0);
        self.any || word & (1 << (block % WORD)) != 0
    }

    /// Adds what another delta wrote to.
    pub(crate) fn join(&mut self, other: &Self) {
        self.any |= other.any;
        for (word, bits) in &other.words {
            *self.words.entry(*word).or_default() |= bits;
        }
    }

    /// The listed blocks, in order.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().flat_map(|(word, bits)| {
            (0..WORD).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| word * WORD + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(writes in prop::collection::vec((0u64..1 << 32, 1u64..1 << 30), 0..20)) {
            let (mut touched, mut model) = (Touched::default(), BTreeSet::new());
            for (offset, len) in writes {
                touched.add(offset, len);
                model.extend(offset / HASH_BLOCK..(offset + len).div_ceil(HASH_BLOCK));
            }
            prop_assert!(touched.blocks().eq(model.iter().copied()));
            prop_assert!((0..2000).all(|block| touched.contains(block) == model.contains(&block)));
            let text = serde_json::to_string(&touched).unwrap();
            prop_assert_eq!(serde_json::from_str::<Touched>(&text).unwrap(), touched);
        }
    }

    /// Eight data members lie far apart.
    #[test]
    fn members_are_far_apart() {
        let mut touched = Touched::default();
        touched.add(u64::from(u32::MAX) << 16, 1);
        touched.add(0, 1);
        assert_eq!(touched.words.len(), 2);
    }
}

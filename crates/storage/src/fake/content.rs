//! Sparse content in shared blocks: equal pointers are equal content, as reflinked extents are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::pool::{Extent, ExtentKind};

const BLOCK: u64 = 4096;

/// A volume's bytes; absent blocks are zeros.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content(BTreeMap<u64, Arc<[u8; BLOCK as usize]>>);

impl Content {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.len() as u64 * BLOCK
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let within = (at % BLOCK) as usize;
            let n = rest.len().min(BLOCK as usize - within);
            let block = self.0.entry(at / BLOCK).or_insert_with(|| Arc::new([0; BLOCK as usize]));
            // A new block even if unshared, so that pointers tell versions apart.
            let mut copy = **block;
            copy[within..within + n].copy_from_slice(&rest[..n]);
            *block = Arc::new(copy);
            at += n as u64;
            rest = &rest[n..];
        }
    }

    pub(crate) fn zero(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        let touched = self.0.range(offset / BLOCK..end.div_ceil(BLOCK));
        for index in touched.map(|(index, _)| *index).collect::<Vec<_>>() {
            let (first, last) = (index * BLOCK, (index + 1) * BLOCK);
            if offset <= first && last <= end {
                self.0.remove(&index);
            } else {
                let (from, to) = (offset.max(first), end.min(last));
                self.write(from, &vec![0; (to - from) as usize]);
            }
        }
    }

    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = (at % BLOCK) as usize;
            let n = rest.len().min(BLOCK as usize - within);
            let (now, later) = rest.split_at_mut(n);
            match self.0.get(&(at / BLOCK)) {
                Some(block) => now.copy_from_slice(&block[within..within + n]),
                None => now.fill(0),
            }
            at += n as u64;
            rest = later;
        }
    }

    pub(crate) fn diff(&self, base: &Self, size: u64) -> Vec<Extent> {
        let indexes: BTreeSet<u64> = self.0.keys().chain(base.0.keys()).copied().collect();
        let mut extents: Vec<Extent> = Vec::new();
        for index in indexes.into_iter().filter(|index| index * BLOCK < size) {
            let kind = match (self.0.get(&index), base.0.get(&index)) {
                (Some(a), Some(b)) if Arc::ptr_eq(a, b) => continue,
                (Some(_), _) => ExtentKind::Data,
                (None, _) => ExtentKind::Hole,
            };
            let offset = index * BLOCK;
            match extents.last_mut() {
                Some(last) if last.offset + last.len == offset && last.kind == kind => {
                    last.len += BLOCK;
                }
                _ => extents.push(Extent { offset, len: BLOCK, kind }),
            }
        }
        extents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_names_what_was_written_and_what_was_discarded() {
        let mut base = Content::default();
        base.write(0, &[1; 3 * BLOCK as usize]);
        let mut next = base.clone();
        next.write(BLOCK + 5, &[2]);
        next.zero(2 * BLOCK, BLOCK);
        let kinds: Vec<_> = next.diff(&base, 1 << 20).iter().map(|e| (e.offset, e.kind)).collect();
        assert_eq!(kinds, [(BLOCK, ExtentKind::Data), (2 * BLOCK, ExtentKind::Hole)]);
    }
}

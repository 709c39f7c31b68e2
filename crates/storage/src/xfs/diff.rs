//! Where two snapshots differ, by the physical extents of their files.
//!
//! While a snapshot lives its blocks are shared or its own, and XFS never overwrites a shared
//! block in place: so where both files map the same physical block at the same offset, the
//! content is the same. Elsewhere it may differ. An unwritten extent reads as zeros, as a hole.

use std::fs::File;
use std::os::fd::AsFd;

use crate::pool::{Extent, ExtentKind};
use crate::sys::{self, FiemapExtent};
use crate::{Error, Result};

const LAST: u32 = 0x1;
const UNWRITTEN: u32 = 0x800;
/// Unknown, delayed, encoded, encrypted, unaligned, inline, tail: no physical place to compare.
const PLACELESS: u32 = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400;

/// Written content at `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    start: u64,
    end: u64,
    /// Physical byte that `start` is at, if known.
    physical: Option<u64>,
}

impl Run {
    fn physical_at(&self, offset: u64) -> Option<u64> {
        Some(self.physical? + (offset - self.start))
    }
}

/// Where `snapshot`, of `size` bytes, may differ from `base`.
pub(super) fn diff(base: Option<&File>, snapshot: &File, size: u64) -> Result<Vec<Extent>> {
    let base = base.map(runs).transpose()?.unwrap_or_default();
    Ok(compare(&base, &runs(snapshot)?, size))
}

/// In how many pieces a snapshot's file lies, written or not.
pub(super) fn extents(file: &File) -> Result<u64> {
    sys::fiemap_count(file.as_fd()).map_err(Error::io("counting", "a snapshot's extents"))
}

fn runs(file: &File) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut start = 0;
    loop {
        let batch = sys::fiemap(file.as_fd(), start)
            .map_err(Error::io("mapping", "a snapshot's extents"))?;
        runs.extend(batch.iter().filter(|e| e.flags & UNWRITTEN == 0).map(run));
        match batch.last() {
            Some(last) if last.flags & LAST == 0 => start = last.logical + last.length,
            _ => return Ok(runs),
        }
    }
}

fn run(extent: &FiemapExtent) -> Run {
    Run {
        start: extent.logical,
        end: extent.logical + extent.length,
        physical: (extent.flags & PLACELESS == 0).then_some(extent.physical),
    }
}

/// Walks both lists of runs in step, from one boundary to the next.
fn compare(base: &[Run], new: &[Run], size: u64) -> Vec<Extent> {
    let mut out: Vec<Extent> = Vec::new();
    let (mut b, mut n) = (base.iter().peekable(), new.iter().peekable());
    let mut at = 0;
    while at < size {
        while b.next_if(|r| r.end <= at).is_some() {}
        while n.next_if(|r| r.end <= at).is_some() {}
        let (old, now) = (b.peek(), n.peek());
        let edge =
            |r: Option<&&&Run>| r.map_or(size, |r| if r.start > at { r.start } else { r.end });
        let end = edge(old.as_ref()).min(edge(now.as_ref())).min(size);
        let old = old.filter(|r| r.start <= at);
        let now = now.filter(|r| r.start <= at);
        let kind = match (old, now) {
            (None, None) => None,
            (Some(_), None) => Some(ExtentKind::Hole),
            (None, Some(_)) => Some(ExtentKind::Data),
            (Some(old), Some(now)) => match (old.physical_at(at), now.physical_at(at)) {
                (Some(x), Some(y)) if x == y => None,
                _ => Some(ExtentKind::Data),
            },
        };
        if let Some(kind) = kind {
            match out.last_mut() {
                Some(last) if last.offset + last.len == at && last.kind == kind => {
                    last.len += end - at;
                }
                _ => out.push(Extent { offset: at, len: end - at, kind }),
            }
        }
        at = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, end: u64, physical: u64) -> Run {
        Run { start, end, physical: Some(physical) }
    }

    fn kinds(extents: &[Extent]) -> Vec<(u64, u64, ExtentKind)> {
        extents.iter().map(|e| (e.offset, e.len, e.kind)).collect()
    }

    #[test]
    fn only_what_lies_elsewhere_differs() {
        // Block 2 of 0..8 was rewritten at 90; 10..12 is new; 20..24 was discarded.
        let base = [run(0, 8, 100), run(20, 24, 300)];
        let new = [run(0, 2, 100), run(2, 3, 90), run(3, 8, 103), run(10, 12, 500)];
        assert_eq!(
            kinds(&compare(&base, &new, 40)),
            [(2, 1, ExtentKind::Data), (10, 2, ExtentKind::Data), (20, 4, ExtentKind::Hole)]
        );
        assert_eq!(compare(&new, &new, 40), []);
    }

    #[test]
    fn a_base_that_is_smaller_is_zeros_beyond_its_end() {
        let new = [run(0, 8, 100), run(30, 40, 200)];
        assert_eq!(kinds(&compare(&new[..1], &new, 40)), [(30, 10, ExtentKind::Data)]);
        assert_eq!(kinds(&compare(&[], &new, 35))[1], (30, 5, ExtentKind::Data));
    }

    #[test]
    fn extents_without_a_known_place_always_differ() {
        let placeless = [Run { start: 0, end: 8, physical: None }];
        assert_eq!(compare(&placeless, &placeless, 8).len(), 1);
    }
}

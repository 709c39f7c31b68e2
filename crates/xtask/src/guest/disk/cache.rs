//! A disk with a volatile write cache: what was not flushed when the power goes is there or not,
//! block by block, in any version that was written since the last flush.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::dice::Dice;

/// What a disk writes at once or not at all.
pub(super) const BLOCK: u64 = 4096;

/// A real cache is as bounded: past so many blocks it writes out by itself.
const MOST_BLOCKS: usize = 1 << 15;

/// A block's content.
type Content = Box<[u8]>;

/// The disk.
pub(crate) struct Cached {
    /// What would be there if the power went now and all of the cache with it.
    durable: File,
    size: u64,
    /// Each block's versions since the last flush, the newest last.
    pending: BTreeMap<u64, Vec<Content>>,
    versions: usize,
}

impl Cached {
    /// On an image file of `size` bytes, which is whole blocks.
    pub(super) fn new(durable: File, size: u64) -> Self {
        Self { durable, size, pending: BTreeMap::new(), versions: 0 }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How many block versions wait for a flush.
    pub(super) fn pending(&self) -> usize {
        self.versions
    }

    /// Fills `buf` from `offset`, as the guest sees it.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.durable.read_exact_at(buf, offset)?;
        let end = offset + buf.len() as u64;
        for (block, versions) in self.pending.range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let Some(newest) = versions.last() else { continue };
            let (from, to) = ((block * BLOCK).max(offset), ((block + 1) * BLOCK).min(end));
            let within = (from - block * BLOCK) as usize..(to - block * BLOCK) as usize;
            buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(&newest[within]);
        }
        Ok(())
    }

    /// Takes a write; `through` has it durable at once.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], through: bool) -> io::Result<()> {
        let end = offset + data.len() as u64;
        for block in offset / BLOCK..end.div_ceil(BLOCK) {
            let (from, to) = ((block * BLOCK).max(offset), ((block + 1) * BLOCK).min(end));
            let mut content = vec![0; BLOCK as usize].into_boxed_slice();
            if to - from < BLOCK {
                self.read(block * BLOCK, &mut content)?;
            }
            let within = (from - block * BLOCK) as usize..(to - block * BLOCK) as usize;
            content[within]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
            if through {
                self.durable.write_all_at(&content, block * BLOCK)?;
                // A disk does not put something older over it.
                self.versions -= self.pending.remove(&block).map_or(0, |versions| versions.len());
            } else {
                self.pending.entry(block).or_default().push(content);
                self.versions += 1;
            }
        }
        if self.versions > MOST_BLOCKS { self.flush() } else { Ok(()) }
    }

    /// Makes all of it durable.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.versions = 0;
        for (block, versions) in std::mem::take(&mut self.pending) {
            if let Some(newest) = versions.last() {
                self.durable.write_all_at(newest, block * BLOCK)?;
            }
        }
        Ok(())
    }

    /// The power goes. Of each block the disk may have written any version, or none.
    pub(super) fn cut(&mut self, dice: &mut Dice) -> io::Result<()> {
        self.versions = 0;
        for (block, versions) in std::mem::take(&mut self.pending) {
            let which = dice.below(versions.len() as u64 + 1) as usize;
            if let Some(version) = which.checked_sub(1).and_then(|at| versions.get(at)) {
                self.durable.write_all_at(version, block * BLOCK)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Cached {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(16 * BLOCK).expect("sized");
        Cached::new(file, 16 * BLOCK)
    }

    fn block(disk: &Cached, at: u64) -> u8 {
        let mut buf = [0; 1];
        disk.read(at * BLOCK, &mut buf).expect("read");
        buf[0]
    }

    #[test]
    fn what_was_flushed_stays_and_what_was_not_may_go() {
        let (mut kept, mut lost, mut older) = (0, 0, 0);
        for seed in 0..200 {
            let mut disk = disk();
            disk.write(0, &[1; BLOCK as usize], false).expect("written");
            disk.flush().expect("flushed");
            disk.write(BLOCK, &[2; BLOCK as usize], true).expect("written");
            disk.write(2 * BLOCK, &[3; BLOCK as usize], false).expect("written");
            disk.write(2 * BLOCK, &[4; BLOCK as usize], false).expect("written");
            assert_eq!([0, 1, 2].map(|at| block(&disk, at)), [1, 2, 4], "the guest sees it all");
            disk.cut(&mut Dice::new(seed)).expect("cut");
            assert_eq!((block(&disk, 0), block(&disk, 1)), (1, 2));
            match block(&disk, 2) {
                4 => kept += 1,
                3 => older += 1,
                0 => lost += 1,
                other => panic!("{other}"),
            }
        }
        assert!(kept > 30 && lost > 30 && older > 30, "{kept} {older} {lost}");
    }

    /// What went through the cache is not undone by what waited in it before.
    #[test]
    fn nothing_older_comes_after_what_went_through() {
        for seed in 0..50 {
            let mut disk = disk();
            disk.write(0, &[1; BLOCK as usize], false).expect("written");
            disk.write(512, &[2; 512], true).expect("written");
            disk.cut(&mut Dice::new(seed)).expect("cut");
            let mut buf = [0; 1024];
            disk.read(0, &mut buf).expect("read");
            assert_eq!((buf[0], buf[512]), (1, 2));
        }
    }
}

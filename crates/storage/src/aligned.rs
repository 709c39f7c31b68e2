//! Memory as direct I/O wants it.

/// What direct I/O is aligned to, in memory and on disk: the largest logical block of a disk.
pub(crate) const ALIGN: usize = 4096;

/// A buffer of fixed size that begins at a multiple of [`ALIGN`].
#[derive(Debug)]
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { bytes, start, len }
    }

    pub(crate) fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub(crate) fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// Whether a transfer of that memory to or from that offset can bypass the page cache.
pub(crate) fn is_aligned(offset: u64, buf: &[u8]) -> bool {
    let start = buf.as_ptr().align_offset(ALIGN) == 0;
    start && buf.len().is_multiple_of(ALIGN) && offset.is_multiple_of(ALIGN as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_where_direct_io_may() {
        let mut buffer = Aligned::new(3 * ALIGN);
        assert_eq!(buffer.get().len(), 3 * ALIGN);
        assert!(is_aligned(8192, buffer.get_mut()) && is_aligned(0, &buffer.get()[ALIGN..]));
        assert!(!is_aligned(512, buffer.get()) && !is_aligned(0, &buffer.get()[1..]));
        assert!(!is_aligned(0, &buffer.get()[..100]));
    }
}

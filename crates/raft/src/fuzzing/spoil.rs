//! Bytes that go wrong, in the same ways each time.

/// The same numbers each time (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Some of the ways in which bytes go wrong.
    pub(crate) fn spoil(&mut self, body: &mut Vec<u8>) {
        let at = self.below(body.len());
        match self.below(7) {
            0 => body.truncate(at),
            1 => body.extend((0..self.below(64)).map(|n| n as u8)),
            2 => {
                let piece = body[at..(at + self.below(40)).min(body.len())].to_vec();
                let to = self.below(body.len());
                body.splice(to..to, piece);
            }
            // Lengths and numbers at the end of their ranges.
            3 => {
                let what = [0xdd, 0xdf, 0xc6, 0xdb, 0xcf, 0xce, 0xd9, 0xc9][self.below(8)];
                let to = (at + 9).min(body.len());
                body.splice(at..to, [what].into_iter().chain([0xff; 8]));
            }
            4 if !body.is_empty() => body[at] = [0xc0, 0xc1, 0x80, 0x90, 0xff, 0][self.below(6)],
            _ if !body.is_empty() => body[at] ^= 1 << self.below(8),
            _ => {}
        }
    }
}

//! What is on the disks.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Result;

/// Written at once.
const PIECE: usize = 4 << 20;

/// A small fast generator (xorshift64*): what it makes does not compress.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        out.chunks_mut(8).for_each(|out| {
            out.copy_from_slice(&self.roll().to_le_bytes()[..out.len()]);
        });
    }
}

/// Words of a small language, as text and code compress: to about two fifths.
fn text(dice: &mut Dice, out: &mut [u8]) {
    let mut at = 0;
    while at < out.len() {
        let roll = dice.roll();
        // Small numbers are frequent, as words are.
        let word = (roll & 0xFFF).min((roll >> 12) & 0xFFF);
        let mut letters = Dice::new(word + 1);
        let len = (3 + word % 7) as usize;
        let end = (at + len).min(out.len());
        out[at..end].iter_mut().for_each(|b| *b = b'a' + (letters.roll() % 26) as u8);
        if end < out.len() {
            out[end] = b' ';
        }
        at = end + 1;
    }
}

/// Of eight pieces of 4 MiB four are noise, three are text, and one is written zeros.
pub(crate) fn mixed(file: &File, bytes: u64) -> Result<()> {
    let mut dice = Dice::new(7);
    let mut buf = vec![0; PIECE];
    // Text is slow to make, so it is made once and rotated.
    let mut words = vec![0; 64 << 20];
    text(&mut dice, &mut words);
    for (i, offset) in (0..bytes).step_by(PIECE).enumerate() {
        match i % 8 {
            0 | 2 | 4 | 6 => dice.fill(&mut buf),
            1 | 3 | 5 => {
                let from = dice.below((words.len() - PIECE) as u64) as usize;
                buf.copy_from_slice(&words[from..from + PIECE]);
            }
            _ => buf.fill(0),
        }
        let len = (bytes - offset).min(PIECE as u64) as usize;
        file.write_all_at(&buf[..len], offset)?;
    }
    Ok(())
}

/// Noise alone.
pub(crate) fn noise(file: &File, bytes: u64, seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let mut buf = vec![0; PIECE];
    for offset in (0..bytes).step_by(PIECE) {
        dice.fill(&mut buf);
        let len = (bytes - offset).min(PIECE as u64) as usize;
        file.write_all_at(&buf[..len], offset)?;
    }
    Ok(())
}

/// New noise in `count` pieces of `len` bytes, anywhere below `within`, no two in the same place.
pub(crate) fn scattered(file: &File, within: u64, len: u64, count: u64, seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let mut buf = vec![0; len as usize];
    let places = within / len;
    let stride = places / count.max(1);
    for i in 0..count {
        // One place in each stretch of the same length.
        let place = i * stride + dice.below(stride);
        dice.fill(&mut buf);
        file.write_all_at(&buf, place * len)?;
    }
    Ok(())
}

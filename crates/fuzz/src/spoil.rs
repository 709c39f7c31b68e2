//! Bytes that go wrong, in the same ways each time.

/// Asks for more, or fewer, inputs than a test has by itself.
const ROUNDS: &str = "HOLDFAST_FUZZ_ROUNDS";

/// Has each seed read as it is, and then `rounds` inputs that were made of them.
pub fn spoiled(seeds: &[Vec<u8>], rounds: usize, read: impl Fn(&[u8])) {
    let asked = std::env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok());
    let mut random = Random::new(0x0DD_BA11);
    seeds.iter().for_each(|seed| read(seed));
    for _ in 0..asked.unwrap_or(rounds) {
        let mut input = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(5) {
            random.spoil(&mut input);
        }
        read(&input);
    }
}

/// The same numbers each time (xorshift64*).
pub struct Random(u64);

impl Random {
    /// Of a seed, which is not 0.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// One below `n`; 0 if that is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }

    /// Some of the ways in which bytes go wrong.
    pub fn spoil(&mut self, body: &mut Vec<u8>) {
        let at = self.below(body.len());
        match self.below(8) {
            0 => body.truncate(at),
            1 => body.extend((0..self.below(64)).map(|n| n as u8)),
            2 => {
                let piece = body[at..(at + self.below(40)).min(body.len())].to_vec();
                let to = self.below(body.len());
                body.splice(to..to, piece);
            }
            // Lengths and numbers of MessagePack at the end of their ranges.
            3 => {
                let what = [0xdd, 0xdf, 0xc6, 0xdb, 0xcf, 0xce, 0xd9, 0xc9][self.below(8)];
                let to = (at + 9).min(body.len());
                body.splice(at..to, [what].into_iter().chain([0xff; 8]));
            }
            // The same of protobuf, and in text.
            4 => {
                let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
                let what = [&most[..], b"18446744073709551615", b"-1", "ß".as_bytes()];
                let to = (at + 1).min(body.len());
                body.splice(at..to, what[self.below(4)].iter().copied());
            }
            5 if !body.is_empty() => body[at] = [0xc0, 0xc1, 0x80, 0x90, 0xff, 0][self.below(6)],
            _ if !body.is_empty() => body[at] ^= 1 << self.below(8),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_same_inputs_come_each_time_and_few_of_them_are_seeds() {
        let run = || {
            let inputs = RefCell::new(Vec::new());
            let seeds = [b"a seed".to_vec(), Vec::new()];
            spoiled(&seeds, 100, |input| inputs.borrow_mut().push(input.to_vec()));
            inputs.into_inner()
        };
        let inputs = run();
        assert_eq!(inputs[..2], [b"a seed".to_vec(), Vec::new()]);
        let same = inputs.iter().filter(|input| *input == b"a seed").count();
        assert!(same < 20, "{same} of {}", inputs.len());
        assert_eq!(run(), inputs);
    }
}

//! How fast bytes may leave: a token bucket, kept as the moment from which the next bytes may go
//! (the generic cell rate algorithm of ITU-T I.371). Time comes in from outside.

use std::time::Duration;

use holdfast_types::ByteSize;

/// What a silence is worth: so much of the rate may go at once after it.
const BURST_NS: u64 = 250_000_000;

/// One limit.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: u64,
    free_ns: u64,
}

impl Bucket {
    /// So many bytes in a second, at least one.
    pub(crate) fn new(rate: ByteSize) -> Self {
        Self { rate: rate.bytes().max(1), free_ns: 0 }
    }

    /// Takes so many bytes, and returns how long to wait before they may go. Whoever asks first goes
    /// first, so that those who share a limit share it evenly.
    pub(crate) fn take(&mut self, now_ns: u64, bytes: u64) -> Duration {
        let from = self.free_ns.max(now_ns.saturating_sub(BURST_NS));
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        self.free_ns = from.saturating_add(u64::try_from(cost).unwrap_or(u64::MAX));
        Duration::from_nanos(from.saturating_sub(now_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const PIECE: u64 = 64 << 10;

    /// What goes out until `end_ns` if each piece waits as it is told.
    fn sent(bucket: &mut Bucket, mut now_ns: u64, end_ns: u64) -> u64 {
        let mut sent = 0;
        loop {
            now_ns += u64::try_from(bucket.take(now_ns, PIECE).as_nanos()).unwrap();
            if now_ns > end_ns {
                return sent;
            }
            sent += PIECE;
        }
    }

    #[test]
    fn in_the_long_run_no_more_than_the_rate_goes_and_no_less() {
        let start_ns = 1_000 * SECOND_NS;
        let mut bucket = Bucket::new(ByteSize::mib(10));
        let sent = sent(&mut bucket, start_ns, start_ns + 100 * SECOND_NS);
        let asked = ByteSize::mib(1_000).bytes();
        let burst = ByteSize::mib(10).bytes() / 4 + PIECE;
        assert!((asked..=asked + burst).contains(&sent), "{sent} of {asked}");
    }

    /// An hour of silence does not pay for an hour of flood.
    #[test]
    fn a_silence_is_worth_a_quarter_of_a_second() {
        let mut bucket = Bucket::new(ByteSize::mib(10));
        bucket.take(SECOND_NS, PIECE);
        let now_ns = 3_600 * SECOND_NS;
        let sent = sent(&mut bucket, now_ns, now_ns);
        assert!(sent <= ByteSize::mib(10).bytes() / 4 + PIECE, "{sent}");
    }

    #[test]
    fn those_who_share_a_limit_wait_in_turn() {
        let mut bucket = Bucket::new(ByteSize::mib(1));
        let now_ns = 10 * SECOND_NS;
        while bucket.take(now_ns, PIECE).is_zero() {}
        let waits = [1, 2, 3].map(|_| bucket.take(now_ns, PIECE).as_micros());
        let step = 62_500;
        assert_eq!([waits[1] - waits[0], waits[2] - waits[1]], [step, step]);
    }
}

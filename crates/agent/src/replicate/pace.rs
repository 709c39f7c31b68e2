//! How soon a volume gets its next snapshot.
//!
//! What lies in many pieces takes long to compare (DESIGN section 7), so it is compared less often:
//! the interval grows with the number of pieces, but never to where it alone would break what was
//! promised of the data's age.

use std::time::Duration;

use holdfast_storage::Fragmentation;
use holdfast_types::ContainerSpec;

/// So far below the mark, in percent of it, a volume counts as whole again.
const CALM_PERCENT: u64 = 90;

/// However long the data's age may be, an operator finds a copy of the last minute or two.
const LONGEST_MS: u64 = 60_000;

/// The interval after a snapshot that lies in so many pieces. Half of the promised age is left for
/// taking and shipping the next one, and for noticing that a node is lost.
pub(crate) fn interval(spec: &ContainerSpec, pieces: &Fragmentation) -> Duration {
    let every_ms = spec.replicate_every_ms;
    let wanted =
        u128::from(every_ms) * u128::from(pieces.extents) / u128::from(pieces.comfortable.max(1));
    let longest_ms = (spec.max_data_loss_ms / 2).min(LONGEST_MS).max(every_ms);
    let stretched_ms = u64::try_from(wanted).unwrap_or(u64::MAX);
    Duration::from_millis(stretched_ms.clamp(every_ms, longest_ms))
}

/// The interval on a pool of whose life so much is over: at the end each snapshot is dear.
pub(crate) fn sparing(spec: &ContainerSpec, period: Duration, worn_percent: u8) -> Duration {
    const DEAR_PERCENT: u8 = 80;
    const TIMES: u32 = 4;
    let every_ms = spec.replicate_every_ms;
    let longest_ms = (spec.max_data_loss_ms / 2).min(LONGEST_MS).max(every_ms);
    match worn_percent >= DEAR_PERCENT {
        true => (period * TIMES).min(Duration::from_millis(longest_ms)).max(period),
        false => period,
    }
}

/// Whether a volume is to be called torn, given whether it was.
pub(crate) fn torn(pieces: &Fragmentation, before: bool) -> bool {
    let mark = match before {
        true => pieces.comfortable * CALM_PERCENT / 100,
        false => pieces.comfortable,
    };
    pieces.extents > mark
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(extents: u64) -> Fragmentation {
        Fragmentation { extents, comfortable: 3_000 }
    }

    /// I22: the interval grows with the cost, and stops well before the promise.
    #[test]
    fn the_interval_grows_and_keeps_the_promise() {
        let spec = ContainerSpec::default();
        let ms = |spec: &ContainerSpec, extents| interval(spec, &pieces(extents)).as_millis();
        for (extents, expected) in
            [(0, 5_000), (3_000, 5_000), (6_000, 10_000), (19_000, 30_000), (u64::MAX, 30_000)]
        {
            assert_eq!(ms(&spec, extents), expected, "{extents}");
        }
        let tight = ContainerSpec { max_data_loss_ms: 6_000, ..ContainerSpec::default() };
        assert_eq!(ms(&tight, 19_000), 5_000, "nothing to give");
        let loose = ContainerSpec { max_data_loss_ms: 86_400_000, ..ContainerSpec::default() };
        assert_eq!(ms(&loose, u64::MAX), 60_000, "not for ever");
    }

    #[test]
    fn a_volume_at_the_mark_is_not_told_of_at_each_snapshot() {
        assert!(!torn(&pieces(3_000), false) && torn(&pieces(3_001), false));
        assert!(torn(&pieces(2_900), true) && !torn(&pieces(2_700), true));
    }

    /// I22: near the end of a pool's life there are fewer snapshots, and the promise is kept.
    #[test]
    fn a_worn_pool_is_spared() {
        let spec = ContainerSpec::default();
        let ms = |worn| sparing(&spec, Duration::from_secs(5), worn).as_millis();
        assert_eq!([ms(0), ms(79), ms(80), ms(95)], [5_000, 5_000, 20_000, 20_000]);
        assert_eq!(sparing(&spec, Duration::from_secs(20), 80).as_secs(), 30);
    }
}

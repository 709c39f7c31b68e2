//! How full a half of the pool is, its data or its metadata, by marks that operators are told of.

/// Past this, operators are told.
const WARN_PERCENT: u8 = 80;

/// So far below a mark it counts as left: a pool at the mark must not be told of at each look.
const CALM_PERCENT: u8 = 2;

/// Between which marks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Fine,
    Filling,
    Full,
}

impl Level {
    /// The level of what is so full, and was at `before`.
    pub(super) fn of(percent: u8, threshold_percent: u8, before: Self) -> Self {
        let at = |percent: u8| match percent {
            p if p >= threshold_percent => Self::Full,
            p if p >= WARN_PERCENT => Self::Filling,
            _ => Self::Fine,
        };
        at(percent).max(before.min(at(percent.saturating_add(CALM_PERCENT))))
    }
}

/// Which half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Data,
    Metadata,
}

impl Half {
    /// The kind of the event that tells of a level, and its words, which say what to do.
    pub(super) fn event(self, percent: u8, level: Level) -> (&'static str, String) {
        let stops = "nothing new is admitted, no replicas are received and no snapshots taken";
        match (self, level) {
            (Self::Data, Level::Fine) => ("pool-ok", format!("the pool is at {percent} % again")),
            (Self::Data, Level::Filling) => ("pool-filling", format!("the pool is at {percent} %")),
            (Self::Data, Level::Full) => (
                "pool-full",
                format!(
                    "the pool is at {percent} %: {stops}; delete what is not needed, or grow the pool"
                ),
            ),
            (Self::Metadata, Level::Fine) => {
                ("pool-metadata-ok", format!("the pool's metadata is at {percent} % again"))
            }
            (Self::Metadata, Level::Filling) => (
                "pool-metadata-filling",
                format!("the pool's metadata is at {percent} %: grow the metadata"),
            ),
            (Self::Metadata, Level::Full) => (
                "pool-metadata-full",
                format!(
                    "the pool's metadata is at {percent} %: {stops}; grow the metadata: more data \
                     would not help"
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I20: operators hear of it before and when admission stops, and not at each look.
    #[test]
    fn a_pool_is_told_of_once_at_each_mark() {
        let mut level = Level::Fine;
        let mut levels = Vec::new();
        for percent in [70, 80, 79, 80, 91, 89, 90, 87, 78, 77] {
            level = Level::of(percent, 90, level);
            levels.push(level);
        }
        use Level::{Filling, Fine, Full};
        let expected = [Fine, Filling, Filling, Filling, Full, Full, Full, Filling, Filling, Fine];
        assert_eq!(levels, expected);
    }

    #[test]
    fn every_event_of_a_half_has_a_kind_of_its_own() {
        let levels = [Level::Fine, Level::Filling, Level::Full];
        let kind = |half: Half, level| half.event(95, level).0;
        let mut kinds: Vec<_> = levels.iter().map(|l| kind(Half::Data, *l)).collect();
        kinds.extend(levels.iter().map(|l| kind(Half::Metadata, *l)));
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), 6);
    }
}

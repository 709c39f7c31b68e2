//! When the pool's reserve is given to what runs, and when it is filled again (DESIGN section 7,
//! *Full pools*).

use holdfast_storage::{Capacity, Outcome, Pool, Result};
use holdfast_types::ByteSize;

use super::level::Level;

/// Past this what runs needs the reserve.
const LAST_PERCENT: u8 = 97;

/// What is to be done about the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Fill,
    Spend,
}

/// By what the pool says of itself.
pub(super) fn due(capacity: &Capacity, reserved: ByteSize, level: Level) -> Due {
    match reserved {
        held if held > ByteSize(0) && capacity.data_percent() >= LAST_PERCENT => Due::Spend,
        held if held < capacity.reserve() && level != Level::Full => Due::Fill,
        _ => Due::Nothing,
    }
}

/// What became of it that operators should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    None,
    /// So much was given away.
    Spent(ByteSize),
    /// It is what it should be again.
    Whole,
}

impl News {
    /// The event's kind and words, in a pool that is so full.
    pub(super) fn event(self, percent: u8) -> Option<(&'static str, String)> {
        match self {
            Self::None => None,
            Self::Spent(size) => Some((
                "pool-reserve-used",
                format!(
                    "the pool is at {percent} %: its reserve of {size} was given to what runs on it; \
                     grow the pool now, or delete what is not needed"
                ),
            )),
            Self::Whole => Some(("pool-reserve-kept", "the pool has its reserve again".to_owned())),
        }
    }
}

/// Keeps a pool's reserve.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// It was given away, and is not whole since.
    spent: bool,
}

impl Keeper {
    /// Does what is due, a little of it.
    pub(super) fn keep(
        &mut self,
        pool: &dyn Pool,
        capacity: &Capacity,
        level: Level,
    ) -> Result<News> {
        let reserved = pool.reserved();
        match due(capacity, reserved, level) {
            Due::Nothing => Ok(News::None),
            Due::Spend => {
                pool.spend_reserve()?;
                self.spent = true;
                Ok(News::Spent(reserved))
            }
            Due::Fill => match pool.fill_reserve() {
                Ok(Outcome::AlreadyThere) => Ok(News::None),
                Ok(Outcome::Changed) if pool.reserved() < capacity.reserve() => Ok(News::None),
                Ok(Outcome::Changed) => match std::mem::take(&mut self.spent) {
                    true => Ok(News::Whole),
                    false => Ok(News::None),
                },
                // There is not that much room yet.
                Err(error) if error.code() == holdfast_types::Code::PoolFull => Ok(News::None),
                Err(error) => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_storage::PoolIdentity;
    use holdfast_storage::fake::FakePool;
    use holdfast_types::{ClusterId, Epoch, VolumeUid};
    use uuid::Uuid;

    const UID: VolumeUid = VolumeUid(Uuid::from_u128(7));
    const MIB: usize = 1 << 20;

    /// I20: it is kept while there is room, given away at the last mark and no sooner, and comes
    /// back when there is room again, each said once.
    #[test]
    fn the_reserve_goes_at_the_last_mark_and_comes_back() {
        let cluster = ClusterId(Uuid::from_u128(1));
        let identity = PoolIdentity { cluster, pool: Uuid::from_u128(2) };
        let pool = FakePool::new(identity, ByteSize::mib(400));
        pool.create(UID, ByteSize::mib(400), Epoch(1)).unwrap();
        pool.activate(UID, Epoch(1)).unwrap();
        let mut keeper = Keeper::default();
        let mut look = || {
            let capacity = pool.capacity().unwrap();
            let level = Level::of(capacity.used_percent(), 90, Level::Fine);
            keeper.keep(&pool, &capacity, level).unwrap()
        };
        assert_eq!(look(), News::None);
        assert_eq!(pool.reserved(), ByteSize::mib(8), "2 % of it");
        pool.write(UID, 0, &vec![7; 370 * MIB]).unwrap();
        assert_eq!(
            (look(), pool.reserved()),
            (News::None, ByteSize::mib(8)),
            "full, not at the end"
        );
        pool.write(UID, 370 << 20, &vec![7; 12 * MIB]).unwrap();
        assert_eq!((look(), pool.reserved()), (News::Spent(ByteSize::mib(8)), ByteSize(0)));
        assert_eq!(look(), News::None);
        pool.discard(UID, 0, 300 << 20).unwrap();
        assert_eq!((look(), pool.reserved()), (News::Whole, ByteSize::mib(8)));
        assert_eq!(look(), News::None);
    }
}

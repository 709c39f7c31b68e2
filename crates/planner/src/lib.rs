//! The planner: replicated state + observations + now → commands with reasons. Pure: the same
//! inputs give the same plan (I24), and whatever it decides can be printed and compared.
//!
//! | file | decides |
//! |---|---|
//! | `place` | where a new container's primary and replicas go (I23) |
//! | `grow` | whether every copy of a container may grow (I20, I23) |
//! | `room` | whether a node has room for a copy, or to run a container (I23) |
//! | `takeover` | which lost containers wait for a takeover, and what to do with each (I15, I22) |
//! | `brake` | when takeovers stop for a person: landslides, cold starts |
//! | `schedule` | which snapshots by the clock are due, and which are kept no longer |
//! | `replicas` | which replicas to add and which to drop |
//! | `votes` | which nodes vote in Raft, one safe step after another |

mod brake;
mod grow;
mod observe;
mod place;
mod replicas;
mod room;
mod schedule;
mod takeover;
#[cfg(test)]
mod testing;
mod votes;

pub use brake::{Brake, COLD_START_GRACE_MS, brake};
pub use grow::{GrowthError, may_grow};
pub use observe::{HeldCopy, NodeObservation, Observations, PoolObservation};
pub use place::{Placement, PlacementError, place};
pub use replicas::{REBUILD_AFTER_MS, plan_replicas};
pub use room::WhyNot;
pub use schedule::{SnapshotsDue, plan_snapshots, schedule_trouble};
pub use takeover::{SealedCopy, TakeoverCase, TakeoverDecision, cases, decide, live_holders};
pub use votes::{
    Follower, Quorum, REPLACE_AFTER_MS, may_leave, part_of_newcomer, plan_votes, substitute,
    vote_note, vote_trouble,
};

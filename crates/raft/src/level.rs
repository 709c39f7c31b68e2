//! What may be said: nothing goes into the log that some node cannot read (DESIGN section 9).
//!
//! A node that is too old for what was said already stops, and names what to do; it never passes
//! over what it cannot read (I4).

use holdfast_core::{Entry, State};
use holdfast_types::FeatureLevel;
use tokio::sync::watch;

use crate::error::RaftError;
use crate::published::Applied;
use crate::store::Health;

/// Whether the cluster's level allows an entry.
pub(crate) fn allows(state: &State, entry: &Entry) -> Result<(), RaftError> {
    let (needs, level) = (entry.command.level(), state.feature_level);
    if needs <= level { Ok(()) } else { Err(RaftError::FeatureLevel { needs, level }) }
}

/// Whether this version understands everything that may be said in that cluster.
pub(crate) fn check(state: &State) -> Result<(), RaftError> {
    check_against(state.feature_level, FeatureLevel::OURS)
}

fn check_against(level: FeatureLevel, ours: FeatureLevel) -> Result<(), RaftError> {
    if level <= ours {
        return Ok(());
    }
    let what =
        format!("its cluster has feature level {level}, and this version understands {ours}");
    Err(RaftError::VersionTooOld { what })
}

/// Stops the node once its cluster says more than it understands.
pub(crate) async fn watch(mut applied: watch::Receiver<Applied>, health: Health) {
    while applied.changed().await.is_ok() {
        let checked = check(&applied.borrow_and_update().state);
        if let Err(error) = checked {
            health.fail(error);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::{Command, RaiseLevel, RecoverCluster};
    use holdfast_types::{Code, NodeId, RequestId, TimestampMs};
    use std::collections::BTreeSet;

    fn entry(command: Command) -> Entry {
        Entry { request: RequestId::generate(), at: TimestampMs(0), command }
    }

    #[test]
    fn what_is_too_new_is_not_said_and_the_raise_itself_is() {
        let recover = Command::RecoverCluster(RecoverCluster {
            generation: 1,
            survivor: NodeId(1),
            members: BTreeSet::new(),
            by: String::new(),
            log_end: 0,
            committed: 0,
        });
        let mut state = State::default();
        let refused = allows(&state, &entry(recover.clone())).unwrap_err();
        assert_eq!(refused.code(), Code::FeatureLevel);
        allows(&state, &entry(Command::RaiseLevel(RaiseLevel { to: FeatureLevel(9) }))).unwrap();
        state.feature_level = FeatureLevel::DISASTERS;
        allows(&state, &entry(recover)).unwrap();
    }

    #[test]
    fn a_version_that_is_too_old_stops() {
        check_against(FeatureLevel(3), FeatureLevel(3)).unwrap();
        let error = check_against(FeatureLevel(4), FeatureLevel(3)).unwrap_err();
        assert_eq!(error.code(), Code::VersionTooOld);
    }
}

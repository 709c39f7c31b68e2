//! The authorities that are believed, and which of them certifies.

use holdfast_types::Code;
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Outcome, Refusal, Response, TrustedAuthority};

/// One certifies; while it is replaced there are two.
const MOST: usize = 2;

/// Sets them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAuthorities {
    /// The certificates of those that are believed before; otherwise somebody else changes them too.
    pub before: Vec<Vec<u8>>,
    /// Those that are believed from now on. The first certifies.
    pub authorities: Vec<TrustedAuthority>,
    /// Whether the second is on its way out.
    #[serde(default)]
    pub retiring: bool,
    /// What this is a step of, for people.
    pub reason: String,
}

impl SetAuthorities {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        change.state.cluster()?;
        if self.authorities.is_empty() || self.authorities.len() > MOST {
            return Err(Refusal::new(Code::InvalidArgument, "one authority, or two for a while"));
        }
        let now = &change.state.trust.authorities;
        if !now.iter().map(|authority| &authority.certificate).eq(&self.before) {
            let message = "the authorities were changed meanwhile";
            return Err(Refusal::new(Code::Conflict, message));
        }
        change.state.trust.authorities = self.authorities;
        change.state.trust.retiring = self.retiring;
        // Whoever had the old authority's key could make tokens.
        change.state.trust.close_tokens();
        change.event("authorities-set", None, None, self.reason, []);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, init};
    use crate::{Command, Hidden};

    fn set(before: &[u8], after: &[u8]) -> Command {
        let authority = |n: &u8| TrustedAuthority { certificate: vec![*n], key: Hidden(vec![*n]) };
        Command::SetAuthorities(SetAuthorities {
            before: before.iter().map(|n| vec![*n]).collect(),
            authorities: after.iter().map(authority).collect(),
            retiring: false,
            reason: "a test".into(),
        })
    }

    #[test]
    fn two_who_change_authorities_at_once_do_not_undo_each_other() {
        let mut world = World::default();
        assert_eq!(world.refused(set(&[], &[1])), Code::NotInitialized);
        world.ok(init());
        world.ok(set(&[], &[1]));
        world.ok(set(&[1], &[1, 2]));
        assert_eq!(world.refused(set(&[1], &[1, 3])), Code::Conflict);
        world.ok(set(&[1, 2], &[2, 1]));
        assert_eq!(world.refused(set(&[2, 1], &[])), Code::InvalidArgument);
        world.ok(set(&[2, 1], &[2]));
    }

    /// A key is nowhere that people look: not in what is printed, not in events, not in a backup.
    #[test]
    fn keys_are_shown_to_nobody() {
        let mut world = World::default();
        world.ok(init());
        world.ok(set(&[], &[77]));
        assert!(!format!("{:?}", world.state.trust.authorities[0].key).contains("77"));
        assert!(world.state.without_secrets().trust.authorities.is_empty());
    }
}

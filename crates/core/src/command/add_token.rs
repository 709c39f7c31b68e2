//! A token that lets one machine in.

use holdfast_types::{Code, TimestampMs};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::apply::Change;
use crate::trust::MAX_TOKENS;
use crate::{Outcome, Refusal, Response, Token};

/// Adds one. Those that have expired are forgotten by the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddToken {
    /// Its id.
    pub id: Uuid,
    /// The hash of its secret.
    pub hash: [u8; 32],
    /// Who made it, for people.
    pub by: String,
    /// From when on it lets nobody in.
    pub expires: TimestampMs,
}

impl AddToken {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        change.state.cluster()?;
        if change.state.trust.authorities.len() > 1 {
            let message = "the authority is being replaced: make the token when that is done (holdfast \
                           cluster status)";
            return Err(Refusal::new(Code::WrongState, message));
        }
        let (now, tokens) = (change.at, &mut change.state.trust.tokens);
        let open = |expires: TimestampMs| now < expires;
        if !open(self.expires) {
            return Err(Refusal::new(Code::InvalidArgument, "the token would expire at once"));
        }
        let expired: Vec<_> =
            tokens.iter().filter(|(_, token)| !open(token.expires)).map(|(id, _)| *id).collect();
        for id in expired {
            tokens.remove(&id);
        }
        // A retry whose answer is forgotten must not make a used token good again.
        if tokens.contains_key(&self.id) {
            return Ok(Outcome::Unchanged);
        }
        if tokens.len() >= MAX_TOKENS {
            let message =
                format!("there are {MAX_TOKENS} join tokens already: wait until some expire");
            return Err(Refusal::new(Code::WrongState, message));
        }
        let message = format!("{} made a join token", self.by);
        let (hash, by, made, expires) = (self.hash, self.by, now, self.expires);
        tokens.insert(self.id, Token { hash, by, made, expires, used: None });
        change.event("token-made", None, None, message, [("token", self.id.to_string())]);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::testing::{World, init};

    fn add(n: u128, expires: u64) -> Command {
        let (id, expires) = (Uuid::from_u128(n), TimestampMs(expires));
        Command::AddToken(AddToken { id, hash: [7; 32], by: "root on n1".into(), expires })
    }

    /// I27: the state does not grow with tokens that nobody uses.
    #[test]
    fn expired_tokens_make_room() {
        let mut world = World::default();
        world.ok(init());
        assert_eq!(world.refused(add(1, 1)), Code::InvalidArgument);
        for n in 0..MAX_TOKENS as u128 {
            world.ok(add(n, 20_000_000));
        }
        assert_eq!(world.refused(add(20_000, 90_000_000)), Code::WrongState);
        world.index = 19_999;
        world.ok(add(20_000, 90_000_000));
        assert_eq!(world.state.trust.tokens.len(), 1);
    }
}

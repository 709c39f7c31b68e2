//! A machine comes in with a token.

use holdfast_types::Code;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::apply::Change;
use crate::command::{AdmitNode, NewNode};
use crate::{Outcome, Refusal, Response, Token, Used};

/// Admits a node for a token, which is used up by the same entry: of two machines that come with one
/// token, on whatever sides of an election, one is let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetIn {
    /// The token's id.
    pub token: Uuid,
    /// The hash of the secret that the machine has shown.
    pub hash: [u8; 32],
    /// The hash of the machine's public key.
    pub key: [u8; 32],
    /// The node.
    pub node: NewNode,
}

impl LetIn {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        if change.state.trust.authorities.len() > 1 {
            let message = "the authority is being replaced: join when that is done";
            return Err(Refusal::new(Code::WrongState, message));
        }
        let token = change.state.trust.open_token(&self.token, &self.hash, change.at)?.clone();
        let response = AdmitNode { node: self.node }.apply(change);
        if let Ok(Outcome::Node(node)) = response {
            let used = Some(Used { node, key: self.key });
            change.state.trust.tokens.insert(self.token, Token { used, ..token });
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, init, new_node};
    use crate::{AddToken, Command};
    use holdfast_types::TimestampMs;

    const TOKEN: Uuid = Uuid::from_u128(3);

    fn world() -> World {
        let mut world = World::default();
        world.ok(init());
        let expires = TimestampMs(1_060_000);
        let token = AddToken { id: TOKEN, hash: [7; 32], by: "root on n1".into(), expires };
        world.ok(Command::AddToken(token));
        world
    }

    fn come(name: &str, hash: u8) -> Command {
        let (hash, key, node) = ([hash; 32], [1; 32], new_node(name));
        Command::LetIn(LetIn { token: TOKEN, hash, key, node })
    }

    /// I26: a thief that was thrown out has made tokens before.
    #[test]
    fn removing_a_node_closes_the_tokens_that_it_may_have_made() {
        let mut world = world();
        world.ok(crate::testing::admit("n9"));
        let node = world.state.node_named(&"n9".parse().unwrap()).unwrap().id;
        world.ok(Command::RemoveNode(crate::RemoveNode { node, force: true }));
        assert_eq!(world.refused(come("n2", 7)), Code::Untrusted);
    }

    /// I26: two that come with one token at once, and one that guesses.
    #[test]
    fn a_token_lets_one_machine_in() {
        let mut world = world();
        assert_eq!(world.refused(come("n2", 8)), Code::Untrusted);
        let Outcome::Node(id) = world.ok(come("n2", 7)) else { panic!() };
        assert_eq!(world.refused(come("n3", 7)), Code::Untrusted);
        assert_eq!(world.state.nodes.len(), 2);
        let trust = &world.state.trust;
        assert_eq!(trust.let_in(&TOKEN, &[7; 32], &[1; 32]), Some(id));
        assert_eq!(trust.let_in(&TOKEN, &[7; 32], &[2; 32]), None, "another machine's key");
        assert_eq!(trust.let_in(&TOKEN, &[8; 32], &[1; 32]), None, "another's secret");
    }

    #[test]
    fn a_refused_admission_leaves_the_token_good() {
        let mut world = world();
        assert_eq!(world.refused(come("n1", 7)), Code::AlreadyExists);
        world.ok(come("n2", 7));
    }

    #[test]
    fn an_expired_token_lets_nobody_in() {
        let mut world = world();
        world.index = 60;
        assert_eq!(world.refused(come("n2", 7)), Code::Untrusted);
    }
}

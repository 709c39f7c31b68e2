//! Who may come in: the authorities that say who is who, and the tokens that let machines in.
//!
//! Every node that has the log has the authorities' keys, so any leader can certify, and none is lost
//! with a machine. What is here is no backup's business ([`State::without_secrets`]): a cluster that is
//! restored is another one, with an authority of its own.

use std::fmt;

use holdfast_types::{Code, NodeId, TimestampMs};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Map, Refusal, State};

/// So many tokens may be open at once; who makes one more must wait until some expire.
pub(crate) const MAX_TOKENS: usize = 10_000;

/// What is trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trust {
    /// Whose certificates are believed. The first one certifies; another is on its way in or out.
    pub authorities: Vec<TrustedAuthority>,
    /// Whether the second authority is on its way out; otherwise it is on its way in.
    #[serde(skip_serializing_if = "is_false")]
    pub retiring: bool,
    /// Tokens by their ids, used ones until they expire.
    pub tokens: Map<Uuid, Token>,
}

/// An authority as it is kept: `holdfast_trust` knows what these bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedAuthority {
    /// Its certificate (DER).
    pub certificate: Vec<u8>,
    /// Its private key (PKCS #8).
    pub key: Hidden,
}

/// What is not printed by chance.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub Vec<u8>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// A join token as the cluster knows it: nobody can make the token of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The hash of its secret.
    pub hash: [u8; 32],
    /// Who made it, for people.
    pub by: String,
    /// When it was made.
    pub made: TimestampMs,
    /// From when on it lets nobody in.
    pub expires: TimestampMs,
    /// The machine that it has let in.
    pub used: Option<Used>,
}

/// What a token was used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Whom it let in.
    pub node: NodeId,
    /// The hash of that machine's public key.
    pub key: [u8; 32],
}

impl Trust {
    /// Whether there is nothing: not worth a byte in what older versions hash (I4).
    pub(crate) fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.tokens.is_empty()
    }

    /// A number that says whom to believe, and who certifies; never 0.
    pub fn standing(&self) -> u64 {
        standing(self.authorities.iter().map(|kept| &kept.certificate[..]))
    }

    /// The token of that id, if it still lets somebody in. One refusal for whatever is wrong with it: who
    /// tries tokens out is told nothing.
    pub fn open_token(
        &self,
        id: &Uuid,
        hash: &[u8; 32],
        now: TimestampMs,
    ) -> Result<&Token, Refusal> {
        let good =
            |token: &&Token| token.hash == *hash && token.used.is_none() && now < token.expires;
        self.tokens.get(id).filter(good).ok_or_else(|| {
            let message = "the join token is not good: each lets one machine in, and expires; make \
                           another on a member: holdfast node token";
            Refusal::new(Code::Untrusted, message)
        })
    }

    /// No token lets anybody in any more.
    pub(crate) fn close_tokens(&mut self) {
        let open: Vec<_> = self
            .tokens
            .iter()
            .filter(|(_, token)| token.used.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            self.tokens.remove(&id);
        }
    }

    /// Whom that token has let in, if it was with that key.
    pub fn let_in(&self, id: &Uuid, hash: &[u8; 32], key: &[u8; 32]) -> Option<NodeId> {
        let token = self.tokens.get(id).filter(|token| token.hash == *hash)?;
        token.used.as_ref().filter(|used| used.key == *key).map(|used| used.node)
    }
}

/// A number for these authorities' certificates in this order; never 0.
pub fn standing<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for certificate in certificates {
        hasher.update(blake3::hash(certificate).as_bytes());
    }
    let mut number = [0; 8];
    number.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(number).max(1)
}

fn is_false(value: &bool) -> bool {
    !value
}

impl State {
    /// The same without what nobody else may have: for a backup.
    pub fn without_secrets(&self) -> Self {
        Self { trust: Trust::default(), ..self.clone() }
    }
}

//! Join tokens: one text that lets one machine in, and tells it which cluster that is.
//!
//! ```text
//! hfjoin1.<base64url of: id 16 | secret 32 | fingerprint of the authority 32 | check 4>
//! ```
//! The state keeps the id and the hash of the secret. The check is for typing errors alone.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use crate::{Fingerprint, TrustError};

const PREFIX: &str = "hfjoin1.";
const BODY: usize = 16 + 32 + 32;
const CHECK: usize = 4;

/// Which token. No secret.
pub type TokenId = Uuid;

/// What only who was given the token knows. Printed, it says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl Secret {
    /// A new one.
    pub fn generate() -> Result<Self, TrustError> {
        let mut secret = [0; 32];
        let filled = SystemRandom::new().fill(&mut secret);
        filled.map_err(|_| TrustError::Signing("the system gives no random numbers".into()))?;
        Ok(Self(secret))
    }

    /// What is kept of it.
    pub fn hash(&self) -> [u8; 32] {
        crate::key::hash(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A join token. Its `Display` is the secret text itself; its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Which.
    pub id: TokenId,
    /// What proves that it was given.
    pub secret: Secret,
    /// The authority of the cluster that gave it.
    pub authority: Fingerprint,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.as_bytes().to_vec();
        bytes.extend(self.secret.0);
        bytes.extend(self.authority.0);
        bytes.extend(&crate::key::hash(&bytes)[..CHECK]);
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for JoinToken {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let no = TrustError::NoToken;
        let body = text.trim().strip_prefix(PREFIX).ok_or(no("one begins with hfjoin1."))?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| no("a character is wrong"))?;
        if bytes.len() != BODY + CHECK {
            return Err(no("it is too long or too short: was it cut when it was copied?"));
        }
        let (body, check) = bytes.split_at(BODY);
        if crate::key::hash(body)[..CHECK] != *check {
            return Err(no("a character is wrong"));
        }
        let (mut id, mut secret, mut authority) = ([0; 16], [0; 32], [0; 32]);
        id.copy_from_slice(&body[..16]);
        secret.copy_from_slice(&body[16..48]);
        authority.copy_from_slice(&body[48..]);
        Ok(Self {
            id: Uuid::from_bytes(id),
            secret: Secret(secret),
            authority: Fingerprint(authority),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> JoinToken {
        JoinToken {
            id: Uuid::from_u128(3),
            secret: Secret::generate().unwrap(),
            authority: Fingerprint::of(b"authority"),
        }
    }

    #[test]
    fn a_token_survives_its_text_and_a_typing_error_is_noticed() {
        let text = token().to_string();
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap().to_string(), text);
        assert!(text.len() < 128, "one line: {text}");
        for at in PREFIX.len()..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'A' { b'B' } else { b'A' };
            let typed = String::from_utf8(typed).unwrap();
            assert!(typed.parse::<JoinToken>().is_err(), "{typed}");
            assert!(text[..at].parse::<JoinToken>().is_err());
        }
    }

    #[test]
    fn secrets_are_not_printed_by_chance() {
        let token = token();
        let debug = format!("{token:?} {:?}", token.secret);
        assert_eq!(debug, format!("JoinToken({}) Secret", token.id));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(hfjoin1\\.)?.{0,140}") {
            let _ = text.parse::<JoinToken>();
        }
    }
}

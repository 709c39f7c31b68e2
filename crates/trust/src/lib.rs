//! Who is who: the cluster's authority, the certificates that it gives, and TLS with them.
//!
//! ```text
//! Authority ──signs──▶ certificate of a key ──names──▶ Principal: a member, a worker, a user
//!     │                                                    ▲
//!     └─fingerprint─▶ JoinToken ─▶ newcomer                └── read from a peer's certificate in TLS
//! ```
//! A certificate says *who* somebody is and nothing of what they may do: that is in the replicated state,
//! which also knows whom it has let go since. No IO here, and no clock: time comes in, and TLS is done over
//! what others have connected.

mod authority;
mod bundle;
mod certificate;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod key;
mod principal;
mod tls;
mod token;

pub use authority::{Authority, Fingerprint, LIFETIME, Subject, check_address};
pub use bundle::Bundle;
pub use certificate::{Certificate, Validity};
pub use error::TrustError;
pub use key::{SecretKey, SigningRequest};
pub use principal::Principal;
pub use tls::{Expected, Roster, TlsClient, TlsServer, first_contact, is_at, why_untrusted};
pub use token::{JoinToken, Secret, TokenId};

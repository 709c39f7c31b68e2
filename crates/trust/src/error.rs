//! What is wrong with a key, a certificate or a token.

use holdfast_types::Code;

/// What is wrong with a key, a certificate or a token. Says nothing of secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// What should have been a certificate is none, or names nobody of Holdfast.
    #[error("it is no certificate of a Holdfast cluster: {0}")]
    NoCertificate(&'static str),
    /// What should have been a private key is none.
    #[error("it is no private key")]
    NoKey,
    /// The key and the certificate are not each other's.
    #[error("the certificate is not of that key")]
    OtherKey,
    /// A signing request is malformed, or is not signed by its own key.
    #[error("it is no signing request that was signed with its own key")]
    NoRequest,
    /// A text that is no join token.
    #[error("it is no join token: {0}")]
    NoToken(&'static str),
    /// A file of PEM blocks lacks one.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// No node can be certified for that address.
    #[error("{0:?} is no address of a node: write IP:PORT, [IPv6]:PORT, or NAME:PORT")]
    NoAddress(String),
    /// The library refused.
    #[error("signing failed: {0}")]
    Signing(String),
    /// TLS cannot be set up with that.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl TrustError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::NoToken(_) | Self::NoRequest | Self::NoAddress(_) => Code::InvalidArgument,
            Self::NoCertificate(_) | Self::NoKey | Self::OtherKey | Self::Missing(_) => {
                Code::Corrupt
            }
            Self::Signing(_) | Self::Tls(_) => Code::Internal,
        }
    }
}

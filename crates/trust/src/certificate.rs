//! Reading certificates (RFC 5280): whose it is, and for how long.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::AT;
use crate::{Fingerprint, Principal, TrustError};

/// From when to when a certificate is good, in seconds of Unix time, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from_s: i64,
    /// The last one.
    pub until_s: i64,
}

impl Validity {
    /// When it is to be renewed: at two thirds of its time.
    pub fn renew_at_s(&self) -> i64 {
        self.from_s + (self.until_s - self.from_s) / 3 * 2
    }
}

/// A certificate as it is sent and kept. Nothing is verified here: TLS does that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate(Vec<u8>);

impl Certificate {
    /// The certificate in that DER document.
    pub fn from_der(der: impl Into<Vec<u8>>) -> Result<Self, TrustError> {
        let der = der.into();
        parsed(&der)?;
        Ok(Self(der))
    }

    /// Its DER document.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Its hash.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }

    /// Who it is of.
    pub fn principal(&self) -> Result<Principal, TrustError> {
        let certificate = parsed(&self.0)?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.ok_or(TrustError::NoCertificate("it names nobody"))?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) if !uri.starts_with(AT) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            _ => Err(TrustError::NoCertificate("it does not name one alone")),
        }
    }

    /// Whether it is for who is at that `host:port`.
    pub fn is_at(&self, address: &str) -> Result<bool, TrustError> {
        let certificate = parsed(&self.0)?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let at = format!("{AT}{address}");
        let is_it = |name: &GeneralName<'_>| matches!(name, GeneralName::URI(uri) if *uri == at);
        Ok(names.is_some_and(|names| names.value.general_names.iter().any(is_it)))
    }

    /// When it is good.
    pub fn validity(&self) -> Result<Validity, TrustError> {
        let validity = parsed(&self.0)?.validity().clone();
        let (from, until) = (validity.not_before, validity.not_after);
        Ok(Validity { from_s: from.timestamp(), until_s: until.timestamp() })
    }

    /// The hash of the public key in it.
    pub fn public_key_hash(&self) -> Result<[u8; 32], TrustError> {
        Ok(crate::key::hash(parsed(&self.0)?.public_key().raw))
    }

    pub(crate) fn to_rustls(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.0.clone())
    }
}

fn parsed(der: &[u8]) -> Result<X509Certificate<'_>, TrustError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(TrustError::NoCertificate("something follows it")),
        Err(_) => Err(TrustError::NoCertificate("it cannot be read")),
    }
}

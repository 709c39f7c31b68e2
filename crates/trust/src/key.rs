//! Private keys (ECDSA on P-256) and what is sent to have them certified (PKCS #10, RFC 2986).

use std::fmt;

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::TrustError;

/// A private key. Printed, it says nothing.
pub struct SecretKey(KeyPair);

impl SecretKey {
    /// A new one.
    pub fn generate() -> Result<Self, TrustError> {
        KeyPair::generate().map(Self).map_err(|e| TrustError::Signing(e.to_string()))
    }

    /// The one in that PKCS #8 document.
    pub fn from_der(der: &[u8]) -> Result<Self, TrustError> {
        KeyPair::try_from(der).map(Self).map_err(|_| TrustError::NoKey)
    }

    /// Its PKCS #8 document.
    pub fn to_der(&self) -> Vec<u8> {
        self.0.serialize_der()
    }

    /// A request to certify it, which proves that its sender has it. Who it will be of is the
    /// authority's to say.
    pub fn signing_request(&self) -> Result<Vec<u8>, TrustError> {
        let request = CertificateParams::default().serialize_request(&self.0);
        Ok(request.map_err(|e| TrustError::Signing(e.to_string()))?.der().to_vec())
    }

    /// The hash of its public half.
    pub fn public_key_hash(&self) -> [u8; 32] {
        hash(&self.0.subject_public_key_info())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.to_der()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// A signing request that was signed by the key that it carries.
pub struct SigningRequest(pub(crate) CertificateSigningRequestParams);

impl SigningRequest {
    /// Reads one, and checks its signature.
    pub fn from_der(der: &[u8]) -> Result<Self, TrustError> {
        let der = CertificateSigningRequestDer::from(der);
        let request = CertificateSigningRequestParams::from_der(&der);
        request.map(Self).map_err(|_| TrustError::NoRequest)
    }

    /// The hash of the key's public half.
    pub fn public_key_hash(&self) -> [u8; 32] {
        hash(&self.0.public_key.subject_public_key_info())
    }
}

pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_refused_unless_its_own_key_signed_it() {
        let key = SecretKey::generate().unwrap();
        let request = key.signing_request().unwrap();
        let read = SigningRequest::from_der(&request).unwrap();
        assert_eq!(read.public_key_hash(), key.public_key_hash());
        let mut forged = request.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(SigningRequest::from_der(&forged).is_err());
        for end in 0..request.len() {
            assert!(SigningRequest::from_der(&request[..end]).is_err());
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = SecretKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "SecretKey");
        let again = SecretKey::from_der(&key.to_der()).unwrap();
        assert_eq!(again.public_key_hash(), key.public_key_hash());
        assert!(SecretKey::from_der(b"no key").is_err());
    }
}

//! A key with its certificate and the authorities that its owner believes, as PEM (RFC 7468) in one text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{Certificate, Fingerprint, SecretKey, TrustError};

const KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";
const AUTHORITY: &str = "HOLDFAST AUTHORITY";

/// A line of PEM.
const LINE: usize = 64;

/// Who somebody is, and whom they believe.
#[derive(Debug)]
pub struct Bundle {
    /// Their key.
    pub key: SecretKey,
    /// Who they are.
    pub certificate: Certificate,
    /// Whose certificates they believe; while an authority is being replaced, both.
    pub authorities: Vec<Certificate>,
}

impl Bundle {
    /// Reads one.
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        let (mut key, mut certificate, mut authorities) = (None, None, Vec::new());
        for (label, der) in blocks(text)? {
            match label {
                KEY => key = Some(SecretKey::from_der(&der)?),
                CERTIFICATE => certificate = Some(Certificate::from_der(der)?),
                AUTHORITY => authorities.push(Certificate::from_der(der)?),
                // Of a later version.
                _ => {}
            }
        }
        let key = key.ok_or(TrustError::Missing("private key"))?;
        let certificate = certificate.ok_or(TrustError::Missing("certificate"))?;
        if authorities.is_empty() {
            return Err(TrustError::Missing("authority"));
        }
        if certificate.public_key_hash()? != key.public_key_hash() {
            return Err(TrustError::OtherKey);
        }
        Ok(Self { key, certificate, authorities })
    }

    /// Writes it. A secret.
    pub fn to_pem(&self) -> String {
        let mut text = block(KEY, &self.key.to_der());
        text += &block(CERTIFICATE, self.certificate.der());
        for authority in &self.authorities {
            text += &block(AUTHORITY, authority.der());
        }
        text
    }

    /// Whether it believes that authority.
    pub fn believes(&self, authority: Fingerprint) -> bool {
        self.authorities.iter().any(|known| known.fingerprint() == authority)
    }
}

fn block(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE));
        text += line;
        text.push('\n');
        rest = more;
    }
    text + &format!("-----END {label}-----\n")
}

fn blocks(text: &str) -> Result<Vec<(&str, Vec<u8>)>, TrustError> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let begin = line.strip_prefix("-----BEGIN ").and_then(|line| line.strip_suffix("-----"));
        let Some(label) = begin else { continue };
        let end = format!("-----END {label}-----");
        let mut body = String::new();
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                Some(line) => body += line.trim(),
                None => return Err(TrustError::Missing("end, as if it had been cut")),
            }
        }
        let der = STANDARD.decode(body).map_err(|_| TrustError::Missing("readable content"))?;
        found.push((label, der));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, LIFETIME, Principal, SigningRequest, Subject};
    use holdfast_types::{ClusterId, NodeId};
    use proptest::prelude::*;

    fn bundle() -> Bundle {
        let cluster = ClusterId::generate();
        let authority = Authority::generate(cluster, 1_800_000_000).unwrap();
        let key = SecretKey::generate().unwrap();
        let request = SigningRequest::from_der(&key.signing_request().unwrap()).unwrap();
        let principal = Principal::Member(cluster, NodeId(1));
        let subject = Subject { principal, address: Some("n1:1".into()), name: "n1".into() };
        let certificate = authority.certify(&request, &subject, 1_800_000_000, LIFETIME).unwrap();
        Bundle { key, certificate, authorities: vec![authority.certificate().clone()] }
    }

    #[test]
    fn a_bundle_survives_its_text_and_a_part_of_it_is_none() {
        let bundle = bundle();
        let text = bundle.to_pem();
        let again = Bundle::from_pem(&text).unwrap();
        assert_eq!(again.certificate, bundle.certificate);
        assert_eq!(again.authorities, bundle.authorities);
        assert_eq!(again.to_pem(), text);
        for (at, _) in text.char_indices().filter(|(at, _)| *at + 1 < text.len()) {
            assert!(Bundle::from_pem(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_key_of_another_is_noticed() {
        let (one, other) = (bundle(), bundle());
        let mixed = Bundle { key: other.key, ..one };
        assert_eq!(Bundle::from_pem(&mixed.to_pem()).unwrap_err(), TrustError::OtherKey);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(-----BEGIN [A-Z ]{0,12}-----\n)?.{0,80}\n(-----END [A-Z ]{0,12}-----\n)?") {
            let _ = Bundle::from_pem(&text);
        }
    }
}

//! What a stranger or a file shows to prove who it is: tokens, certificates, signing requests, bundles.

use std::net::Ipv4Addr;

use holdfast_types::{ClusterId, NodeId};
use uuid::Uuid;

use crate::{
    Authority, Bundle, Certificate, Fingerprint, JoinToken, LIFETIME, Principal, Secret, SecretKey,
    SigningRequest, Subject, check_address,
};

/// Reads one: the first byte of an input says what the rest is meant to be.
pub fn read(input: &[u8]) {
    let [which, rest @ ..] = input else { return };
    let text = std::str::from_utf8(rest);
    match (which % 8, text) {
        (0, Ok(text)) => same(text.trim(), text.parse::<JoinToken>().ok()),
        (1, Ok(text)) => same(text, text.parse::<Principal>().ok()),
        (2, Ok(text)) => drop(text.parse::<Fingerprint>()),
        (3, Ok(text)) => drop(check_address(text)),
        (4, Ok(text)) => drop(Bundle::from_pem(text).map(|bundle| bundle.to_pem())),
        (5, _) => drop(SigningRequest::from_der(rest).map(|request| request.public_key_hash())),
        (6, _) => drop(SecretKey::from_der(rest)),
        (7, _) => certificate(rest),
        _ => {}
    }
}

/// What is taken is written as it was: two texts are never one token, or one node.
fn same(text: &str, read: Option<impl ToString>) {
    assert!(read.is_none_or(|read| read.to_string() == text), "{text:?}");
}

fn certificate(der: &[u8]) {
    let Ok(certificate) = Certificate::from_der(der) else { return };
    drop(certificate.principal());
    drop(certificate.validity().map(|validity| validity.renew_at_s()));
    drop(certificate.public_key_hash());
    drop(certificate.is_at("10.0.0.1:7443"));
}

/// One of each.
///
/// # Panics
/// If none can be made.
pub fn seeds() -> Vec<Vec<u8>> {
    const NOW_S: i64 = 1_800_000_000;
    let cluster = ClusterId(Uuid::from_u128(1));
    let principal = Principal::Member(cluster, NodeId(1));
    let address = format!("{}:7443", Ipv4Addr::new(10, 0, 0, 1));
    let authority = Authority::generate(cluster, NOW_S).expect("an authority");
    let key = SecretKey::generate().expect("a key");
    let (secret, request) = (key.to_der(), key.signing_request().expect("a request"));
    let token = JoinToken {
        id: Uuid::from_u128(2),
        secret: Secret([3; 32]),
        authority: authority.certificate().fingerprint(),
    };
    let subject = Subject { principal, address: Some(address.clone()), name: "n1".into() };
    let signing = SigningRequest::from_der(&request).expect("a signing request");
    let certificate = authority.certify(&signing, &subject, NOW_S, LIFETIME).expect("signed");
    let bundle = Bundle {
        key,
        certificate: certificate.clone(),
        authorities: vec![authority.certificate().clone()],
    };
    let texts = [token.to_string(), principal.to_string(), token.authority.to_string(), address];
    let texts = texts.into_iter().chain([bundle.to_pem()]).map(String::into_bytes);
    let others =
        [request, secret, certificate.der().to_vec(), authority.certificate().der().to_vec()];
    let all = texts.chain(others).enumerate();
    all.map(|(which, bytes)| [&[which.min(7) as u8], &bytes[..]].concat()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_credentials_are_read_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 20_000, super::read);
    }
}

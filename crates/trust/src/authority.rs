//! The cluster's authority: a key that says who is who.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use holdfast_types::ClusterId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::{Certificate, Principal, SecretKey, SigningRequest, TrustError};

/// How long a certificate of a node is good, unless its cluster says otherwise.
pub const LIFETIME: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

/// How far the clocks of two machines may be apart: a certificate is good from so long before it was made.
/// A clock that is ahead has the third of its life in which a certificate is renewed.
const SKEW: std::time::Duration = std::time::Duration::from_secs(3600);

/// An authority lives long: it is changed on purpose, with `holdfast cluster rotate-ca`.
const AUTHORITY_LIFETIME: Duration = Duration::days(3_650);

/// What names a node's address in its certificate: a host may have several nodes, at a port each.
pub(crate) const AT: &str = "holdfast-at:";

/// The hash of a certificate, SHA-256 of its DER document.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of that certificate.
    pub fn of(der: &[u8]) -> Self {
        Self(crate::key::hash(der))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let wrong = || TrustError::NoToken("a fingerprint has 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// Whom a certificate is for.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Who it is.
    pub principal: Principal,
    /// Where they are reached, `host:port`: they are believed nowhere else. Nothing for who is never called.
    pub address: Option<String>,
    /// What people call them.
    pub name: String,
}

/// A certificate that signs others, and its key.
#[derive(Debug)]
pub struct Authority {
    certificate: Certificate,
    key: SecretKey,
}

impl Authority {
    /// A new one for that cluster, at that second of Unix time.
    pub fn generate(cluster: ClusterId, now_s: i64) -> Result<Self, TrustError> {
        let key = SecretKey::generate()?;
        let from = moment(now_s)? - skew();
        let mut params = CertificateParams::default();
        params.not_before = from;
        params.not_after = from + AUTHORITY_LIFETIME;
        params.distinguished_name = named(&format!("Holdfast cluster {cluster}"));
        // It signs no other authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(key.pair()).map_err(signing)?;
        Ok(Self { certificate: Certificate::from_der(certificate.der().to_vec())?, key })
    }

    /// The one that was kept as these two documents.
    pub fn from_der(certificate: &[u8], key: &[u8]) -> Result<Self, TrustError> {
        let (certificate, key) = (Certificate::from_der(certificate)?, SecretKey::from_der(key)?);
        match certificate.public_key_hash()? == key.public_key_hash() {
            true => Ok(Self { certificate, key }),
            false => Err(TrustError::OtherKey),
        }
    }

    /// Its certificate, which everybody may know.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its key's document. Whoever has it is the cluster.
    pub fn key_der(&self) -> Vec<u8> {
        self.key.to_der()
    }

    /// Says of the key in `request` that it is `subject`'s, from now on for `lifetime`. Of what the
    /// request says beside its key, nothing is taken over.
    pub fn certify(
        &self,
        request: &SigningRequest,
        subject: &Subject,
        now_s: i64,
        lifetime: std::time::Duration,
    ) -> Result<Certificate, TrustError> {
        let now = moment(now_s)?;
        let mut params = CertificateParams::default();
        params.not_before = now - skew();
        params.not_after = now + Duration::try_from(lifetime).unwrap_or(AUTHORITY_LIFETIME);
        params.distinguished_name = named(&subject.name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if subject.address.is_some() {
            params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let uri = subject.principal.to_string();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(signing)?)];
        if let Some(address) = &subject.address {
            params.subject_alt_names.push(alternative(address)?);
            let at = format!("{AT}{address}").try_into().map_err(signing)?;
            params.subject_alt_names.push(SanType::URI(at));
        }
        let der = self.certificate.to_rustls();
        let issuer = Issuer::from_ca_cert_der(&der, self.key.pair()).map_err(signing)?;
        let certificate = params.signed_by(&request.0.public_key, &issuer).map_err(signing)?;
        Certificate::from_der(certificate.der().to_vec())
    }
}

fn alternative(address: &str) -> Result<SanType, TrustError> {
    Ok(match host(address)? {
        Host::Ip(ip) => SanType::IpAddress(ip),
        Host::Name(name) => SanType::DnsName(name.to_owned().try_into().map_err(signing)?),
    })
}

/// What a `host:port` names.
enum Host<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

/// Whether nodes can be certified for that `host:port`: an IP address, in brackets if of version 6, or a name
/// of RFC 1123 labels. No wildcard: one node is at one place.
pub fn check_address(address: &str) -> Result<(), TrustError> {
    host(address).map(drop)
}

fn host(address: &str) -> Result<Host<'_>, TrustError> {
    let wrong = || TrustError::NoAddress(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse().map(|ip| Host::Ip(IpAddr::V6(ip))).map_err(|_| wrong());
    }
    if let Ok(v4) = host.parse() {
        return Ok(Host::Ip(IpAddr::V4(v4)));
    }
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What ends in a number is meant for an IP address (WHATWG URL, 3.5).
    let last = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    match host.len() <= 253 && host.split('.').all(label) && !last {
        true => Ok(Host::Name(host)),
        false => Err(wrong()),
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn moment(now_s: i64) -> Result<OffsetDateTime, TrustError> {
    OffsetDateTime::from_unix_timestamp(now_s).map_err(|e| TrustError::Signing(e.to_string()))
}

fn skew() -> Duration {
    Duration::seconds(SKEW.as_secs().cast_signed())
}

fn signing(error: rcgen::Error) -> TrustError {
    TrustError::Signing(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::NodeId;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_certificate_says_who_and_for_how_long_and_nothing_that_was_asked_for() {
        let cluster = ClusterId::generate();
        let authority = Authority::generate(cluster, NOW).unwrap();
        let kept =
            Authority::from_der(authority.certificate().der(), &authority.key_der()).unwrap();
        let key = SecretKey::generate().unwrap();
        let request = SigningRequest::from_der(&key.signing_request().unwrap()).unwrap();
        let principal = Principal::Worker(cluster, NodeId(4));
        let subject =
            Subject { principal, address: Some("10.0.0.4:7443".into()), name: "n4".into() };
        let certificate = kept.certify(&request, &subject, NOW, LIFETIME).unwrap();
        assert_eq!(certificate.principal(), Ok(principal));
        assert_eq!(certificate.public_key_hash(), Ok(key.public_key_hash()));
        let validity = certificate.validity().unwrap();
        assert_eq!(validity.from_s, NOW - 3600, "clocks may be an hour apart");
        assert_eq!(validity.until_s, NOW + 30 * 24 * 3600);
        assert!(validity.renew_at_s() < NOW + 20 * 24 * 3600);
    }

    #[test]
    fn a_node_is_at_one_place() {
        for good in ["10.0.0.1:7443", "[fd00::1]:7443", "n1.lan:1", "n1:65535"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "n1",
            "n1:0",
            ":1",
            "*.lan:1",
            "n1.:1",
            "n_1:1",
            "é:1",
            "fd00::1:7443",
            "[fe80::1%eth0]:1",
            "10.0.0.256:1",
            "-n1:1",
            "1.2.3:1",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_authority_is_not_put_together_of_two() {
        let cluster = ClusterId::generate();
        let [one, other] = [0, 1].map(|_| Authority::generate(cluster, NOW).unwrap());
        let mixed = Authority::from_der(one.certificate().der(), &other.key_der());
        assert_eq!(mixed.unwrap_err(), TrustError::OtherKey);
    }

    #[test]
    fn fingerprints_survive_their_text() {
        let fingerprint = Fingerprint::of(b"x");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}

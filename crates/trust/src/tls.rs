//! TLS 1.3 (RFC 8446) with the cluster's certificates, by rustls and ring.
//!
//! A server shows who it is to everybody, and asks the same of its peer: a peer that shows nothing is let
//! through, for whom a join token or a bearer token speaks, and one that shows what is not good is not. A
//! client believes only nodes of its own cluster, each at its own address alone. Nothing is resumed: each
//! connection is judged by the certificates of its own moment.

use std::fmt;
use std::sync::Arc;

use holdfast_types::{ClusterId, NodeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::{Bundle, Certificate, Fingerprint, Principal, TrustError};

/// HTTP/2 (RFC 7540, 3.3).
const PROTOCOL: &[u8] = b"h2";

/// Whether a node is still one of the cluster, as far as is known here.
pub type Roster = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// Whom a client expects at the other end.
#[derive(Clone)]
pub struct Expected {
    /// The cluster that the other end is of.
    pub cluster: ClusterId,
    /// Only one that has the log: to lead, or to be told a secret.
    pub member: bool,
    /// Which nodes are still there.
    pub roster: Option<Roster>,
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, member, .. } = self;
        f.debug_struct("Expected").field("cluster", cluster).field("member", member).finish()
    }
}

impl Expected {
    fn accepts(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let refused = |why| rustls::Error::InvalidCertificate(CertificateError::Other(why));
        let certificate = Certificate::from_der(certificate.to_vec());
        let principal = certificate.and_then(|certificate| certificate.principal());
        let principal = principal.map_err(|e| refused(other(Stranger::Unreadable(e))))?;
        match principal {
            p if p.cluster() != self.cluster => Err(refused(other(Stranger::OtherCluster))),
            Principal::User(..) => Err(refused(other(Stranger::NoNode))),
            Principal::Worker(..) if self.member => Err(refused(other(Stranger::NoMember))),
            Principal::Member(_, node) | Principal::Worker(_, node) => {
                match self.roster.as_ref().is_none_or(|roster| roster(node)) {
                    true => Ok(()),
                    false => Err(refused(other(Stranger::Removed))),
                }
            }
        }
    }
}

/// Why a server whose certificate the authority has signed is refused all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Stranger {
    #[error("it is of another cluster")]
    OtherCluster,
    #[error("it is no node")]
    NoNode,
    #[error("it is a worker, and what is asked is for members alone")]
    NoMember,
    #[error("the cluster has let it go")]
    Removed,
    #[error("it does not show the authority that the token names")]
    NoAuthority,
    #[error(transparent)]
    Unreadable(TrustError),
}

fn other(stranger: Stranger) -> rustls::OtherError {
    rustls::OtherError(Arc::new(stranger))
}

/// A server's end.
#[derive(Clone)]
pub struct TlsServer(Arc<ServerConfig>);

impl TlsServer {
    /// One that is who `own` says, and knows peers by its authorities.
    pub fn new(own: &Bundle) -> Result<Self, TrustError> {
        let provider = Arc::new(default_provider());
        let roots = Arc::new(roots(&own.authorities)?);
        let peers = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| TrustError::Tls(e.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(tls)?
            .with_client_cert_verifier(peers)
            .with_single_cert(chain(own), own.key.to_rustls())
            .map_err(tls)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }

    /// What rustls takes.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }
}

/// A client's end.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// One that is who `own` says, and talks to whom it expects.
    pub fn new(own: &Bundle, expected: Expected) -> Result<Self, TrustError> {
        let verifier = Known::new(&own.authorities, expected)?;
        let config = client(Arc::new(verifier))?;
        let config = config.with_client_auth_cert(chain(own), own.key.to_rustls());
        Ok(Self::finished(config.map_err(tls)?))
    }

    /// One that shows nothing of itself: a token will speak for it.
    pub fn anonymous(authorities: &[Certificate], expected: Expected) -> Result<Self, TrustError> {
        let verifier = Known::new(authorities, expected)?;
        Ok(Self::finished(client(Arc::new(verifier))?.with_no_client_auth()))
    }

    fn finished(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    /// What rustls takes.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

/// A client that knows of its cluster only what a join token says: the authority's fingerprint. It talks
/// to a member that shows that authority.
pub fn first_contact(authority: Fingerprint) -> Result<TlsClient, TrustError> {
    Ok(TlsClient::finished(client(Arc::new(ByFingerprint(authority)))?.with_no_client_auth()))
}

/// Whether the server that showed these certificates is the one at that `host:port`. The name alone is looked
/// at in the handshake, and two nodes may share it.
///
/// # Errors
/// As of a certificate for another name.
pub fn is_at(shown: Option<&[CertificateDer<'_>]>, address: &str) -> Result<(), rustls::Error> {
    let other = rustls::Error::InvalidCertificate(CertificateError::NotValidForName);
    let end =
        shown.and_then(|shown| shown.first()).ok_or(rustls::Error::NoCertificatesPresented)?;
    let certificate = Certificate::from_der(end.to_vec());
    match certificate.and_then(|certificate| certificate.is_at(address)) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(other),
    }
}

/// What is wrong with trust if that is why an attempt to talk to a peer failed, for an operator.
pub fn why_untrusted(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An `io::Error` names what it wraps as itself, not as its source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
        let known = inner.and_then(|e| e.downcast_ref()).or_else(|| error.downcast_ref());
        if let Some(why) = known.and_then(in_words).or_else(|| alerted(&error.to_string())) {
            return Some(why);
        }
        next = match inner {
            Some(inner) => inner.source(),
            None => error.source(),
        };
    }
    None
}

/// The same of an alert whose words alone are left: HTTP/2 passes on no more of what broke a connection.
fn alerted(words: &str) -> Option<String> {
    let alert = words.strip_prefix("received fatal alert: ")?;
    let known = [
        AlertDescription::CertificateExpired,
        AlertDescription::UnknownCA,
        AlertDescription::BadCertificate,
        AlertDescription::CertificateUnknown,
        AlertDescription::CertificateRevoked,
        AlertDescription::DecryptError,
        AlertDescription::AccessDenied,
    ];
    let known = known.into_iter().find(|known| format!("{known:?}") == alert)?;
    in_words(&rustls::Error::AlertReceived(known))
}

fn in_words(error: &rustls::Error) -> Option<String> {
    use CertificateError as Bad;
    let theirs = "the other machine's certificate is not believed";
    let ours = "the other machine does not believe this one's certificate";
    let clocks = "compare the clocks of both machines (date)";
    Some(match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => {
                format!("{theirs}: it has expired, by this machine's clock; {clocks}")
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                format!("{theirs}: it is not valid yet, by this machine's clock; {clocks}")
            }
            Bad::UnknownIssuer | Bad::BadSignature => {
                format!("{theirs}: another authority has signed it, of another cluster perhaps")
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                format!("{theirs}: it is for another address")
            }
            Bad::Other(why) => format!("{theirs}: {}", why.0),
            other => format!("{theirs}: {other}"),
        },
        rustls::Error::NoCertificatesPresented => format!("{theirs}: it shows none"),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => {
                format!("{ours}: it has expired, or is not valid yet; {clocks}")
            }
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => ours.to_owned(),
            _ => return None,
        },
        rustls::Error::InvalidMessage(_) => {
            "the other end does not speak TLS: is it holdfastd of this version, at this port?"
                .into()
        }
        _ => return None,
    })
}

fn tls(error: rustls::Error) -> TrustError {
    TrustError::Tls(error.to_string())
}

fn roots(authorities: &[Certificate]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.to_rustls()).map_err(tls)?;
    }
    Ok(roots)
}

/// Its certificate, and the authorities for who knows them by fingerprint.
fn chain(own: &Bundle) -> Vec<CertificateDer<'static>> {
    [&own.certificate].into_iter().chain(&own.authorities).map(Certificate::to_rustls).collect()
}

fn client(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TrustError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).map_err(tls)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

/// What RFC 5280 asks of a certificate, and then who it is of.
#[derive(Debug)]
struct Known {
    chain: Arc<WebPkiServerVerifier>,
    expected: Expected,
}

impl Known {
    fn new(authorities: &[Certificate], expected: Expected) -> Result<Self, TrustError> {
        let roots = Arc::new(roots(authorities)?);
        let provider = Arc::new(default_provider());
        let chain = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        Ok(Self { chain: chain.map_err(|e| TrustError::Tls(e.to_string()))?, expected })
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chain.verify_server_cert(end, others, name, ocsp, now)?;
        self.expected.accepts(end)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The authority is the one with that fingerprint, among what the server shows.
#[derive(Debug)]
struct ByFingerprint(Fingerprint);

impl ByFingerprint {
    fn provider() -> CryptoProvider {
        default_provider()
    }
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = |why| rustls::Error::InvalidCertificate(CertificateError::Other(other(why)));
        let authority = others.iter().find(|der| Fingerprint::of(der) == self.0);
        let authority = authority.ok_or_else(|| refused(Stranger::NoAuthority))?;
        let read = |der: &CertificateDer<'_>| Certificate::from_der(der.to_vec());
        let unreadable = |e| refused(Stranger::Unreadable(e));
        let authority = read(authority).map_err(unreadable)?;
        let principal = read(end).and_then(|end| end.principal()).map_err(unreadable)?;
        let expected = Expected { cluster: principal.cluster(), member: true, roster: None };
        let known = Known::new(&[authority], expected).map_err(unreadable)?;
        known.verify_server_cert(end, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = Self::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &supported)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = Self::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &supported)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, SecretKey, SigningRequest, Subject};
    use rustls::{ClientConnection, ServerConnection};
    use std::time::Duration;

    const DAY: i64 = 24 * 3600;

    fn now_s() -> i64 {
        UnixTime::now().as_secs().cast_signed()
    }

    struct Cluster {
        id: ClusterId,
        authority: Authority,
    }

    impl Cluster {
        fn new() -> Self {
            let id = ClusterId::generate();
            Self { id, authority: Authority::generate(id, now_s() - 60 * DAY).unwrap() }
        }

        fn bundle_at(&self, principal: Principal, address: &str, from_s: i64, days: u64) -> Bundle {
            let key = SecretKey::generate().unwrap();
            let request = SigningRequest::from_der(&key.signing_request().unwrap()).unwrap();
            let subject = Subject { principal, address: Some(address.into()), name: "x".into() };
            let lifetime = Duration::from_secs(days * 24 * 3600);
            let certificate = self.authority.certify(&request, &subject, from_s, lifetime).unwrap();
            Bundle { key, certificate, authorities: vec![self.authority.certificate().clone()] }
        }

        fn bundle(&self, principal: Principal) -> Bundle {
            self.bundle_at(principal, "10.0.0.1:7443", now_s(), 30)
        }

        fn member(&self, n: u64) -> Bundle {
            self.bundle(Principal::Member(self.id, NodeId(n)))
        }

        fn worker(&self, n: u64) -> Bundle {
            self.bundle(Principal::Worker(self.id, NodeId(n)))
        }

        fn expected(&self, member: bool) -> Expected {
            Expected { cluster: self.id, member, roster: None }
        }
    }

    /// Shakes hands, and returns whom the server saw.
    fn shake(server: &Bundle, client: &TlsClient) -> Result<Option<Principal>, rustls::Error> {
        let name = ServerName::try_from("10.0.0.1").unwrap();
        let mut ours = ClientConnection::new(client.config(), name)?;
        let mut theirs = ServerConnection::new(TlsServer::new(server).unwrap().config())?;
        for _ in 0..8 {
            let mut wire = Vec::new();
            while ours.wants_write() {
                ours.write_tls(&mut wire).unwrap();
            }
            theirs.read_tls(&mut &wire[..]).unwrap();
            let judged = theirs.process_new_packets();
            let mut wire = Vec::new();
            while theirs.wants_write() {
                theirs.write_tls(&mut wire).unwrap();
            }
            ours.read_tls(&mut &wire[..]).unwrap();
            ours.process_new_packets()?;
            judged?;
        }
        assert!(!ours.is_handshaking() && !theirs.is_handshaking());
        assert_eq!(theirs.alpn_protocol(), Some(PROTOCOL));
        is_at(ours.peer_certificates(), "10.0.0.1:7443")?;
        let shown = theirs.peer_certificates().map(|chain| chain[0].to_vec());
        Ok(shown.map(|der| Certificate::from_der(der).unwrap().principal().unwrap()))
    }

    fn words(refused: Result<Option<Principal>, rustls::Error>) -> String {
        why_untrusted(&refused.unwrap_err()).expect("a reason for a person")
    }

    #[test]
    fn each_end_knows_the_other() {
        let cluster = Cluster::new();
        let client = TlsClient::new(&cluster.worker(2), cluster.expected(true)).unwrap();
        let seen = shake(&cluster.member(1), &client).unwrap();
        assert_eq!(seen, Some(Principal::Worker(cluster.id, NodeId(2))));
        let authorities = [cluster.authority.certificate().clone()];
        let nobody = TlsClient::anonymous(&authorities, cluster.expected(true)).unwrap();
        assert_eq!(shake(&cluster.member(1), &nobody).unwrap(), None);
    }

    /// I26: a stolen worker is not believed to lead.
    #[test]
    fn a_worker_is_no_member() {
        let cluster = Cluster::new();
        let client = TlsClient::new(&cluster.worker(2), cluster.expected(true)).unwrap();
        assert!(words(shake(&cluster.worker(3), &client)).contains("it is a worker"));
        let any = TlsClient::new(&cluster.worker(2), cluster.expected(false)).unwrap();
        shake(&cluster.worker(3), &any).unwrap();
    }

    /// I26: of servers, and of clients.
    #[test]
    fn certificates_that_are_not_good_are_refused_with_the_reason() {
        let cluster = Cluster::new();
        let client = TlsClient::new(&cluster.member(2), cluster.expected(false)).unwrap();
        let me = Principal::Member(cluster.id, NodeId(1));
        let expired = cluster.bundle_at(me, "10.0.0.1:7443", now_s() - 40 * DAY, 30);
        assert!(words(shake(&expired, &client)).contains("expired"));
        let early = cluster.bundle_at(me, "10.0.0.1:7443", now_s() + DAY, 30);
        assert!(words(shake(&early, &client)).contains("not valid yet"));
        // On another machine, and beside it on the same.
        for address in ["10.0.0.9:7443", "10.0.0.1:7444"] {
            let elsewhere = cluster.bundle_at(me, address, now_s(), 30);
            assert!(words(shake(&elsewhere, &client)).contains("another address"));
        }
        let user = cluster.bundle(Principal::User(cluster.id, uuid::Uuid::from_u128(1)));
        assert!(words(shake(&user, &client)).contains("no node"));
        let other = Cluster::new();
        assert!(words(shake(&other.member(1), &client)).contains("another authority"));

        for (bad, why) in [(expired, "expired"), (early, "not valid yet"), (other.member(2), "")] {
            let bad = Bundle { authorities: cluster.member(1).authorities, ..bad };
            let client = TlsClient::new(&bad, cluster.expected(false)).unwrap();
            let said = words(shake(&cluster.member(1), &client));
            assert!(said.contains("does not believe this one's") && said.contains(why), "{said}");
        }
    }

    #[test]
    fn an_alert_is_known_by_its_words_too() {
        let words = rustls::Error::AlertReceived(AlertDescription::CertificateExpired).to_string();
        let broken = std::io::Error::new(std::io::ErrorKind::InvalidData, words);
        assert!(why_untrusted(&broken).is_some_and(|why| why.contains("expired")));
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(why_untrusted(&reset), None);
    }

    /// An hour between two clocks is no reason not to join.
    #[test]
    fn a_clock_that_is_an_hour_behind_is_tolerated() {
        let cluster = Cluster::new();
        let me = Principal::Member(cluster.id, NodeId(1));
        let client = TlsClient::new(&cluster.member(2), cluster.expected(false)).unwrap();
        shake(&cluster.bundle_at(me, "10.0.0.1:7443", now_s() + 3_500, 30), &client).unwrap();
    }

    /// I26: its certificate is good for weeks yet.
    #[test]
    fn a_node_that_was_let_go_is_not_called_any_more() {
        let cluster = Cluster::new();
        let roster: Roster = Arc::new(|node| node != NodeId(3));
        let expected = Expected { roster: Some(roster), ..cluster.expected(false) };
        let client = TlsClient::new(&cluster.member(2), expected).unwrap();
        shake(&cluster.member(1), &client).unwrap();
        assert!(words(shake(&cluster.member(3), &client)).contains("let it go"));
    }

    /// I26: a newcomer knows the cluster by its token alone.
    #[test]
    fn a_newcomer_is_not_fooled() {
        let (cluster, other) = (Cluster::new(), Cluster::new());
        let client = first_contact(cluster.authority.certificate().fingerprint()).unwrap();
        assert_eq!(shake(&cluster.member(1), &client).unwrap(), None);
        assert!(words(shake(&other.member(1), &client)).contains("the authority"));
        assert!(words(shake(&cluster.worker(1), &client)).contains("it is a worker"));
        // Who shows the right authority without being certified by it.
        let mut forged = other.member(1);
        forged.authorities = cluster.member(1).authorities;
        assert!(words(shake(&forged, &client)).contains("another authority"));
    }
}

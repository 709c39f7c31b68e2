//! Saying who is who. The authority's key is in the state, so whoever has the log can: the leader for
//! newcomers and workers, a member for itself. So a cluster that was off for longer than certificates last
//! comes up again.

use holdfast_core::{Command, Hidden, Node, SetAuthorities, State, TrustedAuthority};
use holdfast_trust::{
    Authority, Bundle, Certificate, LIFETIME, Principal, SecretKey, SigningRequest, Subject,
};
use holdfast_types::{ClusterId, Code, NodeId};

use crate::clock;
use crate::fault::Fault;
use crate::identity::Identity;

/// A certificate, and whom its owner is to believe (DER).
pub(crate) struct Issued {
    pub(crate) certificate: Vec<u8>,
    pub(crate) authorities: Vec<Vec<u8>>,
}

/// Says of the key in `request` that it is that node's.
pub(crate) fn issue(
    state: &State,
    node: NodeId,
    request: &SigningRequest,
) -> Result<Issued, Fault> {
    let (cluster, node) = (state.cluster()?.id, state.node(node)?);
    let kept = state.trust.authorities.first().ok_or_else(no_authority)?;
    let authority = Authority::from_der(&kept.certificate, &kept.key.0)?;
    let certificate = authority.certify(request, &subject(cluster, node), now_s(), LIFETIME)?;
    let authorities = state.trust.authorities.iter().map(|kept| kept.certificate.clone());
    Ok(Issued { certificate: certificate.der().to_vec(), authorities: authorities.collect() })
}

/// A new key for a member, which it certifies itself.
pub(crate) fn own(state: &State, node: NodeId) -> Result<Bundle, Fault> {
    let key = SecretKey::generate()?;
    let request = SigningRequest::from_der(&key.signing_request()?)?;
    issue(state, node, &request)?.bundle(key)
}

impl Issued {
    /// With the key that was certified.
    pub(crate) fn bundle(self, key: SecretKey) -> Result<Bundle, Fault> {
        let authorities = self.authorities.into_iter().map(Certificate::from_der);
        Ok(Bundle {
            key,
            certificate: Certificate::from_der(self.certificate)?,
            authorities: authorities.collect::<Result<_, _>>()?,
        })
    }
}

/// The authority of a cluster that is about to be made, and its first member's keys.
pub(crate) fn found(identity: &Identity) -> Result<(Authority, Bundle), Fault> {
    let authority = Authority::generate(identity.cluster, now_s())?;
    let key = SecretKey::generate()?;
    let request = SigningRequest::from_der(&key.signing_request()?)?;
    let subject = Subject {
        principal: Principal::Member(identity.cluster, identity.node),
        address: Some(identity.address.clone()),
        name: identity.name.to_string(),
    };
    let certificate = authority.certify(&request, &subject, now_s(), LIFETIME)?;
    let authorities = vec![authority.certificate().clone()];
    Ok((authority, Bundle { key, certificate, authorities }))
}

/// The entry that makes it the cluster's.
pub(crate) fn first(authority: &Authority) -> Command {
    let certificate = authority.certificate().der().to_vec();
    let kept = TrustedAuthority { certificate, key: Hidden(authority.key_der()) };
    Command::SetAuthorities(SetAuthorities {
        before: Vec::new(),
        authorities: vec![kept],
        retiring: false,
        reason: "the cluster has its authority".into(),
    })
}

fn subject(cluster: ClusterId, node: &Node) -> Subject {
    let principal = match node.role.has_log() {
        true => Principal::Member(cluster, node.id),
        false => Principal::Worker(cluster, node.id),
    };
    Subject { principal, address: Some(node.address.clone()), name: node.name.to_string() }
}

/// The second of Unix time that certificates count from.
pub(crate) fn now_s() -> i64 {
    (clock::wall().0 / 1000).cast_signed()
}

/// One is made with each cluster.
fn no_authority() -> Fault {
    let message = "this cluster was made by a version without certificates: make a new one";
    Fault::new(Code::WrongState, message)
}

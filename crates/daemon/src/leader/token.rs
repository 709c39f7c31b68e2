//! Join tokens. The client makes the secret and keeps it; here is what the cluster must know.

use std::time::Duration;

use holdfast_core::{AddToken, Command};
use holdfast_proto::v1;
use holdfast_trust::Certificate;
use holdfast_types::{Code, TimestampMs};

use super::request_id;
use crate::clock;
use crate::fault::Fault;
use crate::member::Lead;

const USUAL: Duration = Duration::from_secs(3600);

/// Machines that join later are known by then.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Makes a token.
pub(crate) async fn create(
    lead: Lead,
    request: v1::CreateTokenRequest,
) -> Result<v1::CreateTokenResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let bad = |what: &str| Fault::new(Code::InvalidArgument, what);
    let hash = request.hash.as_ref().try_into().map_err(|_| bad("the secret's hash: 32 bytes"))?;
    let lifetime = match request.lifetime_s {
        0 => USUAL,
        seconds => Duration::from_secs(seconds),
    };
    if lifetime > LONGEST {
        return Err(bad("a join token is good for 30 days at most"));
    }
    let now_ms = clock::wall().0;
    let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    let expires = TimestampMs(now_ms.saturating_add(lifetime_ms));
    let by = format!("somebody, by way of {}", lead.member.identity.name);
    let command = AddToken { id: id.0, hash, by, expires };
    lead.propose(id, Command::AddToken(command)).await?;
    let state = lead.raft.state();
    // A retry hears of the one that is there.
    let token = state.trust.tokens.get(&id.0);
    let expires = token.map_or(expires, |token| token.expires);
    let authority = state.trust.authorities.first();
    let authority = authority.map(|kept| Certificate::from_der(kept.certificate.clone()));
    let authority = authority.transpose()?.map(|authority| authority.fingerprint().0.to_vec());
    let members = state.nodes.values().filter(|node| node.role.has_log());
    Ok(v1::CreateTokenResponse {
        authority: authority.unwrap_or_default().into(),
        expires_ms: expires.0,
        peers: members.map(|node| node.address.clone()).collect(),
    })
}

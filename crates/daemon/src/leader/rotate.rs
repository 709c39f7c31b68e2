//! Beginning to replace the authority. The controller goes on with it (`holdfast_controller::Standings`).

use holdfast_core::{Command, Hidden, SetAuthorities, TrustedAuthority};
use holdfast_proto::v1;
use holdfast_trust::Authority;
use holdfast_types::Code;

use super::request_id;
use crate::certify;
use crate::fault::Fault;
use crate::member::Lead;

/// Makes a new authority, which every node is to believe beside the old one for now.
pub(crate) async fn rotate(
    lead: Lead,
    request: v1::RotateAuthorityRequest,
) -> Result<v1::RotateAuthorityResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let state = lead.read().await?;
    if state.answered.contains_key(&id) {
        return Ok(v1::RotateAuthorityResponse {});
    }
    let [kept] = &state.trust.authorities[..] else {
        let behind = lead.leadership.standings.behind(&state).join(", ");
        let message = format!("the authority is being replaced already; this waits for: {behind}");
        return Err(Fault::new(Code::WrongState, message));
    };
    let authority = Authority::generate(state.cluster()?.id, certify::now_s())?;
    let certificate = authority.certificate().der().to_vec();
    let next = TrustedAuthority { certificate, key: Hidden(authority.key_der()) };
    let command = SetAuthorities {
        before: vec![kept.certificate.clone()],
        authorities: vec![kept.clone(), next],
        retiring: false,
        reason: "the authority is replaced: every node is to believe the new one first".into(),
    };
    lead.propose(id, Command::SetAuthorities(command)).await?;
    Ok(v1::RotateAuthorityResponse {})
}

//! New certificates for nodes that cannot make their own: those without the log.

use holdfast_proto::internal::{RenewRequest, RenewResponse};
use holdfast_trust::SigningRequest;
use holdfast_types::NodeId;

use crate::certify::{self, Issued};
use crate::fault::Fault;
use crate::member::Lead;

/// A new certificate for a node of the cluster: of what it is now, whatever the one before said.
pub(super) async fn renew(lead: Lead, request: RenewRequest) -> Result<RenewResponse, Fault> {
    let state = lead.read().await?;
    super::known(&lead, request.node_id)?;
    let signing = SigningRequest::from_der(&request.signing_request)?;
    let node = NodeId(request.node_id);
    let Issued { certificate, authorities } = certify::issue(&state, node, &signing)?;
    let authorities = authorities.into_iter().map(Into::into).collect();
    Ok(RenewResponse { certificate: certificate.into(), authorities })
}

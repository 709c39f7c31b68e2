//! Getting a call to the node that runs a container, or to a node by its name.

use std::sync::Arc;

use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use holdfast_types::{Code, ContainerUid};
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;

use super::cluster::list_nodes;
use super::container;
use crate::fault::Fault;
use crate::forward::Call;
use crate::member::Member;
use crate::reading::ask_any;

/// Set by the node that looked the container up: the receiver serves this uid itself.
const UID_KEY: &str = "holdfast-uid";

/// Where a call goes.
pub(super) enum Route {
    Here(ContainerUid),
    There(ContainerUid, Channel),
}

/// The container that an earlier node has looked up.
pub(super) fn looked_up(metadata: &MetadataMap) -> Result<Option<ContainerUid>, Fault> {
    let Some(value) = metadata.get(UID_KEY) else { return Ok(None) };
    let malformed = |_| Fault::new(Code::InvalidArgument, "a malformed container uid");
    Ok(Some(value.to_str().map_err(malformed)?.parse()?))
}

/// Tells the next node which container it is.
pub(super) fn directed<T>(mut request: Request<T>, uid: ContainerUid) -> Request<T> {
    // A uuid's text is always a valid value.
    if let Ok(value) = MetadataValue::try_from(uid.to_string()) {
        request.metadata_mut().insert(UID_KEY, value);
    }
    request
}

/// Looks the container up.
pub(super) async fn find(member: &Arc<Member>, call: &Call, name: &str) -> Result<Route, Fault> {
    let request = v1::GetContainerRequest { name: name.to_owned() };
    let answer =
        ask_any!(member, call, request, State, ContainerServiceClient.get, container::get)?;
    let answer = answer.into_inner();
    let found = answer.container.unwrap_or_default();
    if found.state() == v1::ContainerState::Held {
        return Err(container::held(name, &found.reason));
    }
    let uid: ContainerUid = found.uid.parse()?;
    if found.node == member.identity.name.as_str() {
        return Ok(Route::Here(uid));
    }
    Ok(Route::There(uid, to_node(member, call, &found.node).await?))
}

/// The channel to a node of the cluster.
pub(super) async fn to_node(
    member: &Arc<Member>,
    call: &Call,
    name: &str,
) -> Result<Channel, Fault> {
    let request = v1::ListNodesRequest {};
    let answer =
        ask_any!(member, call, request, State, ClusterServiceClient.list_nodes, list_nodes)?;
    let nodes = answer.into_inner().nodes;
    let node = nodes.iter().find(|node| node.name == name);
    let gone = || Fault::new(Code::NotFound, format!("there is no node {name}"));
    member.channels.to(&node.ok_or_else(gone)?.address)
}

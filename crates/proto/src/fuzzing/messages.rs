//! Every message that goes over the wire by itself, and what becomes of those with a type of ours: what
//! was taken is written, and that is taken again as the same.
//!
//! The first two bytes of an input say as what the rest is read.

use holdfast_types::{ContainerSpec, DataVolume, SnapshotId};
use prost::Message;
use tonic::Status;

use crate::convert::FieldError;
use crate::{RemoteError, internal, v1};

macro_rules! messages {
    ($($package:ident: $($name:ident)*;)*) => {
        const READERS: &[fn(&[u8])] = &[
            $($(message::<$package::$name>,)*)*
            converted::<v1::ContainerSpec, ContainerSpec>,
            converted::<v1::DataVolume, DataVolume>,
            converted::<internal::SnapshotId, SnapshotId>,
            status,
        ];

        /// Their names.
        #[cfg(test)]
        const NAMES: &[&str] = &[$($(concat!(stringify!($package), ".", stringify!($name)),)*)*];
    };
}

messages! {
    v1: BackupPart BackupRequest ChangePoolRequest CheckPoolRequest CheckPoolResponse CloneRequest
        CloneResponse CreatePoolRequest CreateRequest CreateResponse CreateSnapshotRequest
        CreateSnapshotResponse CreateTokenRequest CreateTokenResponse DecideTakeoverRequest
        DecideTakeoverResponse DeleteImageRequest DeleteImageResponse DeleteRequest DeleteResponse
        Event ExecRequest ExecResponse GetContainerRequest GetContainerResponse GetNodeRequest
        GetOperationRequest GetOperationResponse GetRevisionRequest GetRevisionResponse
        ImportRequest ImportResponse InitRequest InitResponse JoinRequest JoinResponse
        ListContainersRequest ListContainersResponse ListDivergedRequest ListDivergedResponse
        ListImagesRequest ListImagesResponse ListNodesRequest ListNodesResponse ListPoolsRequest
        ListPoolsResponse ListSnapshotsRequest ListSnapshotsResponse LogsRequest LogsResponse Node
        PoolProgress RemoveNodeRequest RemoveNodeResponse RemoveSnapshotRequest
        RemoveSnapshotResponse ResizeRequest ResizeResponse RestorePart RestoreResponse
        RestoreSnapshotRequest RestoreSnapshotResponse RotateAuthorityRequest
        RotateAuthorityResponse ScrubPoolRequest ScrubPoolResponse SetLabelsRequest
        SetLabelsResponse SetScheduleRequest SetScheduleResponse ShowPoolRequest ShowPoolResponse
        StartRequest StartResponse StatusRequest StatusResponse StopRequest StopResponse
        SyncRequest SyncResponse WatchEventsRequest;
    internal: AddImageRequest AddImageResponse AdmitRequest AdmitResponse HeartbeatRequest
        HeartbeatResponse NodeView ObserveRequest Observed OfferRequest OfferResponse RaftRequest
        RaftResponse ReceiveRequest ReceiveResponse RegisterRequest RegisterResponse RelayAnswers
        RelayCalls RenewRequest RenewResponse ReportRequest ReportResponse RestampRequest
        RestampResponse SealRequest SealResponse SnapshotPart SyncNowRequest SyncNowResponse
        WatchViewRequest;
}

/// Reads one message.
pub fn read(input: &[u8]) {
    let [high, low, body @ ..] = input else { return };
    READERS[usize::from(u16::from_be_bytes([*high, *low])) % READERS.len()](body);
}

/// Of each an empty one, and of those with a type of ours a full one.
pub fn seeds() -> Vec<Vec<u8>> {
    let of = |at: usize, body: &[u8]| [&(at as u16).to_be_bytes()[..], body].concat();
    let mut seeds: Vec<_> = (0..READERS.len()).map(|at| of(at, &[])).collect();
    let spec = ContainerSpec {
        image: "busybox".parse().ok(),
        priority: -3,
        command: vec!["/bin/sh".into()],
        env: [("A".to_owned(), "b".to_owned())].into(),
        volumes: "data=2GiB:/srv".parse().into_iter().collect(),
        ..Default::default()
    };
    let id = [7; 16];
    let snapshot = internal::SnapshotId {
        volume: id.to_vec().into(),
        epoch: 2,
        seq: 3,
        uuid: id.to_vec().into(),
        parent: id.to_vec().into(),
    };
    let full = [
        v1::ContainerSpec::from(&spec).encode_to_vec(),
        v1::DataVolume::from(&spec.volumes[0]).encode_to_vec(),
        snapshot.encode_to_vec(),
        b"\x09HF-POOL-FULL\n10.0.0.1:7443\nno room".to_vec(),
    ];
    let first = READERS.len() - full.len();
    seeds.extend(full.iter().enumerate().map(|(at, body)| of(first + at, body)));
    let holding = internal::Holding {
        volume: id.to_vec().into(),
        newest: Some(snapshot),
        age_ms: 4,
        removed: false,
    };
    let heartbeat = internal::HeartbeatRequest {
        node_id: 1,
        incarnation: 2,
        holdings: vec![holding.clone(), holding],
        ..Default::default()
    };
    let create = v1::CreateRequest {
        request_id: id.to_vec().into(),
        name: "web".into(),
        spec: Some((&spec).into()),
        ..Default::default()
    };
    // Whichever reader gets them, fields have the same numbers.
    for at in 0..first {
        seeds.push(of(at, &create.encode_to_vec()));
        seeds.push(of(at, &heartbeat.encode_to_vec()));
    }
    seeds
}

fn message<M: Message + Default + PartialEq>(body: &[u8]) {
    let Ok(message) = M::decode(body) else { return };
    let again = M::decode(&message.encode_to_vec()[..]);
    assert!(again.is_ok_and(|again| again == message), "it is another when it is read again");
}

fn converted<M, T>(body: &[u8])
where
    M: Message + Default + Wire<T>,
    T: TryFrom<M, Error = FieldError> + PartialEq + std::fmt::Debug,
{
    let Ok(message) = M::decode(body) else { return };
    match T::try_from(message) {
        Ok(ours) => assert_eq!(T::try_from(M::wire(&ours)), Ok(ours)),
        Err(refusal) => drop((refusal.code(), refusal.to_string())),
    }
}

/// The way back.
trait Wire<T> {
    fn wire(ours: &T) -> Self;
}

impl Wire<ContainerSpec> for v1::ContainerSpec {
    fn wire(ours: &ContainerSpec) -> Self {
        drop(ours.check());
        ours.into()
    }
}

impl Wire<DataVolume> for v1::DataVolume {
    fn wire(ours: &DataVolume) -> Self {
        ours.into()
    }
}

impl Wire<SnapshotId> for internal::SnapshotId {
    fn wire(ours: &SnapshotId) -> Self {
        (*ours).into()
    }
}

/// The refusal of another node, passed on: a gRPC code, ours, the leader and a text, a line each.
fn status(body: &[u8]) {
    let [grpc, rest @ ..] = body else { return };
    let text = String::from_utf8_lossy(rest);
    let mut lines = text.splitn(3, '\n');
    let mut status = Status::new(i32::from(*grpc).into(), lines.clone().nth(2).unwrap_or_default());
    for key in ["holdfast-code", "holdfast-leader"] {
        let value = lines.next().unwrap_or_default().as_bytes();
        if let Ok(value) = tonic::metadata::MetadataValue::try_from(value) {
            status.metadata_mut().insert(key, value);
        }
    }
    let error = RemoteError::from(status);
    assert_eq!(RemoteError::from(error.to_status()), error);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoiled_messages_are_read_or_refused() {
        holdfast_fuzz::spoiled(&seeds(), 300_000, read);
    }

    /// What a method takes or gives is in the list.
    #[test]
    fn every_message_of_a_method_is_read() {
        let proto = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/holdfast");
        for (package, dir) in [("v1", proto.join("v1")), ("internal", proto.join("internal/v1"))] {
            for file in std::fs::read_dir(dir).unwrap() {
                let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
                for method in text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
                    for message in method.split(['(', ')']).skip(1).step_by(2) {
                        let name = message.split_whitespace().last().unwrap();
                        let name = format!("{package}.{name}");
                        assert!(NAMES.contains(&name.as_str()), "{name}");
                    }
                }
            }
        }
    }
}

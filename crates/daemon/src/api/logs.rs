//! The end of a container's console log, from the node that it is on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::v1;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use tonic::Request;

use super::container::Answers;
use super::route::{self, Route};
use crate::fault::Fault;
use crate::forward::Call;
use crate::member::Member;

/// If the client does not say.
const DEFAULT_BYTES: u64 = 64 << 10;

/// At most, whatever it says.
const MAX_BYTES: u64 = 16 << 20;

/// In one message.
const PART_BYTES: usize = 64 << 10;

/// Answers here, or has the container's node answer.
pub(super) async fn logs(
    member: Arc<Member>,
    request: Request<v1::LogsRequest>,
) -> Result<Answers<v1::LogsResponse>, Fault> {
    let looked_up = route::looked_up(request.metadata())?;
    let (call, request) = Call::open(request, Duration::ZERO);
    let route = match looked_up {
        Some(uid) => Route::Here(uid),
        None => route::find(&member, &call, &request.name).await?,
    };
    match route {
        Route::There(uid, channel) => {
            let request = route::directed(call.onward(request), uid);
            let answer = ContainerServiceClient::new(channel).logs(request).await?;
            Ok(Box::pin(answer.into_inner()))
        }
        Route::Here(uid) => {
            let wanted = if request.tail_bytes == 0 { DEFAULT_BYTES } else { request.tail_bytes };
            let text = member.duties.console_tail(uid, wanted.min(MAX_BYTES)).await?;
            Ok(Box::pin(tokio_stream::iter(parts(text.into()).into_iter().map(Ok))))
        }
    }
}

fn parts(mut text: Bytes) -> Vec<v1::LogsResponse> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        parts.push(v1::LogsResponse { data: text.split_to(text.len().min(PART_BYTES)) });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_comes_in_parts() {
        let text = vec![b'x'; PART_BYTES * 2 + 1];
        let lens: Vec<_> = parts(text.into()).iter().map(|part| part.data.len()).collect();
        assert_eq!(lens, [PART_BYTES, PART_BYTES, 1]);
        assert!(parts(Bytes::new()).is_empty());
    }
}

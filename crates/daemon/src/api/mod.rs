//! The public API, `holdfast.v1`. Any node answers; see [`crate::forward`] for how.

mod clone;
mod cluster;
mod container;
mod create;
mod event;
mod exec;
mod image;
mod import;
mod logs;
mod node;
mod operation;
pub(crate) mod pool;
mod resize;
mod route;
mod snapshot;
mod sync;

pub(crate) use cluster::{ClusterApi, Origin};
pub(crate) use container::ContainerApi;
pub(crate) use event::EventApi;
pub(crate) use image::ImageApi;
pub(crate) use operation::OperationApi;
pub(crate) use pool::PoolApi;
pub(crate) use snapshot::SnapshotApi;

use bytes::Bytes;
use holdfast_core::{Outcome, Response, State};
use holdfast_planner::Observations;
use holdfast_types::RequestId;

use crate::clock;
use crate::convert::Picture;
use crate::fault::Fault;
use crate::member::Lead;

impl Lead {
    /// Shows the state as it is now to `paint`.
    pub(crate) fn picture<T>(
        &self,
        state: &State,
        paint: impl FnOnce(&Picture<'_>, &Observations) -> T,
    ) -> T {
        let (now_ms, now) = (clock::boottime_ms(), clock::wall());
        let seen = self.leadership.observe(state, now_ms, now);
        let picture = Picture {
            state,
            seen: Some(&seen),
            leader: Some(self.raft.id()),
            told: None,
            silent_ms: &|id| self.leadership.leases.silent_ms(id, now_ms),
            now,
        };
        paint(&picture, &seen)
    }
}

/// The request with an id, which stays the same through all tries (I7). A client that sent none
/// does not try again by itself.
fn identified<T>(
    mut request: tonic::Request<T>,
    id: impl FnOnce(&mut T) -> &mut Bytes,
) -> tonic::Request<T> {
    let id = id(request.get_mut());
    if id.is_empty() {
        *id = RequestId::generate().to_bytes().into();
    }
    request
}

/// The answer that this request got before, if it is a retry: what is checked before proposing
/// must not refuse what has already been done (I7).
fn answered(state: &State, request: RequestId) -> Result<Option<Outcome>, Fault> {
    let answer: Option<Response> = state.answered.get(&request).cloned();
    Ok(answer.transpose()?)
}

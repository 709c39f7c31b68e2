//! `SnapshotService`: named snapshots, and what is made of them.

use holdfast_core::{Command, CreateSnapshot, RemoveSnapshot, RestoreSnapshot, SetSchedule, State};
use holdfast_proto::v1;
use holdfast_proto::v1::snapshot_service_client::SnapshotServiceClient;
use holdfast_proto::v1::snapshot_service_server::SnapshotService;
use holdfast_types::{Code, KeepRules, KeptBy, SnapshotName, SnapshotUuid, TimestampMs};
use tonic::{Request, Response, Status};

use super::container::{not_held, operation_of};
use super::{answered, clone, identified};
use crate::clock;
use crate::fault::Fault;
use crate::forward::at_leader;
use crate::gate::Gate;
use crate::leader::request_id;
use crate::member::Lead;
use crate::reading::{Reading, at_any};

/// The service.
#[derive(Clone)]
pub(crate) struct SnapshotApi {
    pub(crate) gate: Gate,
}

#[tonic::async_trait]
impl SnapshotService for SnapshotApi {
    async fn create(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, SnapshotServiceClient.create, create)
    }

    async fn list(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        at_any!(self.gate, request, State, SnapshotServiceClient.list, list)
    }

    async fn restore(
        &self,
        request: Request<v1::RestoreSnapshotRequest>,
    ) -> Result<Response<v1::RestoreSnapshotResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, SnapshotServiceClient.restore, restore)
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveSnapshotRequest>,
    ) -> Result<Response<v1::RemoveSnapshotResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, SnapshotServiceClient.remove, remove)
    }

    async fn clone_container(
        &self,
        request: Request<v1::CloneRequest>,
    ) -> Result<Response<v1::CloneResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, SnapshotServiceClient.clone_container, clone::clone)
    }

    async fn set_schedule(
        &self,
        request: Request<v1::SetScheduleRequest>,
    ) -> Result<Response<v1::SetScheduleResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, SnapshotServiceClient.set_schedule, set_schedule)
    }
}

async fn create(
    lead: Lead,
    request: v1::CreateSnapshotRequest,
) -> Result<v1::CreateSnapshotResponse, Fault> {
    let lead = lead.expecting(request.expect);
    let id = request_id(&request.request_id)?;
    let name: SnapshotName = request.name.parse()?;
    let state = lead.read().await?;
    let outcome = match answered(&state, id)? {
        Some(outcome) => outcome,
        None => {
            let container = state.container_named(&request.container.parse()?)?;
            not_held(container)?;
            let seen = lead.observe(&state);
            let node = seen.nodes.get(&container.node);
            if node.and_then(|n| n.pool.as_ref()).is_some_and(|pool| !pool.admits) {
                let message = format!("the pool of {}'s node is full", container.name);
                return Err(Fault::new(Code::PoolFull, message));
            }
            let command = CreateSnapshot {
                uid: container.uid,
                name,
                uuid: SnapshotUuid::generate(),
                by: KeptBy::Person,
                operation: Some(id.into()),
            };
            drop(state);
            lead.propose(id, Command::CreateSnapshot(command)).await?
        }
    };
    let operation = operation_of(&lead.raft.state(), &outcome)?;
    Ok(v1::CreateSnapshotResponse { operation: Some(operation) })
}

fn list(
    reading: &Reading,
    request: v1::ListSnapshotsRequest,
) -> Result<v1::ListSnapshotsResponse, Fault> {
    let state = reading.state();
    let only = match request.container.as_str() {
        "" => None,
        name => Some(state.container_named(&name.parse()?)?.uid),
    };
    let wanted = |c: &&holdfast_core::Container| match only {
        Some(uid) => c.uid == uid,
        None => !c.is_deleting(),
    };
    let mut containers: Vec<_> = state.containers.values().filter(wanted).collect();
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    let snapshots = reading.picture(|picture| {
        let all = containers.iter().flat_map(|c| {
            let mut kept: Vec<_> = c.kept.iter().collect();
            kept.sort_by_key(|(name, kept)| (kept.created, *name));
            kept.into_iter().map(|(name, kept)| picture.snapshot(c, name, kept))
        });
        all.collect()
    });
    let schedules = containers.iter().filter_map(|c| schedule(c.name.as_str(), &c.schedule));
    Ok(v1::ListSnapshotsResponse { snapshots, schedules: schedules.collect() })
}

async fn restore(
    lead: Lead,
    request: v1::RestoreSnapshotRequest,
) -> Result<v1::RestoreSnapshotResponse, Fault> {
    let lead = lead.expecting(request.expect);
    let id = request_id(&request.request_id)?;
    let from: SnapshotName = request.name.parse()?;
    let name = request.container.parse()?;
    let state = lead.read().await?;
    let outcome = match answered(&state, id)? {
        Some(outcome) => outcome,
        None => {
            let container = state.container_named(&name)?;
            not_held(container)?;
            let before = name_before(clock::wall(), |name| container.kept.contains_key(name))?;
            let command = RestoreSnapshot {
                uid: container.uid,
                from,
                before,
                before_uuid: SnapshotUuid::generate(),
                operation: id.into(),
            };
            drop(state);
            lead.propose(id, Command::RestoreSnapshot(command)).await?
        }
    };
    let state = lead.raft.state();
    let operation = operation_of(&state, &outcome)?;
    // A retry may come when it is over: then the list says under which name it was kept.
    let restore = state.container_named(&name)?.restore.as_ref();
    let before = restore.map(|r| r.before.to_string()).unwrap_or_default();
    Ok(v1::RestoreSnapshotResponse { operation: Some(operation), before })
}

/// Under which name a restore keeps what is there: that of the second, with a number if another restore
/// in the same second has it.
fn name_before(
    now: TimestampMs,
    is_taken: impl Fn(&SnapshotName) -> bool,
) -> Result<SnapshotName, Fault> {
    let second = format!("before-restore-{}", now.in_a_name());
    let mut name: SnapshotName = second.parse()?;
    let mut number = 2;
    while is_taken(&name) {
        name = format!("{second}-{number}").parse()?;
        number += 1;
    }
    Ok(name)
}

async fn remove(
    lead: Lead,
    request: v1::RemoveSnapshotRequest,
) -> Result<v1::RemoveSnapshotResponse, Fault> {
    let lead = lead.expecting(request.expect);
    let id = request_id(&request.request_id)?;
    let name: SnapshotName = request.name.parse()?;
    let state = lead.read().await?;
    if answered(&state, id)?.is_none() {
        let uid = state.container_named(&request.container.parse()?)?.uid;
        drop(state);
        let command = RemoveSnapshot { uid, name, only: None };
        lead.propose(id, Command::RemoveSnapshot(command)).await?;
    }
    Ok(v1::RemoveSnapshotResponse {})
}

async fn set_schedule(
    lead: Lead,
    request: v1::SetScheduleRequest,
) -> Result<v1::SetScheduleResponse, Fault> {
    let lead = lead.expecting(request.expect);
    let id = request_id(&request.request_id)?;
    let keep = match request.keep.as_str() {
        "" => None,
        text => {
            let rules = text.parse::<KeepRules>();
            Some(rules.map_err(|error| Fault::new(error.code(), error.to_string()))?)
        }
    };
    let state = lead.read().await?;
    let uid = state.container_named(&request.container.parse()?)?.uid;
    if answered(&state, id)?.is_none() {
        drop(state);
        lead.propose(id, Command::SetSchedule(SetSchedule { uid, keep })).await?;
    }
    let state: &State = &lead.raft.state();
    let container = state.container(uid)?;
    let schedule = schedule(container.name.as_str(), &container.schedule);
    Ok(v1::SetScheduleResponse { schedule })
}

fn schedule(container: &str, keep: &Option<KeepRules>) -> Option<v1::Schedule> {
    let keep = keep.as_ref()?.to_string();
    Some(v1::Schedule { container: container.to_owned(), keep })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was kept before one restore could not be gone back to within the same second.
    #[test]
    fn two_restores_in_a_second_asked_for_one_name() {
        let mut taken: Vec<SnapshotName> = Vec::new();
        for _ in 0..3 {
            let name = name_before(TimestampMs(0), |name| taken.contains(name)).unwrap();
            taken.push(name);
        }
        let names: Vec<_> = taken.iter().map(ToString::to_string).collect();
        let first = "before-restore-19700101t000000z";
        assert_eq!(names, [first.to_owned(), format!("{first}-2"), format!("{first}-3")]);
    }
}

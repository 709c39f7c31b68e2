//! `PoolService`: the pools of the nodes. A call about one pool is answered by that pool's node; what
//! it begins there goes on to its end, whether the client stays or not.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use holdfast_proto::v1;
use holdfast_proto::v1::pool_progress::Part;
use holdfast_proto::v1::pool_service_client::PoolServiceClient;
use holdfast_proto::v1::pool_service_server::PoolService;
use holdfast_storage::lvm::admin::{Change, Finding, Name, Severity};
use holdfast_types::{ByteSize, Code};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::route;
use crate::channels::There;
use crate::fault::Fault;
use crate::forward::Call;
use crate::gate::{Gate, Stage};
use crate::machine::{NewPool, PoolChange, PoolNews};
use crate::member::{Lead, Member};
use crate::startup::Shell;

/// News on their way to one client. One that takes none misses what comes after.
const QUEUE: usize = 1024;

/// The service.
#[derive(Clone)]
pub(crate) struct PoolApi {
    pub(crate) gate: Gate,
    pub(crate) shell: Arc<Shell>,
}

type Scrubbing = Pin<Box<dyn Stream<Item = Result<v1::ScrubPoolResponse, Status>> + Send>>;

type Progress = Pin<Box<dyn Stream<Item = Result<v1::PoolProgress, Status>> + Send>>;

#[tonic::async_trait]
impl PoolService for PoolApi {
    type CreateStream = Progress;
    type ChangeStream = Progress;
    type ScrubStream = Scrubbing;

    async fn create(
        &self,
        request: Request<v1::CreatePoolRequest>,
    ) -> Result<Response<Progress>, Status> {
        let (call, request) = Call::open(request, Duration::ZERO);
        if let Some(there) = self.elsewhere(&call, &request.node).await? {
            let answer = PoolServiceClient::new(there).create(call.onward(request)).await?;
            return Ok(Response::new(Box::pin(answer.into_inner())));
        }
        let asked = asked(request)?;
        info!(pool = %asked.name, dry_run = asked.dry_run, "a pool is asked for");
        let shell = self.shell.clone();
        Ok(Response::new(follow(move |tell| async move { shell.create_pool(asked, tell).await })))
    }

    async fn change(
        &self,
        request: Request<v1::ChangePoolRequest>,
    ) -> Result<Response<Progress>, Status> {
        let (call, request) = Call::open(request, Duration::ZERO);
        if let Some(there) = self.elsewhere(&call, &request.node).await? {
            let answer = PoolServiceClient::new(there).change(call.onward(request)).await?;
            return Ok(Response::new(Box::pin(answer.into_inner())));
        }
        let asked = PoolChange { dry_run: request.dry_run, change: change(request)? };
        info!(change = ?asked.change, dry_run = asked.dry_run, "a change of the pool is asked for");
        let shell = self.shell.clone();
        Ok(Response::new(follow(move |tell| async move { shell.change_pool(asked, tell).await })))
    }

    async fn check(
        &self,
        request: Request<v1::CheckPoolRequest>,
    ) -> Result<Response<v1::CheckPoolResponse>, Status> {
        let (call, request) = Call::open(request, Duration::ZERO);
        if let Some(there) = self.elsewhere(&call, &request.node).await? {
            return PoolServiceClient::new(there).check(call.onward(request)).await;
        }
        let findings = self.shell.check_pool().await?.into_iter().map(finding).collect();
        Ok(Response::new(v1::CheckPoolResponse { findings }))
    }

    async fn list(
        &self,
        request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        let member = match self.gate.stage() {
            Stage::Member(member) => member,
            Stage::Uninitialised | Stage::Starting => {
                let pools = self.shell.pool().await?.into_iter().collect();
                return Ok(Response::new(v1::ListPoolsResponse { pools }));
            }
        };
        let (call, _) = Call::open(request, Duration::ZERO);
        let there = |there: There| {
            let request = call.onward(v1::ListPoolsRequest {});
            async move { PoolServiceClient::new(there.relay).list(request).await }
        };
        Ok(Response::new(member.at_leader(&call, list, there).await?))
    }

    async fn show(
        &self,
        request: Request<v1::ShowPoolRequest>,
    ) -> Result<Response<v1::ShowPoolResponse>, Status> {
        let (call, request) = Call::open(request, Duration::ZERO);
        if let Some(there) = self.elsewhere(&call, &request.node).await? {
            return PoolServiceClient::new(there).show(call.onward(request)).await;
        }
        Ok(Response::new(v1::ShowPoolResponse { pool: self.shell.pool().await? }))
    }

    async fn scrub(
        &self,
        request: Request<v1::ScrubPoolRequest>,
    ) -> Result<Response<Scrubbing>, Status> {
        let (call, request) = Call::open(request, Duration::ZERO);
        if let Some(there) = self.elsewhere(&call, &request.node).await? {
            let answer = PoolServiceClient::new(there).scrub(call.onward(request)).await?;
            return Ok(Response::new(Box::pin(answer.into_inner())));
        }
        let duties = self.gate.member()?.duties.clone();
        let (news, stream) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let last = news.clone();
            let tell = Box::new(move |so_far| drop(news.try_send(Ok(so_far))));
            if let Err(error) = duties.scrub(tell).await {
                // A client that is gone reads it in the events.
                drop(last.send(Err(Fault::from(error).into())).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl PoolApi {
    /// The channel to the node that is meant, unless it is this one. A node that is in no cluster
    /// knows no other.
    async fn elsewhere(&self, call: &Call, node: &str) -> Result<Option<Channel>, Fault> {
        if node.is_empty() || node == self.shell.name() {
            return Ok(None);
        }
        let member: Arc<Member> = self.gate.member()?;
        route::to_node(&member, call, node).await.map(Some)
    }
}

pub(crate) fn asked(request: v1::CreatePoolRequest) -> Result<NewPool, Fault> {
    let invalid = |message: &str| Err(Fault::new(Code::InvalidArgument, message));
    if request.driver != "lvm" {
        return invalid("only a pool of driver lvm is made by command; xfs is configured");
    }
    if request.devices.is_empty() && request.vg.is_empty() {
        return invalid("name at least one device, or a volume group that is there");
    }
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let paths = |texts: Vec<String>| texts.into_iter().map(PathBuf::from).collect();
    Ok(NewPool {
        name: request.name.parse()?,
        devices: paths(request.devices),
        vg: some(request.vg),
        thin_pool: some(request.thin_pool),
        wipe: paths(request.wipe),
        dry_run: request.dry_run,
    })
}

pub(crate) fn change(request: v1::ChangePoolRequest) -> Result<Change, Fault> {
    use v1::change_pool_request::Change as Asked;
    let paths = |texts: Vec<String>| texts.into_iter().map(PathBuf::from).collect();
    let name = |text: String| {
        text.parse::<Name>().map_err(|refusal| Fault::new(refusal.code(), refusal.to_string()))
    };
    let asked = request.change;
    let asked = asked.ok_or_else(|| Fault::new(Code::InvalidArgument, "no change is named"))?;
    Ok(match asked {
        Asked::AddDevices(add) => {
            Change::AddDevices { devices: paths(add.devices), wipe: paths(add.wipe) }
        }
        Asked::EvacuateDevice(from) => Change::Evacuate { device: from.device.into() },
        Asked::RemoveDevice(remove) => Change::RemoveDevice { device: remove.device.into() },
        Asked::Grow(to) => Change::Grow {
            data: to.data_bytes.map(ByteSize),
            metadata: to.metadata_bytes.map(ByteSize),
        },
        Asked::Split(split) => {
            Change::Split { devices: paths(split.devices), into: name(split.into)? }
        }
        Asked::Merge(merge) => Change::Merge { from: name(merge.from)? },
        Asked::Repair(v1::RepairPool {}) => Change::Repair,
    })
}

fn finding(found: Finding) -> v1::PoolFinding {
    let severity = match found.severity {
        Severity::Fine => v1::PoolSeverity::Fine,
        Severity::Warning => v1::PoolSeverity::Warning,
        Severity::Broken => v1::PoolSeverity::Broken,
    };
    v1::PoolFinding { severity: severity.into(), text: found.text }
}

/// Begins a change, and passes on what it tells. It ends with or without the client.
fn follow<W, F>(work: W) -> Progress
where
    W: FnOnce(Tell) -> F + Send + 'static,
    F: Future<Output = Result<(), Fault>> + Send,
{
    let (news, stream) = mpsc::channel(QUEUE);
    let last = news.clone();
    tokio::spawn(async move {
        let tell: Tell = Box::new(move |told| drop(news.try_send(Ok(progress(told)))));
        if let Err(fault) = work(tell).await {
            warn!(code = %fault.code, reason = %fault, "the pool was not changed to the end");
            // A client that is gone reads it in the log.
            drop(last.send(Err(fault.into())).await);
        }
    });
    Box::pin(ReceiverStream::new(stream))
}

/// Takes news in.
type Tell = Box<dyn FnMut(PoolNews) + Send>;

fn progress(news: PoolNews) -> v1::PoolProgress {
    v1::PoolProgress {
        part: Some(match news {
            PoolNews::Plan(steps) => Part::Plan(v1::PoolPlan { steps }),
            PoolNews::Began(step) => Part::Began(step),
            PoolNews::Done(step) => Part::Done(step),
            PoolNews::Said(text) => Part::Said(text),
        }),
    }
}

/// The pools as the nodes last reported them; on the leader.
async fn list(lead: Lead) -> Result<v1::ListPoolsResponse, Fault> {
    let state = lead.read().await?;
    let pool = |node: v1::Node| {
        let capacity = node.pool?;
        let (name, driver) = (capacity.name.clone(), capacity.driver.clone());
        Some(v1::Pool {
            node: node.name,
            name,
            driver,
            capacity: Some(capacity),
            ..Default::default()
        })
    };
    let pools = lead.picture(&state, |picture, _| {
        state.nodes.values().filter_map(|n| pool(picture.node(n))).collect()
    });
    Ok(v1::ListPoolsResponse { pools })
}

//! A machine that pretends: it registers, sends heartbeats, and says of every container that it
//! does what it should.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_agent::Standing;
use holdfast_daemon::{
    Config, Duties, Identity, Machine, MachineError, NewPool, PoolChange, PoolNews, Unpacked,
};
use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::internal::peer_service_server::PeerService;
use holdfast_proto::internal::{
    Capacity, HeartbeatRequest, OfferRequest, OfferResponse, ReceiveRequest, ReceiveResponse,
    RegisterRequest, ReportRequest, RestampRequest, RestampResponse, SealRequest, SealResponse,
    Sealed, SyncNowRequest, SyncNowResponse, WatchViewRequest,
};
use holdfast_proto::{Dialers, Heartbeats, RemoteError, v1};
use holdfast_runtime::{ExecRequest, ExecSession};
use holdfast_storage::lvm::admin::{Finding, Severity};
use holdfast_types::{
    ByteSize, Code, ContainerUid, DesiredState, Epoch, FeatureLevel, ImageUid, NodeView, Report,
    RequestId, RunState, Seq, SnapshotId, SnapshotUuid,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::program;

/// What a test pulls.
#[derive(Default)]
pub(crate) struct Strings {
    /// Sends no heartbeats.
    pub(crate) silent: AtomicBool,
    /// The present life, as far as it knows.
    pub(crate) incarnation: AtomicU64,
    /// Has a pool.
    pub(crate) pool: AtomicBool,
    /// Which cannot be opened, until something is changed.
    pub(crate) damaged: AtomicBool,
    /// It was another cluster's, and has been taken over.
    pub(crate) inherited: AtomicBool,
    /// How often duties were to begin.
    pub(crate) runs: AtomicU64,
    /// The cluster has let it go.
    pub(crate) removed: watch::Sender<String>,
    /// Understands one feature level less than this version.
    pub(crate) older: AtomicBool,
    /// Grants so far.
    pub(crate) grants: AtomicU64,
}

pub(crate) struct Puppet {
    address: String,
    strings: Arc<Strings>,
}

impl Puppet {
    pub(crate) fn new(config: &Config, strings: Arc<Strings>) -> Self {
        Self { address: config.advertise.clone(), strings }
    }
}

impl Machine for Puppet {
    fn check(&self) -> Result<(), MachineError> {
        Ok(())
    }

    fn pool(&self) -> Result<Option<v1::Pool>, MachineError> {
        let pool = v1::Pool { name: "puppets".into(), ..Default::default() };
        Ok(self.strings.pool.load(Ordering::SeqCst).then_some(pool))
    }

    fn create_pool(
        &self,
        asked: &NewPool,
        tell: &mut dyn FnMut(PoolNews),
    ) -> Result<(), MachineError> {
        let step = format!("make {}", asked.name);
        tell(PoolNews::Plan(vec![step]));
        if !asked.dry_run {
            tell(PoolNews::Began(0));
            self.strings.pool.store(true, Ordering::SeqCst);
            tell(PoolNews::Done(0));
        }
        Ok(())
    }

    fn change_pool(
        &self,
        asked: &PoolChange,
        tell: &mut dyn FnMut(PoolNews),
    ) -> Result<(), MachineError> {
        tell(PoolNews::Plan(vec![format!("{:?}", asked.change)]));
        if !asked.dry_run {
            self.strings.damaged.store(false, Ordering::SeqCst);
            tell(PoolNews::Began(0));
            tell(PoolNews::Said("50 %".into()));
            tell(PoolNews::Done(0));
        }
        Ok(())
    }

    fn has_inherited_pool(&self) -> bool {
        self.strings.inherited.load(Ordering::SeqCst)
    }

    fn check_pool(&self) -> Result<Vec<Finding>, MachineError> {
        let text = "it is full".to_owned();
        Ok(vec![Finding { severity: Severity::Warning, text }])
    }

    fn begin(
        &self,
        me: &Identity,
        (dialers, standing): (Dialers, Arc<Standing>),
        leader: watch::Receiver<Option<String>>,
    ) -> Result<Arc<dyn Duties>, MachineError> {
        let player = Player {
            me: me.clone(),
            own: self.address.clone(),
            leader,
            dialers,
            standing,
            strings: self.strings.clone(),
            channels: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(player.clone().beat());
        tasks.spawn(player.follow());
        Ok(Arc::new(PuppetDuties { tasks: Mutex::new(tasks), strings: self.strings.clone() }))
    }
}

#[derive(Clone)]
struct Player {
    me: Identity,
    own: String,
    leader: watch::Receiver<Option<String>>,
    dialers: Dialers,
    standing: Arc<Standing>,
    strings: Arc<Strings>,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Player {
    /// The hinted leader, or each seed in turn.
    fn client(&self, turn: usize) -> LeaderServiceClient<Channel> {
        let seeds: Vec<String> = self.me.peers.iter().cloned().chain([self.own.clone()]).collect();
        let hint = self.leader.borrow().clone();
        let address = hint.unwrap_or_else(|| seeds[turn % seeds.len()].clone());
        let mut channels = self.channels.lock().unwrap();
        let channel = channels.entry(address).or_insert_with_key(|address| {
            self.dialers.members.lazy(&address.parse().unwrap(), Duration::from_millis(500))
        });
        LeaderServiceClient::new(channel.clone())
    }

    async fn beat(self) {
        for turn in 0.. {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.strings.silent.load(Ordering::SeqCst) {
                continue;
            }
            if self.strings.incarnation.load(Ordering::SeqCst) == 0 {
                self.register(turn).await;
                continue;
            }
            self.one_beat(turn).await;
        }
    }

    async fn register(&self, turn: usize) {
        let request = RegisterRequest {
            node_id: self.me.node.0,
            previous: 0,
            request_id: RequestId::generate().to_bytes().into(),
            cluster_id: self.me.cluster.to_bytes().into(),
            feature_level: self.level(),
        };
        match self.client(turn).register(request).await {
            Ok(answer) => {
                self.strings.incarnation.store(answer.into_inner().incarnation, Ordering::SeqCst);
            }
            Err(status) => self.note_removal(RemoteError::from(status)),
        }
    }

    fn level(&self) -> u32 {
        let older = self.strings.older.load(Ordering::SeqCst);
        FeatureLevel::OURS.0 - u32::from(older)
    }

    async fn one_beat(&self, turn: usize) {
        let request = HeartbeatRequest {
            node_id: self.me.node.0,
            incarnation: self.strings.incarnation.load(Ordering::SeqCst),
            cluster_id: self.me.cluster.to_bytes().into(),
            holdings: Vec::new(),
            full: true,
            memory_bytes: Some(1 << 30),
            pool: Some(Capacity {
                driver: "puppet".into(),
                size_bytes: 10 << 30,
                used_bytes: 1 << 30,
                promised_bytes: 0,
                admits: true,
                name: "puppets".into(),
                ..Default::default()
            }),
            without_pool: false,
            feature_level: self.level(),
            version: "9.9.9".into(),
            standing: self.standing.own(),
        };
        let client = self.client(turn);
        let beats = Heartbeats::default();
        match beats.beat(String::new(), client, request).await.map_err(RemoteError::from) {
            Ok(answer) => {
                self.standing.want(answer.into_inner().standing);
                self.strings.grants.fetch_add(1, Ordering::SeqCst);
            }
            Err(e) if matches!(e.code, Code::NodeLost | Code::StaleIncarnation) => {
                self.strings.incarnation.store(0, Ordering::SeqCst);
            }
            Err(e) => self.note_removal(e),
        }
    }

    fn note_removal(&self, error: RemoteError) {
        if error.code == Code::NodeRemoved {
            self.strings.removed.send_replace(error.message);
        }
    }

    async fn follow(self) {
        for turn in 0.. {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let incarnation = self.strings.incarnation.load(Ordering::SeqCst);
            let request = WatchViewRequest {
                node_id: self.me.node.0,
                incarnation,
                cluster_id: self.me.cluster.to_bytes().into(),
            };
            let Ok(stream) = self.client(turn).watch_view(request).await else { continue };
            let mut stream = stream.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                let view: NodeView = rmp_serde::from_slice(&message.view).unwrap();
                self.obey(&view, turn).await;
            }
        }
    }

    async fn obey(&self, view: &NodeView, turn: usize) {
        let assigned = view.assigned.iter().map(|assigned| Report::Run {
            uid: assigned.uid,
            epoch: assigned.chain.epoch,
            state: match assigned.desired {
                DesiredState::Running => RunState::Running,
                DesiredState::Stopped | DesiredState::Deleted => RunState::Stopped,
            },
        });
        let removed = view.deleting.iter().map(|uid| Report::CopyRemoved { uid: *uid });
        let reports: Vec<_> = assigned.chain(removed).collect();
        let request = ReportRequest {
            node_id: self.me.node.0,
            incarnation: view.incarnation.0,
            reports: reports.iter().map(|r| rmp_serde::to_vec_named(r).unwrap().into()).collect(),
            cluster_id: self.me.cluster.to_bytes().into(),
            request_id: RequestId::generate().to_bytes().into(),
        };
        // A view that comes late is followed by another.
        drop(self.client(turn).report(request).await);
    }
}

struct PuppetDuties {
    tasks: Mutex<JoinSet<()>>,
    strings: Arc<Strings>,
}

#[async_trait]
impl Duties for PuppetDuties {
    fn transfers(&self) -> holdfast_agent::TransferCounts {
        holdfast_agent::TransferCounts::default()
    }

    async fn run(&self) -> Result<(), MachineError> {
        self.strings.runs.fetch_add(1, Ordering::SeqCst);
        match self.is_silent() {
            true => Err(MachineError { code: Code::PoolDamaged, message: "it is damaged".into() }),
            false => Ok(()),
        }
    }

    fn is_silent(&self) -> bool {
        self.strings.damaged.load(Ordering::SeqCst)
    }

    fn peers(&self) -> Arc<dyn PeerService> {
        Arc::new(PuppetPeers)
    }

    async fn import_image(
        &self,
        uid: ImageUid,
        size: ByteSize,
        mut archive: Box<dyn Read + Send>,
    ) -> Result<Unpacked, MachineError> {
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            archive.read_to_end(&mut bytes).map(|_| bytes.len() as u64)
        });
        let failed =
            |e: std::io::Error| MachineError { code: Code::BadImage, message: e.to_string() };
        let content = ByteSize(read.await.unwrap().map_err(failed)?);
        let snapshot = SnapshotId {
            volume: uid.into(),
            epoch: Epoch(1),
            seq: Seq(1),
            uuid: SnapshotUuid::generate(),
            parent: None,
        };
        Ok(Unpacked { snapshot, size, entries: 1, content, has_init: true })
    }

    async fn discard_image(&self, _: ImageUid) -> Result<(), MachineError> {
        Ok(())
    }

    async fn exec(
        &self,
        _: ContainerUid,
        request: ExecRequest,
    ) -> Result<ExecSession, MachineError> {
        Ok(program::run(&request))
    }

    async fn console_tail(&self, uid: ContainerUid, _: u64) -> Result<Vec<u8>, MachineError> {
        Ok(format!("console of {uid}").into_bytes())
    }

    async fn scrub(
        &self,
        mut tell: Box<dyn FnMut(v1::ScrubPoolResponse) + Send>,
    ) -> Result<(), MachineError> {
        tell(v1::ScrubPoolResponse::default());
        Ok(())
    }

    async fn removed(&self) -> String {
        let mut removed = self.strings.removed.subscribe();
        removed.wait_for(|why| !why.is_empty()).await.map(|why| why.clone()).unwrap_or_default()
    }

    fn is_leased(&self) -> bool {
        true
    }

    async fn stop(&self) {
        self.tasks.lock().unwrap().abort_all();
    }
}

struct PuppetPeers;

#[tonic::async_trait]
impl PeerService for PuppetPeers {
    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        let items = request.into_inner().items.into_iter();
        let sealed = items.map(|item| Sealed { volume: item.volume, held: Vec::new() }).collect();
        Ok(Response::new(SealResponse { sealed }))
    }

    async fn offer(&self, _: Request<OfferRequest>) -> Result<Response<OfferResponse>, Status> {
        Err(Status::unimplemented("puppet"))
    }

    async fn receive(
        &self,
        _: Request<Streaming<ReceiveRequest>>,
    ) -> Result<Response<ReceiveResponse>, Status> {
        Err(Status::unimplemented("puppet"))
    }

    async fn restamp(
        &self,
        _: Request<RestampRequest>,
    ) -> Result<Response<RestampResponse>, Status> {
        Err(Status::unimplemented("puppet"))
    }

    async fn sync_now(
        &self,
        _: Request<SyncNowRequest>,
    ) -> Result<Response<SyncNowResponse>, Status> {
        Err(Status::unimplemented("puppet"))
    }
}

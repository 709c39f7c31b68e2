//! Many workers that do nothing but renew their leases: what that costs the leader.
//!
//! Each is admitted and registers as a real one does, has a connection of its own, and beats when
//! the leader's last answer asked it to. Nothing else of a worker is simulated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::internal::{HeartbeatRequest, RegisterRequest};
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::{Heartbeats, RemoteError};
use holdfast_trust::{Bundle, Certificate, SecretKey};
use holdfast_types::{Code, FeatureLevel, RequestId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;
use tonic::transport::Channel;

use crate::cluster::{Cluster, connect, dialer};
use crate::holdfast::{Holdfast, token, worker};
use crate::process::{memory_mib, processor_s};
use crate::{Measured, Plan, say};

/// Admissions under way at a time, and how long one is tried.
const ADMISSIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(60);

/// Until everything beats evenly, and how long it is then watched.
const SETTLE: Duration = Duration::from_secs(5);
const WATCH: Duration = Duration::from_secs(10);

/// The period of the default lease; an answer that takes longer counts as none.
const PERIOD: Duration = Duration::from_millis(500);

/// What the workers have seen.
#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// Measures the leader.
pub(crate) async fn measure(
    cluster: &mut Holdfast,
    plan: &Plan,
    measured: &mut Measured,
) -> Result<()> {
    cluster.ready().await?;
    let leader = cluster.leader().await?;
    let (address, pid) = (cluster.addresses()[leader].clone(), cluster.pids()?[leader]);
    let gate = Gate {
        member: connect(cluster.dialer(), &address)?,
        newcomer: cluster.newcomer(leader)?,
        address,
    };
    let idle = applied_and_processor(cluster, leader, pid).await?;
    sleep(SETTLE).await;
    let idle = applied_and_processor(cluster, leader, pid).await?.1 - idle.1;
    measured.add("workers_none_processor".into(), idle / SETTLE.as_secs_f64());
    say(&format!("{} workers are admitted", plan.workers));
    let (counts, places) = (Arc::new(Counts::default()), Arc::new(Semaphore::new(ADMISSIONS)));
    let (mut admitted, mut beating) = (JoinSet::new(), JoinSet::new());
    for number in 0..plan.workers {
        let (gate, places) = (gate.clone(), places.clone());
        admitted.spawn(async move {
            let _place = places.acquire().await?;
            admit(&gate, number).await
        });
    }
    while let Some(worker) = admitted.join_next().await {
        beating.spawn(worker??.beat(counts.clone()));
    }
    say("and beat");
    sleep(SETTLE).await;
    let count = || (counts.answered.load(Ordering::Relaxed), counts.failed.load(Ordering::Relaxed));
    let (before, beats) = (applied_and_processor(cluster, leader, pid).await?, count());
    // Asking how far the leader is takes long beside so many: what passes is measured, not assumed.
    let began = Instant::now();
    sleep(WATCH).await;
    let (after, beaten) = (applied_and_processor(cluster, leader, pid).await?, count());
    let watched_s = began.elapsed().as_secs_f64();
    measured.add("workers_processor".into(), (after.1 - before.1) / watched_s);
    measured.add("workers_entries".into(), (after.0 - before.0) as f64);
    measured.add("workers_heartbeats_rate".into(), (beaten.0 - beats.0) as f64 / watched_s);
    measured.add("workers_heartbeats_failed".into(), (beaten.1 - beats.1) as f64);
    measured.add("workers_leader_mib".into(), memory_mib(pid)?);
    beating.shutdown().await;
    Ok(())
}

/// The leader's last applied entry, and the processor time that it has used.
async fn applied_and_processor(cluster: &Holdfast, leader: usize, pid: u32) -> Result<(u64, f64)> {
    Ok((cluster.status(leader).await?.applied, processor_s(pid)?))
}

/// One worker, registered.
struct Worker {
    client: LeaderServiceClient<tonic::transport::Channel>,
    request: HeartbeatRequest,
}

/// How workers come in.
#[derive(Clone)]
struct Gate {
    /// A member's channel to the leader, which makes tokens,
    member: Channel,
    /// that of whoever has no certificate yet,
    newcomer: Channel,
    /// and where both lead.
    address: String,
}

/// Lets it in and registers it, as its daemon would.
async fn admit(gate: &Gate, number: u32) -> Result<Worker> {
    let token = token(ClusterServiceClient::new(gate.member.clone())).await?;
    let key = SecretKey::generate()?;
    let name = format!("worker-{number}");
    let request = worker(&name, 0x7f13_0000 + number, &token, &key)?;
    let ask =
        || async { LeaderServiceClient::new(gate.newcomer.clone()).admit(request.clone()).await };
    let admitted = insist(ask).await.context("admission")?;
    let authorities = admitted.authorities.iter().map(|der| Certificate::from_der(der.to_vec()));
    let own = Bundle {
        key,
        certificate: Certificate::from_der(admitted.certificate.to_vec())?,
        authorities: authorities.collect::<Result<_, _>>()?,
    };
    let client = LeaderServiceClient::new(connect(&dialer(&own)?, &gate.address)?);
    let request = HeartbeatRequest {
        node_id: admitted.node_id,
        cluster_id: admitted.cluster_id,
        without_pool: true,
        feature_level: FeatureLevel::OURS.0,
        ..Default::default()
    };
    let mut worker = Worker { client, request };
    worker.register().await.context("registration")?;
    Ok(worker)
}

/// Asks until it is answered: the same request applies once.
async fn insist<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if Instant::now() > end => return Err(status),
            Err(_) => sleep(PERIOD).await,
        }
    }
}

impl Worker {
    /// Begins a life.
    async fn register(&mut self) -> Result<(), Status> {
        let request = RegisterRequest {
            node_id: self.request.node_id,
            previous: 0,
            request_id: RequestId::generate().to_bytes().into(),
            cluster_id: self.request.cluster_id.clone(),
            feature_level: FeatureLevel::OURS.0,
        };
        let ask = || async { self.client.clone().register(request.clone()).await };
        self.request.incarnation = insist(ask).await?.incarnation;
        self.request.full = true;
        Ok(())
    }

    /// Beats until it is dropped.
    async fn beat(mut self, counts: Arc<Counts>) {
        let beats = Heartbeats::default();
        loop {
            let begun = Instant::now();
            let asked = timeout(
                PERIOD,
                beats.beat(String::new(), self.client.clone(), self.request.clone()),
            )
            .await;
            let answer = asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("a heartbeat")));
            let due = match answer {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    self.request.full = answer.send_full;
                    counts.answered.fetch_add(1, Ordering::Relaxed);
                    let next = Instant::now() + Duration::from_millis(answer.next_heartbeat_ms);
                    next.min(begun + PERIOD * 2)
                }
                Err(status) => {
                    counts.failed.fetch_add(1, Ordering::Relaxed);
                    let code = RemoteError::from(status).code;
                    if matches!(code, Code::NodeLost | Code::StaleIncarnation) {
                        // It was declared lost, and lives again.
                        drop(self.register().await);
                    }
                    begun + PERIOD
                }
            };
            sleep_until(due).await;
        }
    }
}

//! The lease loop (DESIGN section 5 rules 1, 5 and 6). It runs from the first moment on, before
//! any storage is open, and does as little as it can.
//!
//! ```text
//!  unregistered ──register──▶ registered ──grant──▶ guardian renews ──▶ …
//!       ▲                        │  ▲                   │ fenced
//!       └── lost, stale life ────┘  └── thaw ◀── view fresh, strangers killed
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_proto::internal::{self, HeartbeatRequest, RegisterRequest};
use holdfast_proto::{Heartbeats, RemoteError};
use holdfast_types::{
    ByteSize, Code, FeatureLevel, Incarnation, LeaseSettings, RequestId, Revision,
};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::asked::Asked;
use crate::context::Context;
use crate::error::AgentError;
use crate::gate::LeaseState;

/// Asks for grants, until the cluster has let this node go.
pub(crate) async fn run(context: Arc<Context>) {
    let period = Duration::from_millis(LeaseSettings::default().heartbeat_ms());
    let mut keeper = Keeper {
        period,
        next: None,
        incarnation: Incarnation(0),
        full: true,
        quiet: false,
        views_missed: 0,
        term: 0,
        beats: Heartbeats::default(),
        context,
    };
    loop {
        let begun = Instant::now();
        if keeper.context.silent.load(Ordering::Relaxed) {
            tokio::time::sleep(keeper.period).await;
            continue;
        }
        match keeper.beat(begun).await {
            Ok(()) => keeper.quiet = false,
            Err(error) if error.code() == Code::NodeRemoved => {
                keeper.context.end_life();
                keeper.context.removed.send_replace(Some(error.line()));
                return;
            }
            Err(error) if !keeper.quiet => {
                warn!(error = %error.line(), "no lease could be had");
                keeper.quiet = true;
            }
            Err(error) => debug!(error = %error.line(), "still no lease"),
        }
        let due = keeper.next.take().unwrap_or(begun + keeper.period);
        tokio::time::sleep_until(due).await;
    }
}

struct Keeper {
    context: Arc<Context>,
    beats: Heartbeats,
    /// `T/6`.
    period: Duration,
    /// When the leader asked for the next heartbeat, with its answer to this one; else it is due `T/6`
    /// after this one.
    next: Option<Instant>,
    /// 0 while unregistered.
    incarnation: Incarnation,
    full: bool,
    quiet: bool,
    /// Grants in a row that knew of a newer view than the one at hand.
    views_missed: u32,
    /// The newest term of a leader that granted anything. An older leader is a late answer, or one of
    /// a majority that was given up (`holdfast_raft`'s generations) and does not know it yet.
    term: u64,
}

fn old_leader() -> RemoteError {
    RemoteError {
        code: Code::Superseded,
        message: "a leader of an older term than one before answered".into(),
        leader: None,
    }
}

impl Keeper {
    /// One heartbeat, which began then.
    async fn beat(&mut self, begun: Instant) -> Result<(), AgentError> {
        if self.incarnation == Incarnation(0) {
            self.register().await?;
        }
        let (request, news) = self.request().await;
        let beats = &self.beats;
        let ask = |to, leader: crate::peers::Leader| {
            let request = request.clone();
            async move { beats.beat(to, leader, request).await }
        };
        let question = self.context.leader.ask(self.period, self.period * 2, ask);
        let asked = match Asked::of(question).await.granted() {
            Ok(asked) => asked,
            Err(error) => return Err(self.refused(error)),
        };
        let grant = asked.answer();
        if grant.term < self.term {
            return Err(old_leader().into());
        }
        self.term = grant.term;
        if let Some(news) = news {
            self.context.holdings.told(news);
        }
        self.context.led_in(grant.term);
        self.check_view(Revision(grant.view_revision));
        self.full = grant.send_full;
        self.context.config.standing.want(grant.standing);
        self.period = Duration::from_millis(grant.heartbeat_ms.clamp(50, 10_000));
        let next = Duration::from_millis(grant.next_heartbeat_ms).max(self.period / 8);
        // The lease counts from when this one began, so a slow answer may not delay the next one much.
        self.next = Some((Instant::now() + next).min(begun + self.period * 2));
        self.granted(&asked).await
    }

    /// A view that is on its way arrives within a heartbeat; one that does not is stuck.
    fn check_view(&mut self, newest: Revision) {
        const MISSED: u32 = 3;
        let behind = self.context.view().is_none_or(|view| view.revision < newest);
        self.views_missed = if behind { self.views_missed + 1 } else { 0 };
        if self.views_missed >= MISSED {
            self.views_missed = 0;
            self.context.follow_anew();
        }
    }

    async fn register(&mut self) -> Result<(), AgentError> {
        let identity = self.context.config.identity;
        let request = RegisterRequest {
            node_id: identity.node.0,
            previous: 0,
            request_id: RequestId::generate().to_bytes().into(),
            cluster_id: identity.cluster.to_bytes().into(),
            feature_level: FeatureLevel::OURS.0,
        };
        let ask = |_, mut leader: crate::peers::Leader| {
            let request = request.clone();
            async move { leader.register(request).await }
        };
        let answer = self.context.leader.ask(self.period * 2, self.period * 6, ask).await?;
        self.incarnation = Incarnation(answer.incarnation);
        self.full = true;
        self.context.begin_life(self.incarnation);
        info!(incarnation = %self.incarnation, "registered");
        Ok(())
    }

    async fn request(&self) -> (HeartbeatRequest, Option<crate::holdings::News>) {
        let identity = self.context.config.identity;
        let mut request = HeartbeatRequest {
            node_id: identity.node.0,
            incarnation: self.incarnation.0,
            cluster_id: identity.cluster.to_bytes().into(),
            feature_level: FeatureLevel::OURS.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            standing: self.context.config.standing.own(),
            ..Default::default()
        };
        let Some(parts) = self.context.parts() else {
            request.without_pool = self.context.without_pool.load(Ordering::Relaxed);
            // With nothing stored, that is everything.
            request.full = request.without_pool;
            request.memory_bytes = self.context.memory.map(ByteSize::bytes);
            return (request, None);
        };
        let (context, full) = (self.context.clone(), self.full);
        let look = move || Ok::<_, AgentError>(context.holdings.news(&*parts.pool, full));
        let Ok(news) = crate::error::blocking(look).await else { return (request, None) };
        request.full = self.full;
        request.holdings = news.held.iter().map(|held| (*held).into()).collect();
        let removed = news.removed.iter().map(|volume| internal::Holding {
            volume: volume.to_bytes().into(),
            removed: true,
            ..Default::default()
        });
        request.holdings.extend(removed);
        request.pool = self.context.capacity();
        request.memory_bytes = self.context.memory.filter(|_| self.full).map(ByteSize::bytes);
        (request, Some(news))
    }

    fn refused(&mut self, error: RemoteError) -> AgentError {
        if matches!(error.code, Code::NodeLost | Code::StaleIncarnation) {
            // This life is over. What it ran is fenced or about to be; the next one asks anew.
            info!(incarnation = %self.incarnation, reason = %error, "this life is over");
            self.incarnation = Incarnation(0);
            self.context.end_life();
        }
        error.into()
    }

    async fn granted(
        &mut self,
        asked: &Asked<internal::HeartbeatResponse>,
    ) -> Result<(), AgentError> {
        let grant = asked.answer();
        let until = asked.lease(grant.lease_ms);
        let lease = LeaseState {
            incarnation: self.incarnation,
            deadline_ns: 0,
            assignment_revision: Revision(grant.assignment_revision),
        };
        self.context.raise_revision(lease);
        if self.context.config.witness {
            return Ok(());
        }
        let held_ns = match self.context.guardian.renew(until).await {
            Ok(held_ns) => held_ns,
            Err(AgentError::Guardian(error)) if error.is_fenced() => {
                self.context.fenced();
                match self.may_thaw(&lease, grant.fence_budget_ms).await? {
                    true => self.context.guardian.thaw(until).await?,
                    false => return Ok(()),
                }
            }
            Err(error) => {
                self.context.fenced();
                return Err(error);
            }
        };
        self.context.leased(held_ns);
        Ok(())
    }

    /// Kills what is not this node's any more, by a view that has reached the grant; only then may
    /// the rest thaw (rule 5).
    async fn may_thaw(&self, lease: &LeaseState, fence_budget_ms: u64) -> Result<bool, AgentError> {
        let Some(parts) = self.context.parts() else { return Ok(false) };
        let Some(view) = self.context.view() else { return Ok(false) };
        if !lease.view_is_fresh(&view) {
            return Ok(false);
        }
        self.check_budget(fence_budget_ms).await?;
        let starts = self.context.starts.clone();
        crate::error::blocking(move || {
            crate::strangers::kill(&*parts.pool, &*parts.runtime, &starts, &view)
        })
        .await?;
        Ok(true)
    }

    /// The cluster waits for `F` before it takes over. A guardian that takes longer would be too
    /// late; each starts fenced, so each comes by here.
    async fn check_budget(&self, agreed_ms: u64) -> Result<(), AgentError> {
        let guardian = self.context.guardian.clone();
        let status = crate::error::blocking(move || guardian.status_blocking()).await?;
        match status.fence_budget_ms <= agreed_ms {
            true => Ok(()),
            false => Err(AgentError::Budget { own_ms: status.fence_budget_ms, agreed_ms }),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::Dialer;
    use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
    use tokio::sync::watch;

    use super::*;
    use crate::fake_leader::FakeLeader;
    use crate::leader::LeaderClient;

    async fn ask(client: &LeaderClient, beats: &Heartbeats, incarnation: u64) -> u64 {
        let request = HeartbeatRequest { incarnation, ..Default::default() };
        let ask = |to, leader| beats.beat(to, leader, request.clone());
        let (attempt, limit) = (Duration::from_secs(5), Duration::from_secs(10));
        client.ask(attempt, limit, ask).await.unwrap().term
    }

    /// I8, rule 1: an answer to a heartbeat that was given up would count from a later one's moment.
    #[tokio::test]
    async fn a_late_answer_is_not_taken_for_the_next_heartbeat_s() {
        let (leader, address) = FakeLeader::begin().await;
        let (client, beats) = (
            LeaderClient::new(&[address], watch::channel(None).1, Dialer::plaintext()),
            Heartbeats::default(),
        );
        assert_eq!(ask(&client, &beats, 1).await, 1);
        leader.silent.send_replace(true);
        let mut heard = leader.heard.subscribe();
        tokio::select! {
            _ = ask(&client, &beats, 2) => panic!("answered"),
            heard = heard.wait_for(|heard| *heard == 2) => drop(heard.unwrap()),
        }
        leader.silent.send_replace(false);
        assert_eq!(ask(&client, &beats, 3).await, 3);
    }

    /// What a stream to an earlier leader said was held against the one that was asked.
    #[tokio::test]
    async fn a_heartbeat_goes_to_the_leader_that_is_asked() {
        let (_old, old_at) = FakeLeader::begin().await;
        let (new, new_at) = FakeLeader::begin().await;
        let (hint, hinted) = watch::channel(Some(old_at));
        let (client, beats) =
            (LeaderClient::new(&[], hinted.clone(), Dialer::plaintext()), Heartbeats::default());
        assert_eq!(ask(&client, &beats, 1).await, 1);
        hint.send_replace(Some(new_at));
        let client = LeaderClient::new(&[], hinted, Dialer::plaintext());
        assert_eq!(ask(&client, &beats, 2).await, 2);
        assert_eq!(*new.heard.borrow(), 2);
    }

    /// A broken stream made a leader that answers look as if it did not.
    #[tokio::test]
    async fn a_stream_that_broke_is_opened_anew() {
        let (leader, address) = FakeLeader::begin().await;
        leader.brief.send_replace(true);
        let channel = Dialer::plaintext().lazy(&address.parse().unwrap(), Duration::from_secs(5));
        let (client, beats) = (LeaderServiceClient::new(channel), Heartbeats::default());
        for incarnation in 1..4 {
            let request = HeartbeatRequest { incarnation, ..Default::default() };
            let answer = beats.beat(address.clone(), client.clone(), request).await.unwrap();
            assert_eq!(answer.into_inner().term, incarnation);
        }
    }
}

//! One container's worker: looks, asks `reconcile` for the next step, does it, looks again.

use std::sync::Arc;
use std::time::Duration;

use holdfast_network::{AttachSpec, LinkNames, Outcome};
use holdfast_reconcile::{Action, Duty, Gate, Observed, next};
use holdfast_runtime::RuntimeError;
use holdfast_types::{
    AssignedView, Code, ContainerUid, DesiredState, Epoch, NodeView, Protection, Report, RunState,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::agent::Parts;
use crate::context::Context;
use crate::error::{AgentError, blocking};
use crate::{act, report};

/// A container whose init ends sooner than this has failed to start.
const MUST_LAST: Duration = Duration::from_secs(10);
/// The first wait after a failure; doubled up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// How long init may take to end by itself.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// More steps than any container needs: past it something fights us.
const MAX_STEPS: usize = 32;

/// One container's worker.
pub(crate) struct Worker {
    context: Arc<Context>,
    parts: Arc<Parts>,
    uid: ContainerUid,
    wake: Arc<Notify>,
    reported: Option<(Epoch, RunState)>,
    diverged_told: bool,
    started: Option<(Epoch, Instant)>,
    trouble: Option<Trouble>,
}

/// Something failed, and is tried again later.
struct Trouble {
    about: Option<(Epoch, DesiredState)>,
    /// Set when it was the start that failed: the cluster is told.
    reason: Option<String>,
    retry_at: Instant,
    backoff: Duration,
}

impl Worker {
    pub(crate) fn new(
        context: Arc<Context>,
        parts: Arc<Parts>,
        uid: ContainerUid,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            context,
            parts,
            uid,
            wake,
            reported: None,
            diverged_told: false,
            started: None,
            trouble: None,
        }
    }

    /// Works until the container is of no concern to this node.
    pub(crate) async fn run(mut self) {
        loop {
            if !self.work().await {
                return;
            }
            let retry = self.trouble.as_ref().map(|t| t.retry_at);
            let far = Instant::now() + Duration::from_secs(3600);
            // A retry that is due already waits for a wake: it was looked at just now.
            let until = retry.filter(|at| *at > Instant::now()).unwrap_or(far);
            let _ = tokio::time::timeout_at(until, self.wake.notified()).await;
        }
    }

    /// Does all that can be done now. Returns whether there is anything left to look after.
    async fn work(&mut self) -> bool {
        for _ in 0..MAX_STEPS {
            let Some(view) = self.context.view() else { return true };
            if view.incarnation != self.context.incarnation() {
                // Nothing is done on the word of an older life (I13).
                return true;
            }
            let duty = duty(&view, self.uid);
            let observed = match self.observe(duty).await {
                Ok(observed) => observed,
                Err(error) => {
                    self.fail(duty, None, &error);
                    return true;
                }
            };
            if self
                .trouble
                .as_ref()
                .is_some_and(|t| t.reason.is_none() && t.retry_at > Instant::now())
            {
                return true;
            }
            let gate = self.context.gate(&view);
            self.tell_diverged(duty).await;
            let Some(step) = next(duty, &observed, gate) else {
                self.settle(duty, &observed, gate).await;
                return !matches!(duty, Duty::None(_)) || observed.running;
            };
            if step.action == Action::Wait {
                debug!(container = %self.uid, why = %step.why, "waits");
                return true;
            }
            info!(container = %self.uid, action = ?step.action, why = %step.why, "acts");
            let is_start = step.action == Action::Start;
            match self.execute(&view, duty, step.action).await {
                Ok(()) => {}
                Err(error) => {
                    let is_start = is_start && counts(&error);
                    self.fail(duty, is_start.then(|| error.line()), &error);
                    // A failed start is told to the cluster; the rest is tried again later.
                    if !is_start {
                        return true;
                    }
                }
            }
        }
        warn!(container = %self.uid, "too many steps; looking again later");
        true
    }

    async fn observe(&mut self, duty: Duty<'_>) -> Result<Observed, AgentError> {
        let image = match duty {
            Duty::Assigned(view) => Some(view.image),
            _ => None,
        };
        let (parts, uid) = (self.parts.clone(), self.uid);
        let mountpoint = self.context.mountpoint(uid);
        let mut observed = blocking(move || act::observe(&parts, uid, &mountpoint, image)).await?;
        let about = about(duty);
        if self.trouble.as_ref().is_some_and(|t| t.about != about) {
            self.trouble = None;
        }
        let epoch = about.map(|(epoch, _)| epoch);
        observed.reported =
            self.reported.clone().filter(|(e, _)| Some(*e) == epoch).map(|(_, state)| state);
        self.notice_end(duty, observed.running);
        let waiting = self.trouble.as_ref().filter(|t| t.retry_at > Instant::now());
        observed.failed = waiting.and_then(|t| t.reason.clone());
        Ok(observed)
    }

    /// An init that ended by itself soon after its start counts as a failed start.
    fn notice_end(&mut self, duty: Duty<'_>, running: bool) {
        let Some((epoch, at)) = self.started.filter(|_| !running) else { return };
        self.started = None;
        let wanted = about(duty) == Some((epoch, DesiredState::Running));
        if wanted && at.elapsed() < MUST_LAST {
            let reason = format!("init ended {} ms after its start", at.elapsed().as_millis());
            self.reported = None;
            self.back_off(duty, Some(reason));
        }
    }

    fn fail(&mut self, duty: Duty<'_>, reason: Option<String>, error: &AgentError) {
        warn!(container = %self.uid, error = %error.line(), "failed; tried again later");
        if reason.is_some() {
            self.reported = None;
        }
        self.back_off(duty, reason);
    }

    fn back_off(&mut self, duty: Duty<'_>, reason: Option<String>) {
        let before = self.trouble.as_ref().map(|t| t.backoff * 2);
        let backoff = before.unwrap_or(FIRST_BACKOFF).min(LONGEST_BACKOFF);
        let retry_at = Instant::now() + backoff;
        self.trouble = Some(Trouble { about: about(duty), reason, retry_at, backoff });
    }

    async fn execute(
        &mut self,
        view: &NodeView,
        duty: Duty<'_>,
        action: Action,
    ) -> Result<(), AgentError> {
        let (parts, uid) = (self.parts.clone(), self.uid);
        let at = self.context.mountpoint(uid);
        match (action, duty) {
            (Action::Kill, _) => {
                self.started = None;
                blocking(move || parts.runtime.kill(uid)).await.map(drop)
            }
            (Action::Stop, _) => {
                self.started = None;
                blocking(move || parts.runtime.stop(uid, STOP_GRACE)).await.map(drop)
            }
            (Action::Deactivate, _) => {
                self.parts.network.detach(uid).await?;
                self.context.shipments.rests(uid);
                blocking(move || act::deactivate(&parts, uid, &at)).await
            }
            (Action::Demote { to }, Duty::Assigned(AssignedView { chain, .. }))
            | (Action::Demote { to }, Duty::Replica(holdfast_types::ReplicaView { chain, .. })) => {
                self.diverged_told = false;
                let chain = chain.clone();
                blocking(move || act::demote(&parts, uid, to, &chain)).await
            }
            (Action::CloneImage { image, epoch }, Duty::Assigned(view)) => {
                let view = view.clone();
                blocking(move || act::clone_image(&*parts.pool, &view, image, epoch)).await
            }
            (Action::Promote { branch, epoch }, _) => {
                let promote = move || parts.pool.promote(uid.into(), branch.uuid, epoch);
                blocking(promote).await.map(drop)
            }
            (Action::GoOn { epoch }, _) => {
                let go_on = move || parts.pool.continue_live(uid.into(), epoch);
                blocking(go_on).await.map(drop)
            }
            (Action::Start, Duty::Assigned(assigned)) => self.start(view, assigned).await,
            (Action::Remove, _) => {
                self.parts.network.detach(uid).await?;
                blocking(move || act::remove(&parts, uid, &at)).await
            }
            (Action::ReportRun(state), Duty::Assigned(assigned)) => {
                self.report_run(assigned.chain.epoch, state).await
            }
            (Action::ReportRemoved, _) => self.report_removed().await,
            // `reconcile` pairs these actions with an assignment alone.
            (Action::Demote { .. } | Action::CloneImage { .. }, _)
            | (Action::Start | Action::ReportRun(_) | Action::Wait, _) => Ok(()),
        }
    }

    async fn start(&mut self, view: &NodeView, assigned: &AssignedView) -> Result<(), AgentError> {
        let uid = self.uid;
        let mountpoint = self.context.mountpoint(uid);
        let (parts, mine, at) = (self.parts.clone(), assigned.clone(), mountpoint.clone());
        let mounting = blocking(move || act::mount(&parts, &mine, &at));
        let link = AttachSpec {
            uid,
            mac: assigned.mac,
            link_group: (assigned.spec.protection == Protection::Protected)
                .then_some(self.context.config.link_group),
            up: false,
        };
        let (mounted, links) = tokio::join!(mounting, self.parts.network.attach(&link));
        mounted?;
        let LinkNames { container, .. } = links?;
        let request = act::start_request(assigned, view.overlay, &mountpoint, container.as_str());
        // Mounting may have outlasted the lease, and the assignment. The order matters: see
        // `strangers`.
        let underway = self.context.starts.begin(uid, assigned.chain.epoch);
        let pinned = assigned.spec.protection == Protection::Pinned;
        if !pinned && !self.context.may_start(uid, assigned.chain.epoch) {
            return Ok(());
        }
        let parts = self.parts.clone();
        blocking(move || {
            let _underway = underway;
            parts.runtime.start(&request)
        })
        .await?;
        self.started = Some((assigned.chain.epoch, Instant::now()));
        self.link_up(assigned).await
    }

    /// Raises the link and tells the network, unless the lease ended meanwhile: a fenced container
    /// must not answer.
    async fn link_up(&self, assigned: &AssignedView) -> Result<(), AgentError> {
        let pinned = assigned.spec.protection == Protection::Pinned;
        let open = self.context.view().is_some_and(|v| self.context.gate(&v) == Gate::Open);
        if !pinned && !open {
            return Ok(());
        }
        if self.parts.network.set_up(self.uid, true).await? == Outcome::Changed {
            self.parts.network.announce(self.uid, assigned.mac, assigned.address).await?;
        }
        Ok(())
    }

    /// All is as it should be; a container that was adopted may still lack its link.
    async fn settle(&mut self, duty: Duty<'_>, observed: &Observed, gate: Gate) {
        let Duty::Assigned(assigned) = duty else { return };
        if self.started.is_some_and(|(_, at)| at.elapsed() > MUST_LAST) {
            self.trouble = None;
        }
        if observed.running
            && gate == Gate::Open
            && let Err(error) = self.link_up(assigned).await
        {
            self.fail(duty, None, &error);
        }
    }

    async fn report_run(&mut self, epoch: Epoch, state: RunState) -> Result<(), AgentError> {
        let report = Report::Run { uid: self.uid, epoch, state: state.clone() };
        match report::send(&self.context, &report).await {
            Ok(()) => {}
            // The cluster has moved on: the view will say so.
            Err(error) if error.code() == Code::StaleEpoch => {}
            Err(error) => return Err(error),
        }
        self.reported = Some((epoch, state));
        Ok(())
    }

    async fn report_removed(&mut self) -> Result<(), AgentError> {
        let report = Report::CopyRemoved { uid: self.uid };
        report::send(&self.context, &report).await?;
        // The next view no longer names it; until then there is nothing to do.
        tokio::time::sleep(FIRST_BACKOFF).await;
        Ok(())
    }

    /// Tells the cluster of kept data, once in a life of this worker and after each demotion.
    async fn tell_diverged(&mut self, duty: Duty<'_>) {
        if self.diverged_told || matches!(duty, Duty::Remove(_) | Duty::None(_)) {
            return;
        }
        let (parts, uid) = (self.parts.clone(), self.uid);
        let found = match blocking(move || act::diverged(&*parts.pool, uid)).await {
            Ok(found) => found,
            Err(error) => {
                warn!(container = %uid, error = %error.line(), "kept data cannot be listed");
                return;
            }
        };
        for (snapshot, changed_bytes) in found {
            let report = Report::DivergedKept {
                uid,
                epoch: snapshot.id.epoch,
                snapshot: snapshot.id.uuid,
                changed_bytes,
            };
            if report::send(&self.context, &report).await.is_err() {
                return;
            }
        }
        self.diverged_told = true;
    }
}

/// What the view wants of this node about the container.
fn duty(view: &NodeView, uid: ContainerUid) -> Duty<'_> {
    if let Some(assigned) = view.assigned.iter().find(|a| a.uid == uid) {
        return Duty::Assigned(assigned);
    }
    if let Some(replica) = view.replicas.iter().find(|r| r.uid == uid) {
        return Duty::Replica(replica);
    }
    match view.deleting.contains(&uid) {
        true => Duty::Remove(uid),
        false => Duty::None(uid),
    }
}

/// Whether it was the container that could not start, and not the lease that ended meanwhile.
fn counts(error: &AgentError) -> bool {
    !matches!(error, AgentError::Runtime(RuntimeError::Frozen(_)))
}

/// The assignment that a failure belongs to.
fn about(duty: Duty<'_>) -> Option<(Epoch, DesiredState)> {
    match duty {
        Duty::Assigned(view) => Some((view.chain.epoch, view.desired)),
        Duty::Replica(_) | Duty::Remove(_) | Duty::None(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fence during a start failed the operation that waited for it.
    #[test]
    fn a_start_into_a_fence_is_no_failure_of_the_container() {
        let uid = ContainerUid(uuid::Uuid::from_u128(1));
        assert!(!counts(&AgentError::Runtime(RuntimeError::Frozen(uid))));
        assert!(counts(&AgentError::Ended));
    }
}

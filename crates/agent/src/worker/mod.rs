//! One container's worker: looks, asks `reconcile` for the next step, does it, looks again.
//!
//! What a step does is in [`execute`], what the cluster hears of it in [`tell`], what happens after
//! a failure in [`trouble`].

mod execute;
mod kept;
mod tell;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use holdfast_reconcile::{Action, Duty, Gate, Observed, next};
use holdfast_types::{ByteSize, ContainerUid, Epoch, NodeView, RunState};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::act;
use crate::agent::Parts;
use crate::context::Context;
use crate::error::{AgentError, blocking};
use trouble::{MUST_LAST, Trouble, about, counts};

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
    resized: Option<(Epoch, Vec<ByteSize>)>,
    trouble: Option<Trouble>,
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
            resized: None,
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
        let assigned = match duty {
            Duty::Assigned(view) => Some(view.clone()),
            _ => None,
        };
        let told = assigned.as_ref().map(|view| (view.chain.epoch, view.spec.sizes()));
        let (parts, uid) = (self.parts.clone(), self.uid);
        let places = self.context.places(uid);
        let look = move || act::observe(&parts, uid, &places, assigned.as_ref());
        let mut observed = blocking(look).await?;
        observed.resized_told = told.is_some() && self.resized == told;
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

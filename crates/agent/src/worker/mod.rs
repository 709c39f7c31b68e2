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
use holdfast_types::{ByteSize, ContainerUid, Epoch, ImageView, NodeView, Revision, RunState};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::act;
use crate::agent::Parts;
use crate::context::Context;
use crate::error::{AgentError, blocking};
use trouble::{Chores, MUST_LAST, Trouble, about, is_told};

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
    /// What was told of sizes, and the request that it answers.
    resized: Option<(Epoch, Vec<ByteSize>, Revision)>,
    trouble: Option<Trouble>,
    chores: Chores,
    /// The node's assignments as of the last look.
    assignments: Revision,
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
            chores: Chores::default(),
            assignments: Revision::default(),
        }
    }

    /// Works until the container is of no concern to this node.
    pub(crate) async fn run(mut self) {
        loop {
            if !self.work().await {
                return;
            }
            let retries = self.trouble.iter().map(|t| t.retry_at).chain(self.chores.retries());
            let far = Instant::now() + Duration::from_secs(3600);
            // A retry that is due already waits for a wake: it was looked at just now.
            let until = retries.filter(|at| *at > Instant::now()).min().unwrap_or(far);
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
            self.asked_again(view.assignment_revision);
            let observed = match self.observe(duty, &view.images).await {
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
            let action = step.action.clone();
            match self.execute(&view, duty, step.action).await {
                Ok(()) => self.chores.done(&action),
                Err(error) if action.is_chore() => {
                    warn!(container = %self.uid, error = %error.line(), "a chore waits");
                    self.chores.failed(action, Instant::now());
                }
                Err(error) => {
                    let told = is_told(&action, &error);
                    self.fail(duty, told.then(|| error.line()), &error);
                    // A failed start is told to the cluster; the rest is tried again later.
                    if !told {
                        return true;
                    }
                }
            }
        }
        warn!(container = %self.uid, "too many steps; looking again later");
        true
    }

    /// Somebody may have asked for it again, and waits for an answer to that.
    fn asked_again(&mut self, assignments: Revision) {
        if std::mem::replace(&mut self.assignments, assignments) != assignments {
            self.reported.take_if(|(_, state)| matches!(state, RunState::Failed { .. }));
        }
    }

    async fn observe(
        &mut self,
        duty: Duty<'_>,
        images: &[ImageView],
    ) -> Result<Observed, AgentError> {
        let assigned = match duty {
            Duty::Assigned(view) => Some(view.clone()),
            _ => None,
        };
        let told = assigned.as_ref().map(tell::resize_told);
        let (parts, uid, images) = (self.parts.clone(), self.uid, images.to_vec());
        let places = self.context.places(uid);
        let look = move || act::observe(&parts, uid, &places, assigned.as_ref(), &images);
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
        observed.resting = self.chores.resting(Instant::now());
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

//! Doing one step.

use std::time::Duration;

use holdfast_network::{AttachSpec, LinkNames, Outcome};
use holdfast_reconcile::{Action, Duty, Gate};
use holdfast_types::{AssignedView, NodeView, Protection, ReplicaView, Report};
use tokio::time::Instant;

use super::Worker;
use crate::error::{AgentError, blocking};
use crate::grow;
use crate::{act, mounts, report};

/// How long init may take to end by itself.
const STOP_GRACE: Duration = Duration::from_secs(10);

impl Worker {
    pub(super) async fn execute(
        &mut self,
        view: &NodeView,
        duty: Duty<'_>,
        action: Action,
    ) -> Result<(), AgentError> {
        let (parts, uid) = (self.parts.clone(), self.uid);
        let at = self.context.places(uid);
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
                blocking(move || act::deactivate(&parts, uid, &at)).await?;
                if matches!(duty, Duty::Assigned(view) if view.restore.is_some()) {
                    // What is kept before a restore is taken now.
                    self.context.shipments.look(uid);
                }
                Ok(())
            }
            (Action::Demote { to }, Duty::Assigned(AssignedView { chain, kept, .. }))
            | (Action::Demote { to }, Duty::Replica(ReplicaView { chain, kept, .. })) => {
                self.diverged_told = false;
                let (chain, kept) = (chain.clone(), kept.clone());
                blocking(move || act::demote(&parts, uid, to, &chain, &kept)).await
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
            (Action::Resize, Duty::Assigned(view)) => self.resize(view).await,
            (Action::Remove, _) => {
                self.parts.network.detach(uid).await?;
                blocking(move || act::remove(&parts, uid, &at)).await
            }
            (Action::ReportRun(state), Duty::Assigned(assigned)) => {
                self.report_run(assigned.chain.epoch, state).await
            }
            (Action::ReportRemoved, _) => self.report_removed().await,
            (Action::Keep { snapshot, name }, _) => self.keep(snapshot, name).await,
            (Action::LetGo { snapshot }, duty) => self.let_go(duty, snapshot).await,
            (Action::ReportKept { held }, _) => {
                report::send(&self.context, &Report::KeptHeld { uid, held }).await
            }
            (Action::Restore { from, operation }, Duty::Assigned(view)) => {
                self.restore(view.chain.epoch, from, operation).await
            }
            (Action::ReportRestored { operation }, Duty::Assigned(view)) => {
                self.report_restored(view.chain.epoch, operation, None).await
            }
            // `reconcile` pairs these actions with an assignment alone.
            (Action::Demote { .. } | Action::CloneImage { .. }, _)
            | (Action::Start | Action::Resize | Action::ReportRun(_) | Action::Wait, _)
            | (Action::Restore { .. } | Action::ReportRestored { .. }, _) => Ok(()),
        }
    }

    pub(super) async fn start(
        &mut self,
        view: &NodeView,
        assigned: &AssignedView,
    ) -> Result<(), AgentError> {
        let uid = self.uid;
        let places = self.context.places(uid);
        let (parts, mine, at) = (self.parts.clone(), assigned.clone(), places.clone());
        let mounting = blocking(move || mounts::mount(&parts, &mine, &at));
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
        let request = act::start_request(assigned, view.overlay, &places, container.as_str());
        // Mounting may have outlasted the lease, and the assignment. The order matters: see
        // `strangers`.
        let epoch = assigned.chain.epoch;
        let pinned = assigned.spec.protection == Protection::Pinned;
        let may_start = || pinned || self.context.may_start(uid, epoch);
        let Some(underway) = self.context.starts.begin(uid, epoch, may_start) else {
            return Ok(());
        };
        let parts = self.parts.clone();
        blocking(move || {
            let _underway = underway;
            parts.runtime.start(&request)
        })
        .await?;
        self.started = Some((assigned.chain.epoch, Instant::now()));
        self.link_up(assigned).await
    }

    async fn resize(&mut self, assigned: &AssignedView) -> Result<(), AgentError> {
        let (parts, mine, uid) = (self.parts.clone(), assigned.clone(), self.uid);
        let at = self.context.places(uid);
        let grown = blocking(move || grow::grow(&*parts.pool, &mine, &at)).await;
        // It may have been written to while nothing was mounted.
        self.context.shipments.rests(uid);
        let (uid, epoch) = (self.uid, assigned.chain.epoch);
        let report = match grown {
            Ok(sizes) => Report::Resized { uid, epoch, sizes },
            Err(error) if error.code().retryable() => return Err(error),
            Err(error) => {
                Report::ResizeFailed { uid, epoch, code: error.code(), reason: error.line() }
            }
        };
        match assigned.resizing {
            true => self.report_resized(assigned, report).await,
            false => Ok(()),
        }
    }

    /// Raises the link and tells the network, unless the lease ended meanwhile: a fenced container
    /// must not answer.
    pub(super) async fn link_up(&self, assigned: &AssignedView) -> Result<(), AgentError> {
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
}

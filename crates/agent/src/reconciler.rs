//! Who works on what: one worker per container, one replicator per primary copy, woken by whatever
//! may concern them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_types::ContainerUid;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::agent::Parts;
use crate::context::Context;
use crate::error::blocking;
use crate::replicate;
use crate::worker::Worker;

/// Everyone is woken at least this often: an event may have been missed.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Works for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let Some(parts) = context.parts() else { return };
    thaw_leftovers(&context, &parts).await;
    let (events_in, mut events) = mpsc::unbounded_channel();
    let watched = parts.runtime.watch(Box::new(move |event| {
        // The receiver is gone only when the agent is.
        let _ = events_in.send(event);
    }));
    let _watching =
        watched.inspect_err(|error| warn!(%error, "containers' ends are noticed late")).ok();
    let mut views = context.watch_view();
    let mut lease = context.watch_lease();
    let arrivals = context.clone();
    let mut crew = Crew { context, parts, workers: BTreeMap::new(), replicators: BTreeMap::new() };
    loop {
        crew.muster().await;
        tokio::select! {
            _ = views.changed() => {}
            _ = lease.changed() => {}
            () = arrivals.kept_arrived.notified() => {}
            Some(_) = events.recv() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Undoes a freeze that a crash left behind (DESIGN section 5 rule 3).
async fn thaw_leftovers(context: &Context, parts: &Arc<Parts>) {
    let (freezer, parts) = (context.freezer(), parts.clone());
    let volumes = parts.pool.volumes().into_iter().map(|v| ContainerUid(v.state.uid.0));
    let mounts: Vec<_> = volumes.flat_map(|uid| context.places(uid).all().to_vec()).collect();
    let thaw = move || {
        for mountpoint in holdfast_storage::fsys::mounted(&mounts)? {
            let outcome = freezer.thaw(mountpoint)?;
            info!(mountpoint = %mountpoint.display(), ?outcome, "adopted");
        }
        Ok::<_, holdfast_storage::Error>(())
    };
    if let Err(error) = blocking(thaw).await {
        warn!(error = %error.line(), "a filesystem may still be frozen");
    }
}

struct Crew {
    context: Arc<Context>,
    parts: Arc<Parts>,
    workers: BTreeMap<ContainerUid, (Arc<Notify>, JoinHandle<()>)>,
    replicators: BTreeMap<ContainerUid, JoinHandle<()>>,
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.workers.values().for_each(|(_, task)| task.abort());
        self.replicators.values().for_each(JoinHandle::abort);
    }
}

impl Crew {
    async fn muster(&mut self) {
        let Some(view) = self.context.view() else { return };
        let images: BTreeSet<_> = view.images.iter().map(|i| i.uid.0).collect();
        let assigned: Vec<_> = view.assigned.iter().map(|a| a.uid).collect();
        let replicas = view.replicas.iter().map(|r| r.uid);
        let told: BTreeSet<_> =
            assigned.iter().copied().chain(replicas).chain(view.deleting.iter().copied()).collect();
        let parts = self.parts.clone();
        let here = blocking(move || {
            let stored = parts.pool.volumes().into_iter().map(|v| ContainerUid(v.state.uid.0));
            let running = parts.runtime.list()?.into_keys();
            Ok::<BTreeSet<_>, holdfast_runtime::RuntimeError>(stored.chain(running).collect())
        });
        let here = here.await.unwrap_or_else(|error| {
            warn!(error = %error.line(), "what runs here cannot be listed");
            BTreeSet::new()
        });
        for uid in told.union(&here).filter(|uid| !images.contains(&uid.0)) {
            self.wake(*uid);
        }
        for uid in assigned {
            if self.replicators.get(&uid).is_none_or(JoinHandle::is_finished) {
                let task = tokio::spawn(replicate::run(self.context.clone(), uid));
                self.replicators.insert(uid, task);
            }
        }
        self.workers.retain(|_, (_, task)| !task.is_finished());
        self.replicators.retain(|_, task| !task.is_finished());
    }

    fn wake(&mut self, uid: ContainerUid) {
        match self.workers.get(&uid) {
            Some((wake, task)) if !task.is_finished() => wake.notify_one(),
            _ => {
                let wake = Arc::new(Notify::new());
                let worker =
                    Worker::new(self.context.clone(), self.parts.clone(), uid, wake.clone());
                self.workers.insert(uid, (wake, tokio::spawn(worker.run())));
            }
        }
    }
}

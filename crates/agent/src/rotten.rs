//! What of this node's copies has rotted, told of until the cluster knows it.
//!
//! The pool marks what has rotted, over restarts too; here is what of it was told of. A mark goes
//! when the copy is received anew, which may be before anybody hears: what was found since the start
//! is told of in any case. After a restart a mark that is still there is told of once more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::{Pool, Rot, VolumeState};
use holdfast_types::{ContainerUid, SnapshotUuid, VolumeUid};
use tokio::sync::Mutex;
use tracing::info;

use crate::agent::Parts;
use crate::context::Context;
use crate::error::{AgentError, blocking};
use crate::replicate;

const TELL_EVERY: Duration = Duration::from_secs(10);

/// Tells for ever.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        if let Some(parts) = context.parts() {
            context.rotten.tell(&context, &parts).await;
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}

/// What was told of, and what is to be.
#[derive(Debug, Default)]
pub(crate) struct Rotten {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Where it was found, of what is not told of yet.
    found: BTreeMap<VolumeUid, Rot>,
    told: BTreeSet<SnapshotUuid>,
}

/// The snapshots of each volume that are marked, the newest last.
type Marks = BTreeMap<VolumeUid, Vec<SnapshotUuid>>;

impl Rotten {
    /// A look has found it, and the pool has marked it.
    pub(crate) async fn found(&self, uid: VolumeUid, rot: Rot) {
        let Rot { snapshot, offset, unreadable } = rot;
        info!(volume = %uid, %snapshot, offset, unreadable, "a copy has rotted");
        let mut inner = self.inner.lock().await;
        if !inner.told.contains(&snapshot) {
            inner.found.insert(uid, rot);
        }
    }

    /// Tells what is not told of yet, as far as somebody listens: the rest is told next time.
    pub(crate) async fn tell(&self, context: &Context, parts: &Arc<Parts>) {
        let mut inner = self.inner.lock().await;
        let pool = parts.pool.clone();
        let Ok(marks) = blocking(move || Ok::<_, AgentError>(marks(&*pool))).await else { return };
        for (uid, message) in inner.due(&marks) {
            let about = ContainerUid(uid.0);
            if !replicate::tell(context, about, "copy-rotten", message).await {
                return;
            }
            inner.told(uid, &marks);
        }
    }
}

impl Inner {
    /// Of which volumes to tell, and what.
    fn due(&mut self, marks: &Marks) -> Vec<(VolumeUid, String)> {
        // What is marked no longer is here no longer, or sound again, and may rot once more.
        self.told.retain(|told| marks.values().flatten().any(|marked| marked == told));
        let found = self.found.iter().map(|(uid, rot)| (*uid, at_a_place(*uid, rot)));
        let untold = |uuid: &&SnapshotUuid| !self.told.contains(*uuid);
        let marked = marks.iter().filter(|(uid, _)| !self.found.contains_key(uid));
        let marked = marked.filter_map(|(uid, uuids)| {
            let newest = uuids.iter().rfind(untold)?;
            Some((*uid, somewhere(*uid, *newest)))
        });
        found.chain(marked).collect()
    }

    fn told(&mut self, uid: VolumeUid, marks: &Marks) {
        self.found.remove(&uid);
        self.told.extend(marks.get(&uid).into_iter().flatten());
    }
}

fn marks(pool: &dyn Pool) -> Marks {
    let rotten = |state: &VolumeState| {
        let mut rotten: Vec<_> = state.snapshots.iter().map(|s| s.id).collect();
        rotten.retain(|id| state.is_rotten(id.uuid));
        rotten.sort_by_key(|id| id.order());
        rotten.into_iter().map(|id| id.uuid).collect::<Vec<_>>()
    };
    let volumes = pool.volumes().into_iter().map(|v| (v.state.uid, rotten(&v.state)));
    volumes.filter(|(_, rotten)| !rotten.is_empty()).collect()
}

fn at_a_place(uid: VolumeUid, rot: &Rot) -> String {
    let Rot { snapshot, offset, unreadable } = rot;
    let what = if *unreadable { "cannot be read" } else { "is not what was written" };
    format!(
        "the copy of {uid} here has rotted: byte {offset} of snapshot {snapshot} {what}; it is not \
         used any more and is received anew"
    )
}

/// The place is not in the mark.
fn somewhere(uid: VolumeUid, newest: SnapshotUuid) -> String {
    format!(
        "the copy of {uid} here has rotted: snapshot {newest} is not what was written, or cannot be \
         read; it is not used any more and is received anew"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_leader::FakeLeader;
    use crate::pair::{Node, RECEIVER};
    use crate::replicate::TransferLimits;
    use crate::scrub;
    use crate::testing::{UID, snapshotted};

    /// A replica that has rotted, on a node that no leader admits.
    fn spoiled() -> (Node, Arc<Parts>) {
        let pool = snapshotted();
        let newest = pool.volume(UID.into()).unwrap().state.newest().map(|s| s.id.uuid);
        pool.demote(UID.into(), newest, None).unwrap();
        pool.spoil(UID.into()).unwrap();
        let node = Node::on(pool, RECEIVER, TransferLimits::default());
        let parts = node.context.parts().unwrap();
        (node, parts)
    }

    /// A command that found rot while nobody led ended in an error, and nobody heard of it ever.
    #[tokio::test]
    async fn rot_that_is_found_while_nobody_leads_is_told_of_later() {
        let (node, parts) = spoiled();
        let mut summary = scrub::ScrubSummary::default();
        scrub::all(&node.context, |so_far| summary = so_far).await.unwrap();
        assert_eq!((summary.copies, summary.rotten), (1, 1));
        // It is received anew, and no mark says what was.
        node.pool.remove_volume(UID.into()).unwrap();
        let leader = FakeLeader::of(&node.context).await;
        for _ in 0..2 {
            node.context.rotten.tell(&node.context, &parts).await;
        }
        assert_eq!(leader.kinds(), ["copy-rotten"]);
        assert!(leader.notices()[0].1.contains("byte 0 of snapshot"), "{:?}", leader.notices());
    }

    /// What was found and not told of was in memory alone.
    #[tokio::test]
    async fn rot_that_nobody_heard_of_is_told_of_after_a_restart() {
        let (node, parts) = spoiled();
        scrub::all(&node.context, |_| {}).await.unwrap();
        let leader = FakeLeader::of(&node.context).await;
        let after = Rotten::default();
        for _ in 0..2 {
            after.tell(&node.context, &parts).await;
        }
        assert_eq!(leader.kinds(), ["copy-rotten"]);
    }

    /// A snapshot that came anew under its name may rot once more.
    #[test]
    fn what_rots_again_is_told_of_again() {
        let mut inner = Inner::default();
        let uid = VolumeUid::from(UID);
        let marked = Marks::from([(uid, vec![SnapshotUuid(uuid::Uuid::from_u128(4))])]);
        assert_eq!(inner.due(&marked).len(), 1);
        inner.told(uid, &marked);
        assert_eq!(inner.due(&marked), []);
        assert_eq!(inner.due(&Marks::new()), []);
        assert_eq!(inner.due(&marked).len(), 1);
    }
}

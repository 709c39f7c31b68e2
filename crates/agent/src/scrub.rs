//! Reads this node's replicas over and over, slowly, and compares them with what they were.
//!
//! One copy after the other, each to its end; then all rest. A copy that has rotted is marked so by
//! the pool, which keeps it from being chosen, and told of here; its primary ships it anew, because
//! this node no longer has what it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::{Error, Pool, Rot, Scrubbed};
use holdfast_types::{ByteSize, ContainerUid, Report, VolumeUid};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::agent::Parts;
use crate::context::Context;
use crate::error::{AgentError, blocking};
use crate::report;

/// Blocks of 4 MiB in one look.
const BLOCKS: u32 = 4;

/// A node that has just started has better things to do.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// How long another look at the same copy is waited for.
const BUSY: Duration = Duration::from_secs(30);

/// How long to wait before looking for something to look at.
const IDLE: Duration = Duration::from_secs(10);

/// How thoroughly copies are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubPace {
    /// How much is read in a second at most; zero is never.
    pub rate: ByteSize,
    /// How long a copy is left alone after it was read to its end.
    pub every: Duration,
}

/// What a look at all copies found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubSummary {
    /// Copies that were read.
    pub copies: u32,
    /// All copies here.
    pub total: u32,
    /// Bytes that were read.
    pub read: ByteSize,
    /// Bytes of it that had a hash to be compared with.
    pub compared: ByteSize,
    /// Copies that have rotted.
    pub rotten: u32,
}

/// Looks for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let pace = context.config.scrub;
    if pace.rate.bytes() == 0 {
        return;
    }
    tokio::time::sleep(FIRST_LOOK).await;
    // When each was last read to its end, and what was found and is not told yet.
    let mut seen: BTreeMap<VolumeUid, Instant> = BTreeMap::new();
    let mut untold = Vec::new();
    loop {
        untold = tell_all(&context, untold).await;
        let Some(parts) = context.parts() else {
            tokio::time::sleep(IDLE).await;
            continue;
        };
        let volumes = copies(&parts).await;
        seen.retain(|uid, _| volumes.contains(uid));
        let due = |uid: &&VolumeUid| seen.get(*uid).is_none_or(|at| at.elapsed() >= pace.every);
        let Some(uid) = volumes.iter().find(due).copied() else {
            tokio::time::sleep(IDLE).await;
            continue;
        };
        let pool = parts.pool.clone();
        match blocking(move || Ok::<_, AgentError>(pool.scrub(uid, BLOCKS)?)).await {
            Ok(look) => {
                untold.extend(look.rot.map(|rot| (uid, rot)));
                if look.whole || look.read == 0 || look.rot.is_some() {
                    seen.insert(uid, Instant::now());
                }
                tokio::time::sleep(rest(look.read, pace.rate)).await;
            }
            Err(error) => {
                warn!(volume = %uid, error = %error.line(), "a copy could not be looked at");
                seen.insert(uid, Instant::now());
            }
        }
    }
}

/// Looks at every copy once, to its end, as fast as the disk goes; says after each how far it is.
pub(crate) async fn all(
    context: &Arc<Context>,
    mut said: impl FnMut(ScrubSummary),
) -> Result<(), AgentError> {
    let parts = context.parts().ok_or(AgentError::Starting)?;
    let volumes = copies(&parts).await;
    let total = u32::try_from(volumes.len()).unwrap_or(u32::MAX);
    let mut summary = ScrubSummary { total, ..ScrubSummary::default() };
    said(summary);
    for uid in volumes {
        let pool = parts.pool.clone();
        let looked = blocking(move || whole(&*pool, uid)).await?;
        summary.copies += 1;
        summary.read.0 += looked.read.0;
        summary.compared.0 += looked.compared.0;
        if let Some(rot) = looked.rot {
            summary.rotten += 1;
            tell(context, uid, rot).await?;
        }
        said(summary);
    }
    Ok(())
}

struct Looked {
    read: ByteSize,
    compared: ByteSize,
    rot: Option<Rot>,
}

/// From wherever it is to the end, and on to where it was: all members of a set.
fn whole(pool: &dyn Pool, uid: VolumeUid) -> Result<Looked, AgentError> {
    let size = ByteSize(pool.volume(uid)?.state.shape().bytes());
    let mut looked = Looked { read: ByteSize(0), compared: ByteSize(0), rot: None };
    while looked.read < size && looked.rot.is_none() {
        let look = look(pool, uid)?;
        looked.read.0 += look.read;
        looked.compared.0 += look.compared;
        looked.rot = look.rot;
        if look.read == 0 {
            break;
        }
    }
    Ok(looked)
}

/// The look that goes on in the background may be at the same copy.
fn look(pool: &dyn Pool, uid: VolumeUid) -> Result<Scrubbed, AgentError> {
    let deadline = std::time::Instant::now() + BUSY;
    loop {
        match pool.scrub(uid, BLOCKS) {
            Err(Error::InUse(_)) if std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            looked => return Ok(looked?),
        }
    }
}

/// What there is to look at: not what is being written here.
async fn copies(parts: &Arc<Parts>) -> Vec<VolumeUid> {
    let parts = parts.clone();
    let list = blocking(move || {
        let volumes = parts.pool.volumes().into_iter();
        let replicas = volumes.filter(|v| v.state.live.is_none() && v.state.newest().is_some());
        Ok::<_, AgentError>(replicas.map(|v| v.state.uid).collect())
    });
    list.await.unwrap_or_default()
}

/// How long to rest after having read so much.
fn rest(read: u64, rate: ByteSize) -> Duration {
    Duration::from_millis(read.saturating_mul(1000) / rate.bytes().max(1))
}

/// Returns what could not be said: it is said next time.
async fn tell_all(context: &Context, found: Vec<(VolumeUid, Rot)>) -> Vec<(VolumeUid, Rot)> {
    let mut left = Vec::new();
    for (uid, rot) in found {
        if tell(context, uid, rot).await.is_err() {
            left.push((uid, rot));
        }
    }
    left
}

async fn tell(context: &Context, uid: VolumeUid, rot: Rot) -> Result<(), AgentError> {
    let Rot { snapshot, offset, unreadable } = rot;
    let what = if unreadable { "cannot be read" } else { "is not what was written" };
    let message = format!(
        "the copy of {uid} here has rotted: byte {offset} of snapshot {snapshot} {what}; it is not \
         used any more and is received anew"
    );
    info!(volume = %uid, %snapshot, offset, unreadable, "a copy has rotted");
    let report =
        Report::Notice { kind: "copy-rotten".to_owned(), uid: Some(ContainerUid(uid.0)), message };
    report::send(context, &report).await
}

#[cfg(test)]
mod tests {
    use holdfast_storage::fake::FakePool;
    use holdfast_storage::{Member, PoolIdentity, Shape};
    use holdfast_types::{ClusterId, Epoch};
    use uuid::Uuid;

    use super::*;

    /// The root's size alone was taken for that of the set.
    #[test]
    fn data_volumes_are_looked_at_too() {
        let identity = PoolIdentity { cluster: ClusterId(Uuid::nil()), pool: Uuid::nil() };
        let pool = FakePool::new(identity, ByteSize::gib(1));
        let uid = VolumeUid::generate();
        let data = Member::new("data".parse().unwrap(), ByteSize::mib(64));
        let shape = Shape { root: ByteSize::mib(8), data: vec![data] };
        pool.create_set(uid, &shape, Epoch(1)).unwrap();
        assert_eq!(whole(&pool, uid).unwrap().read, ByteSize::mib(72));
    }

    #[test]
    fn the_rate_is_kept() {
        assert_eq!(rest(16 << 20, ByteSize::mib(8)), Duration::from_secs(2));
        assert_eq!(rest(0, ByteSize::mib(8)), Duration::ZERO);
    }
}

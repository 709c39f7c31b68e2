//! `Restore`: this machine makes a new cluster of a backup.
//!
//! ```text
//! parts ─▶ <data_dir>/restore.upload ─hash right─▶ state ─▶ log ─▶ leads ─▶ identity written ─▶ pool
//! ```
//! What it is afterwards is written in `holdfast_core::RestoreCluster`. Until the pool is the
//! new cluster's, the machine becomes again what it was if anything fails; from then on it never does: no
//! other attempt could have that pool.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use holdfast_core::{Entry, NewNode, NodeRole, RestoredFrom, State};
use holdfast_proto::backup::{Backup, BackupCheck};
use holdfast_proto::v1;
use holdfast_raft::{RaftNode, Restoring};
use holdfast_trust::Authority;
use holdfast_types::{ClusterId, Code, FeatureLevel, RequestId, TimestampMs};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;
use tracing::{info, warn};

use crate::certify;
use crate::clock;
use crate::error::DaemonError;
use crate::fault::Fault;
use crate::identity::Identity;
use crate::machine::Duties;
use crate::startup::Shell;

const QUEUE: usize = 4;

/// A client that sends nothing for so long has given up.
const STALL: Duration = Duration::from_secs(30);

/// A node alone elects itself within a few seconds.
const LEAD_PATIENCE: Duration = Duration::from_secs(20);

/// A backup that has come, and whose hash is right.
pub(crate) struct Upload {
    pub(crate) backup: Backup,
    state: State,
}

/// Takes in a backup. It is on disk while it comes, and nothing is left of it there.
pub(crate) async fn receive(
    data_dir: &Path,
    mut parts: impl Stream<Item = Result<v1::RestorePart, Status>> + Unpin,
) -> Result<Upload, Fault> {
    let path = data_dir.join("restore.upload");
    let (sender, queue) = mpsc::channel(QUEUE);
    let reading = tokio::task::spawn_blocking(move || read(&path, queue));
    loop {
        let part = timeout(STALL, parts.next()).await;
        let stalled = || Fault::new(Code::Timeout, "the backup stopped coming");
        let Some(part) = part.map_err(|_| stalled())? else { break };
        // A reader that is gone says why.
        if sender.send(part?.data).await.is_err() {
            break;
        }
    }
    drop(sender);
    let broken = |e| Fault::new(Code::Internal, format!("the backup was not read: {e}"));
    reading.await.map_err(broken)?
}

fn read(path: &Path, mut queue: mpsc::Receiver<Bytes>) -> Result<Upload, Fault> {
    let _gone = Gone(path);
    let disk =
        |source: io::Error| Fault::from(DaemonError::Disk { path: PathBuf::from(path), source });
    let open =
        File::options().create(true).truncate(true).read(true).write(true).mode(0o600).open(path);
    let mut file = open.map_err(disk)?;
    let wrong = |e: holdfast_proto::backup::BackupError| Fault::new(e.code(), e.to_string());
    let mut check = BackupCheck::default();
    while let Some(data) = queue.blocking_recv() {
        check.push(&data).map_err(wrong)?;
        file.write_all(&data).map_err(disk)?;
    }
    let backup = check.finish().map_err(wrong)?;
    let level = FeatureLevel(backup.header.feature_level);
    if level > FeatureLevel::OURS {
        let message = format!(
            "the backup needs feature level {level}, and this version understands {}: use holdfast {}",
            FeatureLevel::OURS,
            backup.header.version
        );
        return Err(Fault::new(Code::VersionTooOld, message));
    }
    file.seek(SeekFrom::Start(backup.state.start)).map_err(disk)?;
    let state = BufReader::new(file).take(backup.state.end - backup.state.start);
    let state = rmp_serde::from_read(state)
        .map_err(|e| Fault::new(Code::VersionTooOld, format!("the state in the backup: {e}")))?;
    Ok(Upload { backup, state })
}

/// The file goes, whatever came of it.
struct Gone<'a>(&'a Path);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(self.0) {
            warn!(path = %self.0.display(), %error, "a backup that came stays behind");
        }
    }
}

/// Makes a new cluster of it, with this node as its first voter.
pub(crate) async fn restore(shell: &Arc<Shell>, upload: Upload) -> Result<Identity, Fault> {
    if shell.only_votes() {
        return Err(crate::join::no_pool_driver());
    }
    let config = shell.config();
    let header = &upload.backup.header;
    let from: ClusterId = header.cluster_id.parse()?;
    let asked = Restoring {
        cluster: ClusterId::generate(),
        founder: NewNode {
            name: config.name.clone(),
            address: config.advertise.clone(),
            underlay: config.network.underlay,
            role: NodeRole::Voter,
            asked: None,
        },
        from: RestoredFrom {
            cluster: from,
            index: header.index,
            taken: TimestampMs(header.taken_ms),
        },
        term: header.term,
        at: clock::wall(),
    };
    let who = holdfast_raft::restore(&shell.data().raft(), asked, upload.state).await?;
    let identity = Identity {
        cluster: who.cluster,
        node: who.node,
        name: config.name.clone(),
        role: NodeRole::Voter,
        address: config.advertise.clone(),
        peers: Vec::new(),
    };
    let (authority, bundle) = certify::found(&identity)?;
    shell.keyring().enforce(bundle)?;
    shell.inherit_pool(from);
    let (duties, hint) = shell.begin(&identity).inspect_err(|_| shell.forget_keys())?;
    let raft = match make(shell, &identity, &authority).await {
        Ok(raft) => raft,
        Err(fault) => {
            give_up(shell, &*duties).await;
            return Err(fault);
        }
    };
    let begun = duties.run().await;
    if let Err(error) = begun {
        let mut fault = Fault::from(error);
        if !shell.has_inherited_pool() {
            // One that takes too long over it must not leave a cluster behind.
            if let Err(error) = raft.shutdown().await {
                warn!(%error, "consensus of a cluster that was not made");
            }
            give_up(shell, &*duties).await;
            return Err(fault);
        }
        shell.enter(identity, Some(raft), duties, hint);
        fault.message = format!(
            "the cluster is made and has this node's pool, but the node cannot begin yet: {}; mend that, \
             and start holdfastd again",
            fault.message
        );
        return Err(fault);
    }
    info!(cluster = %identity.cluster, of = %from, index = header.index, "cluster restored");
    shell.enter(identity.clone(), Some(raft), duties, hint);
    Ok(identity)
}

async fn give_up(shell: &Shell, duties: &dyn Duties) {
    duties.stop().await;
    shell.discard();
}

/// The identity comes before the pool: a start after a crash goes on with what the pool may be of by then.
async fn make(
    shell: &Shell,
    identity: &Identity,
    authority: &Authority,
) -> Result<RaftNode, Fault> {
    let raft = shell.open_raft(identity).await?;
    let begun = async {
        let mut leadership = raft.leadership();
        let ready = leadership.wait_for(|l| l.reign.is_some_and(|reign| reign.ready));
        match timeout(LEAD_PATIENCE, ready).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(Fault::no_quorum()),
        }
        let (request, at, command) =
            (RequestId::generate(), clock::wall(), certify::first(authority));
        raft.propose(Entry { request, at, command }).await??;
        shell.keyring().keep()?;
        Ok::<(), Fault>(identity.write(shell.data().path())?)
    };
    match begun.await {
        Ok(()) => Ok(raft),
        Err(fault) => {
            raft.shutdown().await?;
            Err(fault)
        }
    }
}

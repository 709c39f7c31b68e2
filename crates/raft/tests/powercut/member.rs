//! A node in a process of its own: takes part, writes as long as it leads, and tells its state.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::{Command, Entry, RecordFloor, RemoveImage};
use holdfast_proto::Dialer;
use holdfast_raft::{Identity, RaftConfig, RaftNode};
use holdfast_types::{
    Code, ContainerUid, Epoch, NodeId, RequestId, Seq, SnapshotId, SnapshotUuid, TimestampMs,
    VolumeUid,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::notes::Notes;
use crate::witness::Witness;

const CLUSTER: &str = "00000000-0000-7000-8000-000000000004";
/// The process ends with it when its disk has failed.
pub(crate) const DISK_FAILED: i32 = 7;
const WRITERS: usize = 8;
/// Small, so that snapshots, purges and truncations happen all the time.
const SNAPSHOT_EVERY: u64 = 60;
const KEEP_ENTRIES: u64 = 20;
const HASH_EVERY: u64 = 20;
/// Every so manieth write is a large one: sled's segments fill up and are used again.
const LARGE_EVERY: usize = 4;
const TELL_EVERY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

/// What the parent gives it.
pub(crate) struct Member {
    pub(crate) node: u64,
    /// Where its disk is mounted.
    pub(crate) mount: PathBuf,
    pub(crate) notes: PathBuf,
    pub(crate) status: PathBuf,
}

/// Where a node of the cluster answers.
pub(crate) fn address(node: u64) -> String {
    format!("127.0.0.1:{}", 7000 + node)
}

/// Runs until its standard input ends, or its disk fails. A word there ends the writing.
pub(crate) async fn live(member: Member) {
    let notes = Arc::new(Notes::open(&member.notes));
    let node = start(&member, &notes).await;
    let listener = TcpListener::bind(address(member.node)).await.unwrap();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serve = Server::builder().add_service(Witness::before(&node, notes.clone()));
    tokio::spawn(serve.serve_with_incoming(incoming));
    if member.node == 1 {
        // Refused on all but the first start.
        drop(node.initialize(&address(1)).await);
    }
    let (quiet, is_quiet) = watch::channel(false);
    for writer in 0..WRITERS {
        tokio::spawn(write(node.clone(), notes.clone(), is_quiet.clone(), writer));
    }
    let (tell, lead) = (tell(node.clone(), &member, notes.clone(), is_quiet), lead(&node, &notes));
    let obey = obey(words(), quiet);
    tokio::select! {
        // A disk that fails also ends everything else.
        biased;
        error = node.failed() => {
            println!("node {}: {error}", member.node);
            assert_eq!(error.code(), Code::DiskIo, "node {}: {error}", member.node);
            std::process::exit(DISK_FAILED);
        }
        () = tell => {}
        () = lead => {}
        () = obey => node.shutdown().await.unwrap(),
    }
}

async fn start(member: &Member, notes: &Notes) -> RaftNode {
    let dir = member.mount.join("raft");
    let newest = notes.read().newest_term(member.node);
    let known = RaftNode::identity(&dir).unwrap().is_some();
    assert!(known || newest == 0, "node {} has voted, and its directory is gone", member.node);
    let mut config = RaftConfig::new(
        dir,
        Identity { cluster: CLUSTER.parse().unwrap(), node: NodeId(member.node) },
        Dialer::plaintext(),
    );
    config.snapshot_every = SNAPSHOT_EVERY;
    config.keep_entries = KEEP_ENTRIES;
    config.hash_every = HASH_EVERY;
    let started = RaftNode::start(config).await;
    let node = started.unwrap_or_else(|e| panic!("node {} does not start: {e}", member.node));
    let begun = async {
        while newest > 0 && node.metrics().term == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        node.metrics().term
    };
    let term = timeout(PATIENCE, begun).await.unwrap();
    assert!(term >= newest, "node {} was in term {newest}, and is in {term}", member.node);
    node
}

/// Each time that this node leads: nothing acknowledged is missing, and all three are voters.
async fn lead(node: &RaftNode, notes: &Notes) {
    let mut leadership = node.leadership();
    let mut last = 0;
    while let Ok(now) =
        leadership.wait_for(|l| l.reign.is_some_and(|r| r.ready && r.term > last)).await
    {
        let term = now.term;
        drop(now);
        last = term;
        let id = node.id().0;
        tokio::task::block_in_place(|| notes.write(format!("leads {id} {term}")));
        println!("at leading {term}.");
        let told = notes.read();
        if node.read_index().await.is_err() {
            continue;
        }
        let state = node.state();
        let lost: Vec<_> =
            told.remembered().iter().filter(|r| !state.answered.contains_key(r)).collect();
        assert!(
            lost.is_empty(),
            "node {id} leads term {term} without {lost:?}, of {}",
            told.acked()
        );
        println!("node {id} leads term {term} with all of {} writes", told.acked());
        // Refused while another leader's change of the members is not done: that one goes on.
        drop(form(node).await);
    }
}

async fn form(node: &RaftNode) -> Result<(), holdfast_raft::RaftError> {
    let all: std::collections::BTreeSet<_> = (1..=3).map(NodeId).collect();
    let metrics = node.metrics();
    if metrics.voters == all && !metrics.joint {
        return Ok(());
    }
    println!("at forming 0.");
    for other in &all {
        node.add_learner(*other, &address(other.0)).await?;
    }
    node.change_voters(all).await
}

async fn write(node: RaftNode, notes: Arc<Notes>, quiet: watch::Receiver<bool>, writer: usize) {
    for turn in writer.. {
        if *quiet.borrow() {
            return;
        }
        let request = RequestId::generate();
        match node.propose(entry(request, turn % LARGE_EVERY == 0)).await {
            Ok(_) => tokio::task::block_in_place(|| notes.write(format!("acked {request}"))),
            Err(_) => sleep(TELL_EVERY).await,
        }
    }
}

/// An entry that changes nothing, and is remembered by its request as every entry is.
fn entry(request: RequestId, large: bool) -> Entry {
    let command = match large {
        false => Command::RemoveImage(RemoveImage { name: "none".parse().unwrap() }),
        true => {
            let uid = ContainerUid::generate();
            let snapshot = SnapshotId {
                volume: VolumeUid::from(uid),
                epoch: Epoch(1),
                seq: Seq(1),
                uuid: SnapshotUuid::generate(),
                parent: None,
            };
            let copies = (0..150).map(|_| (uid, NodeId(1), snapshot, TimestampMs(0)));
            Command::RecordFloor(RecordFloor { copies: copies.collect() })
        }
    };
    Entry { request, at: TimestampMs(0), command }
}

/// Tells the parent how it is, and notes the states' hashes.
async fn tell(node: RaftNode, member: &Member, notes: Arc<Notes>, quiet: watch::Receiver<bool>) {
    let mut next = node.applied_index().next_multiple_of(HASH_EVERY);
    let mut purged = node.metrics().purged;
    loop {
        let m = node.metrics();
        while next <= node.applied_index() {
            if let Some(known) = node.state_hash(next).await.filter(|_| next > 0) {
                let line = format!("hash {} {next} {}", member.node, hex(&known.hash));
                tokio::task::block_in_place(|| notes.write(line));
            }
            next += HASH_EVERY;
        }
        if m.purged > purged {
            purged = m.purged;
            println!("at purged {}.", member.node);
        }
        let leads = node.leadership_now().reign.is_some_and(|r| r.ready);
        let complete = m.voters.len() == 3 && !m.joint;
        let applied = node.applied();
        let hash = if *quiet.borrow() { hex(&applied.hash().hash) } else { "-".to_owned() };
        let status = format!(
            "{} {leads} {complete} {} {} {} {} {hash}",
            m.term, m.last_log, m.committed, applied.index, m.snapshot
        );
        replace(&member.status, &status);
        sleep(TELL_EVERY).await;
    }
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What comes on the standard input, until its end.
fn words() -> mpsc::Receiver<()> {
    let (send, words) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut byte = [0];
        while let Ok(1) = std::io::stdin().read(&mut byte) {
            if send.blocking_send(()).is_err() {
                return;
            }
        }
    });
    words
}

async fn obey(mut words: mpsc::Receiver<()>, quiet: watch::Sender<bool>) {
    while words.recv().await.is_some() {
        quiet.send_replace(true);
    }
}

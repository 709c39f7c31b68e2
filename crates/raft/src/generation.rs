//! Which recovery of its cluster a log belongs to, and whether there was a later one.
//!
//! A cluster that was recovered from a lost majority keeps its id, and the dead may return with logs in
//! which they still are a majority. So each recovery begins a new *generation*; every request names
//! its sender's, and:
//!
//! ```text
//! of an older generation ─▶ refused, and changes nothing
//! of a newer one         ─▶ refused, and <raft>/superseded is written: this log has no part any more
//! refused as older       ─▶ the same
//! ```
//!
//! A node that comes back asks every member that it knows before it takes part, so two dead voters that
//! return and can reach anybody of the new generation never even vote. Two that can reach only each
//! other do form the majority that they once were, until the first contact: no protocol can tell
//! them what only others know. The person who recovers says that they are off for good; and once in contact
//! everything that they did is stale by its epochs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use holdfast_proto::internal::RaftRequest;
use holdfast_proto::internal::raft_service_client::RaftServiceClient;
use holdfast_proto::{RemoteError, status_from};
use holdfast_types::Code;
use tonic::Status;

use crate::config::{Connector, Identity};
use crate::dir::replace_file;
use crate::error::RaftError;
use crate::leadership::Peer;
use crate::store::Health;

const HEADER: &str = "holdfast raft generation 1";

/// How long a node that comes back waits for those that it asks.
const GREETING: Duration = Duration::from_secs(1);

fn file(dir: &Path) -> PathBuf {
    dir.join("generation")
}

fn superseded_file(dir: &Path) -> PathBuf {
    dir.join("superseded")
}

/// The generation of the log in `dir`: 0 if its cluster was never recovered.
pub(crate) fn read(dir: &Path) -> Result<u64, RaftError> {
    let file = file(dir);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            return Err(RaftError::corrupt(&file, "it is no text"));
        }
        Err(e) => return Err(RaftError::disk(&file, &e)),
    };
    let generation = text.lines().nth(1).and_then(|line| line.strip_prefix("generation "));
    let generation = generation.and_then(|number| number.parse().ok());
    match generation.filter(|generation| render(*generation) == text) {
        Some(generation) => Ok(generation),
        None => Err(RaftError::corrupt(&file, "it is no generation, or its checksum is wrong")),
    }
}

/// Says which generation the log in `dir` will be of.
pub(crate) fn write(dir: &Path, generation: u64) -> Result<(), RaftError> {
    fs::create_dir_all(dir).map_err(|e| RaftError::disk(dir, &e))?;
    replace_file(&file(dir), render(generation).as_bytes())
}

/// Whether the cluster of the log in `dir` went on without it.
pub(crate) fn is_superseded(dir: &Path) -> bool {
    superseded_file(dir).exists()
}

fn render(generation: u64) -> String {
    let body = format!("{HEADER}\ngeneration {generation}\n");
    let hash = blake3::hash(body.as_bytes()).to_hex();
    format!("{body}blake3 {hash}\n")
}

/// The generation of a running node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Generation {
    number: u64,
    dir: Arc<PathBuf>,
    health: Health,
    /// Held while it ends: several peers may say so at once, and there is one file.
    ending: Arc<Mutex<()>>,
}

impl Generation {
    /// That of the log in `dir`, unless there was a later one.
    pub(crate) fn open(dir: &Path, health: Health) -> Result<Self, RaftError> {
        if is_superseded(dir) {
            return Err(RaftError::Superseded);
        }
        let number = read(dir)?;
        Ok(Self { number, dir: Arc::new(dir.to_owned()), health, ending: Arc::default() })
    }

    /// What requests name.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether a request of that generation is for this node. One that was superseded answers nobody.
    pub(crate) fn admit(&self, theirs: u64) -> Result<(), Status> {
        if theirs > self.number {
            self.superseded(&format!("a request of generation {theirs} came"));
        }
        if let Err(error) = self.health.check() {
            return Err(status_from(error.code(), error.to_string(), None));
        }
        if theirs == self.number {
            return Ok(());
        }
        let message = format!(
            "the cluster was recovered without the sender: this is generation {}, not {theirs}",
            self.number
        );
        Err(status_from(Code::Superseded, message, None))
    }

    /// What a peer's refusal says of this node.
    pub(crate) fn refused(&self, status: &Status) {
        let error = RemoteError::from(status.clone());
        if error.code == Code::Superseded {
            self.superseded(&error.message);
        }
    }

    /// Ends this node's part for good, durably. A small file, written at most once.
    fn superseded(&self, told: &str) {
        let _only = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        if self.health.check().is_ok() {
            let written = replace_file(&superseded_file(&self.dir), format!("{told}\n").as_bytes());
            self.health.fail(written.err().unwrap_or(RaftError::Superseded));
        }
    }

    /// Asks those members whether the cluster went on without this node, which takes no part yet. Who
    /// does not answer in time says nothing.
    pub(crate) async fn ask(
        &self,
        me: Identity,
        members: &[Peer],
        connector: &Connector,
    ) -> Result<(), RaftError> {
        let others = members.iter().filter(|peer| peer.node != me.node);
        let asked = others.map(|peer| async move {
            let Ok(channel) = connector(&peer.addr) else { return };
            let request = RaftRequest {
                cluster_id: me.cluster.to_bytes().into(),
                from: me.node.0,
                to: peer.node.0,
                generation: self.number,
                ..Default::default()
            };
            let greet = async move { RaftServiceClient::new(channel).greet(request).await };
            if let Ok(Err(status)) = tokio::time::timeout(GREETING, greet).await {
                self.refused(&status);
            }
        });
        join_all(asked).await;
        self.health.check()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn code(status: Status) -> Code {
        RemoteError::from(status).code
    }

    /// I12: whoever hears of a newer generation has no part any more, over restarts too.
    #[test]
    fn who_hears_of_a_newer_generation_is_out_for_good() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 2).unwrap();
        let generation = Generation::open(dir.path(), Health::new()).unwrap();
        generation.admit(2).unwrap();
        assert_eq!(code(generation.admit(1).unwrap_err()), Code::Superseded);
        generation.admit(2).unwrap();
        assert_eq!(code(generation.admit(3).unwrap_err()), Code::Superseded);
        assert_eq!(code(generation.admit(2).unwrap_err()), Code::Superseded);
        let again = Generation::open(dir.path(), Health::new()).err().unwrap();
        assert_eq!(again, RaftError::Superseded);
    }

    /// Two peers that said so at once wrote one file at once, and the node ended with that for a
    /// failure of its disk.
    #[test]
    fn several_that_tell_at_once_end_it_as_superseded() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let generation = Generation::open(dir.path(), Health::new()).unwrap();
            let together = Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        together.wait();
                        generation.admit(1).unwrap_err()
                    });
                }
            });
            assert_eq!(generation.health.check().unwrap_err(), RaftError::Superseded);
            assert!(is_superseded(dir.path()));
        }
    }

    #[test]
    fn a_refusal_as_older_ends_it_and_another_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::new();
        let generation = Generation::open(dir.path(), health.clone()).unwrap();
        generation.refused(&status_from(Code::WrongCluster, "another cluster", None));
        generation.refused(&Status::unavailable("a proxy's words"));
        assert!(health.check().is_ok());
        generation.refused(&status_from(Code::Superseded, "generation 1", None));
        assert_eq!(health.check().unwrap_err(), RaftError::Superseded);
        assert!(is_superseded(dir.path()));
    }

    /// I27: nothing in the file panics, and damage is named.
    #[test]
    fn a_damaged_generation_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Ok(0));
        write(dir.path(), 41).unwrap();
        assert_eq!(read(dir.path()), Ok(41));
        for bad in ["", "holdfast raft generation 1\n", &render(41).replace("41", "42")] {
            fs::write(file(dir.path()), bad).unwrap();
            assert_eq!(read(dir.path()).unwrap_err().code(), Code::Corrupt, "{bad:?}");
        }
    }
}

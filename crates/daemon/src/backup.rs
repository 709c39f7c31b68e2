//! A backup of the cluster: the state at one index, proved by a quorum round that began after the call,
//! as the bytes of a file.
//!
//! ```text
//! state ─▶ MessagePack ─▶ hash ─▶ parts of 256 KiB ─▶ a queue of four ─▶ the client
//! ```
//! What is on its way is all that it takes of memory, beside the state of that moment, which is let go of
//! with the last part; a client that takes nothing for a while is given up.

use std::io::{self, Write};
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use holdfast_core::State;
use holdfast_proto::backup::{BackupWriter, FORMAT};
use holdfast_proto::{status_from, v1};
use holdfast_raft::Applied;
use holdfast_types::Code;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::clock;
use crate::fault::Fault;
use crate::member::Lead;

const PART_BYTES: usize = 256 << 10;
const QUEUE: usize = 4;

/// A client that takes no part for so long holds a state for nothing.
const STALL: Duration = Duration::from_secs(30);

/// The file, in parts.
pub(crate) type Parts = Pin<Box<dyn Stream<Item = Result<v1::BackupPart, Status>> + Send>>;

/// Begins a backup, on the leader.
pub(crate) async fn take(lead: Lead, _: v1::BackupRequest) -> Result<Parts, Fault> {
    lead.raft.read_index().await?;
    let applied = lead.raft.applied();
    let header = header(&applied, lead.member.identity.name.to_string())?;
    let (parts, queue) = mpsc::channel(QUEUE);
    let failed = parts.clone();
    let sink = Sink { parts, buffer: Vec::with_capacity(PART_BYTES), runtime: Handle::current() };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(sink, &header, &applied.state) {
            let status =
                status_from(Code::Internal, format!("the backup broke off: {error}"), None);
            // A client that is gone does not mind.
            drop(failed.try_send(Err(status)));
        }
    });
    Ok(Box::pin(ReceiverStream::new(queue)))
}

fn header(applied: &Applied, node: String) -> Result<v1::BackupHeader, Fault> {
    let state = &applied.state;
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Ok(v1::BackupHeader {
        format: FORMAT,
        cluster_id: state.cluster()?.id.to_string(),
        index: applied.index,
        term: applied.term,
        taken_ms: clock::wall().0,
        feature_level: state.feature_level.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node,
        nodes: count(state.nodes.len()),
        containers: count(state.containers.len()),
        images: count(state.images.len()),
    })
}

fn write(sink: Sink, header: &v1::BackupHeader, state: &State) -> io::Result<()> {
    let mut writer = BackupWriter::begin(sink, header)?;
    rmp_serde::encode::write_named(&mut writer, &state.without_secrets())
        .map_err(io::Error::other)?;
    writer.finish().map(drop)
}

/// Gathers bytes to parts. Blocks while the queue is full.
struct Sink {
    parts: mpsc::Sender<Result<v1::BackupPart, Status>>,
    buffer: Vec<u8>,
    runtime: Handle,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(PART_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(data.get(..taken).unwrap_or(data));
        if self.buffer.len() == PART_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(PART_BYTES));
        let send = self.parts.send(Ok(v1::BackupPart { data: full.into() }));
        match self.runtime.block_on(async { tokio::time::timeout(STALL, send).await }) {
            Ok(sent) => sent.map_err(|_| io::Error::other("nobody takes it any more")),
            Err(_) => Err(io::Error::other("nobody has taken a part of it for 30 s")),
        }
    }
}

//! `GET /metrics`: this node in Prometheus' text format, over a listener that knows nothing else.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;
use std::time::Duration;

use holdfast_agent::SideCounts;
use holdfast_core::State;
use holdfast_types::{NodeId, RunState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock;
use crate::gate::{Gate, Stage};
use crate::member::Member;

/// A request is read and answered within this time, or dropped.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest request, in bytes.
const MAX_REQUEST: usize = 8 << 10;

/// Requests at a time; more wait.
const AT_ONCE: usize = 4;

/// Answers for ever.
pub(crate) async fn serve(listener: TcpListener, gate: Gate) {
    let turns = std::sync::Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(turn) = turns.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: some will be free again.
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let gate = gate.clone();
        tokio::spawn(async move {
            // Whoever asks in vain asks again.
            drop(timeout(PATIENCE, answer(stream, &gate)).await);
            drop(turn);
        });
    }
}

async fn answer(mut stream: TcpStream, gate: &Gate) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 || request.len() > MAX_REQUEST {
            return Ok(());
        }
    }
    let known = request.starts_with(b"GET /metrics ");
    let (status, body) = match known {
        true => ("200 OK", text(gate)),
        false => ("404 Not Found", "there is only GET /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn text(gate: &Gate) -> String {
    let mut page = Page::default();
    match gate.stage() {
        Stage::Member(member) => describe(&mut page, &member),
        Stage::Uninitialised | Stage::Starting => {
            page.put("holdfast_ready", "Whether this node is a member and answers.", "", 0);
        }
    }
    page.0
}

fn describe(page: &mut Page, member: &Member) {
    page.put("holdfast_ready", "Whether this node is a member and answers.", "", 1);
    let leased = u64::from(member.duties.is_leased());
    page.put("holdfast_leased", "Whether protected containers may run here.", "", leased);
    let transfers = member.duties.transfers();
    side(page, "out", &transfers.sent);
    side(page, "in", &transfers.received);
    let Some(raft) = &member.raft else { return };
    let reign = member.reign.borrow().clone();
    page.put("holdfast_leader", "Whether this node leads.", "", u64::from(reign.is_some()));
    let metrics = raft.metrics();
    page.put("holdfast_raft_term", "The newest term known.", "", metrics.term);
    page.put("holdfast_raft_applied", "The last entry applied.", "", metrics.applied);
    page.put("holdfast_raft_committed", "The last entry known committed.", "", metrics.committed);
    page.put("holdfast_raft_syncs_total", "Durable syncs of the log.", "", metrics.syncs);
    let unfit = u64::from(raft.unfit().is_some());
    page.put("holdfast_raft_unfit", "Whether this node should not lead.", "", unfit);
    if let Some(newest) = raft.newest_hash() {
        hash(page, newest.index, &newest.hash);
    }
    let state = raft.state();
    containers(page, &state, member.node());
    if let Some(leadership) = reign {
        let seen = leadership.observe(&state, clock::boottime_ms(), clock::wall());
        for (id, node) in &seen.nodes {
            let Some(pool) = &node.pool else { continue };
            let name = state.nodes.get(id).map(|n| n.name.to_string()).unwrap_or_default();
            let label = format!("{{node=\"{name}\"}}");
            let (size, used) = (pool.size.bytes(), pool.used.bytes());
            page.put("holdfast_pool_size_bytes", "Physical size of a pool.", &label, size);
            page.put("holdfast_pool_used_bytes", "Physical use of a pool.", &label, used);
            let Some((used, size)) = pool.metadata else { continue };
            let (used, size) = (used.bytes(), size.bytes());
            page.put("holdfast_pool_metadata_size_bytes", "Size of its metadata.", &label, size);
            page.put("holdfast_pool_metadata_used_bytes", "Use of its metadata.", &label, used);
        }
    }
}

/// Both are of one moment: nodes with the same index and not the same hash have parted (I4). A sample is
/// a double, which holds whole numbers below 2^53: these are the hash's first 48 bits.
fn hash(page: &mut Page, index: u64, hash: &[u8; 32]) {
    let number = hash.iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte));
    page.put("holdfast_state_hash_index", "The entry that the hash is of.", "", index);
    page.put("holdfast_state_hash", "Hash of the state: on all nodes the same.", "", number);
}

fn side(page: &mut Page, direction: &str, counts: &SideCounts) {
    let label = format!("{{direction=\"{direction}\"}}");
    let name = "holdfast_transfers_begun_total";
    page.put(name, "Transfers of snapshots, resumed ones included.", &label, counts.begun);
    let name = "holdfast_transfers_resumed_total";
    page.put(name, "Transfers that went on where one was interrupted.", &label, counts.resumed);
    let name = "holdfast_transfers_refused_total";
    page.put(name, "Transfers that had no place, or made way for others.", &label, counts.made_way);
    let ends = [
        ("finished", counts.finished),
        ("interrupted", counts.interrupted),
        ("corrupt", counts.corrupt),
    ];
    for (end, count) in ends {
        let label = format!("{{direction=\"{direction}\",end=\"{end}\"}}");
        page.put("holdfast_transfers_ended_total", "Transfers by how they ended.", &label, count);
    }
    let name = "holdfast_transfer_bytes_total";
    page.put(name, "Bytes of transfers, as they travel.", &label, counts.bytes);
}

fn containers(page: &mut Page, state: &State, me: NodeId) {
    let mut count = [0; 4];
    for container in state.containers.of_node(me).filter(|c| c.node == me) {
        let state = match container.run {
            RunState::Pending | RunState::Starting => 0,
            RunState::Running => 1,
            RunState::Stopped => 2,
            RunState::Failed { .. } => 3,
        };
        count[state] += 1;
    }
    for (state, count) in ["starting", "running", "stopped", "failed"].iter().zip(count) {
        let label = format!("{{state=\"{state}\"}}");
        page.put("holdfast_containers", "Containers assigned to this node.", &label, count);
    }
}

/// The text so far. Labels are names of ours, which need no escaping.
#[derive(Default)]
struct Page(String);

impl Page {
    fn put(&mut self, name: &str, help: &str, label: &str, value: u64) {
        let head = format!("# HELP {name} ");
        if !self.0.contains(&head) {
            // Writing to a string cannot fail.
            let _ = writeln!(self.0, "{head}{help}\n# TYPE {name} {}", kind(name));
        }
        let _ = writeln!(self.0, "{name}{label} {value}");
    }
}

fn kind(name: &str) -> &'static str {
    if name.ends_with("_total") { "counter" } else { "gauge" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_counted_each_way() {
        let mut page = Page::default();
        side(&mut page, "in", &SideCounts { corrupt: 2, bytes: 7, ..SideCounts::default() });
        side(&mut page, "out", &SideCounts::default());
        let corrupt = "\nholdfast_transfers_ended_total{direction=\"in\",end=\"corrupt\"} 2\n";
        assert!(page.0.contains(corrupt), "{}", page.0);
        assert!(page.0.contains("\nholdfast_transfer_bytes_total{direction=\"in\"} 7\n"));
        assert!(page.0.contains("\nholdfast_transfer_bytes_total{direction=\"out\"} 0\n"));
    }

    #[test]
    fn a_hash_is_a_whole_number_that_a_sample_can_hold() {
        let mut page = Page::default();
        hash(&mut page, 2048, &[0xFF; 32]);
        assert!(page.0.contains("\nholdfast_state_hash_index 2048\n"), "{}", page.0);
        assert!(page.0.contains(&format!("\nholdfast_state_hash {}\n", (1_u64 << 48) - 1)));
    }

    #[test]
    fn a_metric_is_described_once() {
        let mut page = Page::default();
        page.put("holdfast_x_total", "X.", "{a=\"1\"}", 1);
        page.put("holdfast_x_total", "X.", "{a=\"2\"}", 2);
        let expected = "# HELP holdfast_x_total X.\n# TYPE holdfast_x_total counter\n\
                        holdfast_x_total{a=\"1\"} 1\nholdfast_x_total{a=\"2\"} 2\n";
        assert_eq!(page.0, expected);
    }
}

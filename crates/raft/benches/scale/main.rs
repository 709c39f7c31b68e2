//! What `cargo xtask bench consensus` runs for the figures of a state with a million containers: it
//! measures, and prints one JSON object. What it needs of the disk is about three times the snapshot.
//!
//! ```text
//! scale DIR CONTAINERS      everything, in DIR/scale, which is made and removed
//! scale --node DIR          one node on what lies there: its start, and pauses while it writes
//! ```
//!
//! The node is a process of its own, so that its memory is that of a node that was just started.

mod node;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use holdfast_raft::{Identity, seed};
use holdfast_types::{ClusterId, NodeId};
use serde_json::{Map, Value, json};

/// What was measured, by name; units last.
pub(crate) type Measured = Map<String, Value>;

/// The flag of the process that is the node.
const NODE: &str = "--node";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let measured = match &args[..] {
        [flag, dir] if flag == NODE => node::measure(Path::new(dir)),
        [dir, containers] => whole(dir.into(), containers),
        _ => Err(anyhow::anyhow!("usage: DIR CONTAINERS")),
    };
    match measured {
        Ok(measured) => {
            println!("{}", Value::Object(measured));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn whole(dir: PathBuf, containers: &str) -> Result<Measured> {
    let containers = containers.parse().context("a number of containers")?;
    let dir = Removed(dir.join("scale"));
    std::fs::create_dir_all(&dir.0)?;
    let raft = dir.0.join("raft");
    let mut measured = Measured::new();
    measured.insert("containers".into(), json!(containers));

    let began = Instant::now();
    let (state, index) = world::of(containers)?;
    let seconds = began.elapsed().as_secs_f64();
    measured.insert("entries".into(), json!(index));
    measured.insert("apply_entries_per_s".into(), json!(index as f64 / seconds));

    let began = Instant::now();
    let identity = Identity { cluster: ClusterId::generate(), node: NodeId(1) };
    let seeding = seed(&raft, identity, "127.0.0.1:1".into(), index, state);
    tokio::runtime::Runtime::new()?.block_on(seeding)?;
    measured.insert("write_s".into(), json!(began.elapsed().as_secs_f64()));

    let node = Command::new(std::env::current_exe()?).arg(NODE).arg(&raft).output()?;
    let errors = String::from_utf8_lossy(&node.stderr);
    ensure!(node.status.success(), "the node failed: {errors}");
    let mut seen: Measured = serde_json::from_slice(&node.stdout).context("the node's words")?;
    let rss = seen.get("rss_bytes").and_then(Value::as_u64).context("the node's memory")?;
    seen.insert("rss_bytes_per_container".into(), json!(rss / containers));
    measured.append(&mut seen);
    Ok(measured)
}

/// A directory that goes with what was measured in it.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

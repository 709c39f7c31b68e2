//! Before the cut: a fresh container on the node that is to lose its power, a client that asks it,
//! and a replica that is current.

use std::net::Ipv4Addr;
use std::time::Duration;

use holdfast_proto::v1;
use holdfast_types::{Code, ContainerSpec, ContainerUid, NodeName, RequestId};

use super::Narrator;
use super::options::{QuickstartOptions, Target};
use super::stage::{Stage, name};
use crate::LabError;
use crate::wait::wait_until;
use crate::workload::Probe;

const CREATE_LIMIT: Duration = Duration::from_secs(60);
const SYNC_LIMIT: Duration = Duration::from_secs(60);
/// The cut comes at any phase of the replication's rhythm.
const LEAST_SETTLE_MS: u64 = 1_500;
const MOST_SETTLE_MS: u64 = 6_500;

/// A container that serves, with a current replica, and a client that asks it.
#[derive(Debug)]
pub struct Scene {
    /// The node that it runs on.
    pub node: String,
    /// What that node is: `leader`, `voter` or `worker`.
    pub role: &'static str,
    /// The container.
    pub uid: ContainerUid,
    /// Where it answers.
    pub address: Ipv4Addr,
    /// The constants in force.
    pub lease: v1::LeaseSettings,
    /// Who asks.
    pub probe: Probe,
}

impl Scene {
    /// Makes a container on this node, and returns when a replica is current. With a
    /// `noise_bytes_per_s` it rewrites that much besides.
    pub fn set(
        stage: &Stage,
        narrator: &Narrator,
        node: &str,
        replicate_every_ms: Option<u64>,
        noise_bytes_per_s: u64,
    ) -> Result<Self, LabError> {
        let (node, pace): (NodeName, _) = (name(node)?, stage.lab().pace());
        let mut spec = ContainerSpec {
            image: Some(stage.image.clone()),
            disk: stage.disk,
            max_data_loss_ms: ContainerSpec::default().max_data_loss_ms * pace.factor(),
            ..ContainerSpec::default()
        };
        if let Some(every_ms) = replicate_every_ms {
            spec.replicate_every_ms = every_ms;
        }
        if noise_bytes_per_s > 0 {
            spec.env.insert("NOISE_BYTES_PER_S".into(), noise_bytes_per_s.to_string());
        }
        let container = create(stage, &spec, &node)?;
        let incomplete = || LabError::Cluster {
            code: Code::Internal,
            message: format!("the cluster shows no address or uid of {}", container.name),
        };
        let address = container.address.split('/').next().and_then(|a| a.parse().ok());
        let address: Ipv4Addr = address.ok_or_else(incomplete)?;
        let uid: ContainerUid = container.uid.parse().map_err(|_| incomplete())?;
        narrator.say(format_args!("container {} runs on {node} at {address}", container.name));
        let probe = Probe::start(stage.lab().layout(), address, pace)?;
        wait_until("the first answer", pace.of(CREATE_LIMIT), || Ok(!probe.acked().is_empty()))?;
        narrator.say("it answers; waiting until a replica is current");
        let title = &stage.container;
        let replica = stage.cluster.ask(async |s| s.sync(title, pace.of(SYNC_LIMIT)).await)?;
        narrator.say(format_args!("the replica on {} is current", replica.node));
        let status = stage.cluster.ask(async |s| s.status().await)?;
        let role = role_of(&status, node.as_str());
        let lease = status.lease.unwrap_or_default();
        Ok(Self { node: node.to_string(), role, uid, address, lease, probe })
    }
}

/// The scene of a round: on a node of the wanted kind, some random time after the replica was
/// current.
pub(super) fn set_scene(
    stage: &Stage,
    options: &QuickstartOptions,
    narrator: &Narrator,
) -> Result<Scene, LabError> {
    let status = stage.cluster.ask(async |s| s.status().await)?;
    let victim = choose(&status, options.kill)?.name;
    let mut scene = Scene::set(stage, narrator, &victim, None, options.noise_bytes_per_s)?;
    let settle = Duration::from_millis(random(LEAST_SETTLE_MS, MOST_SETTLE_MS));
    std::thread::sleep(stage.lab().pace().of(settle));
    // Who leads may have changed meanwhile.
    scene.role = role_of(&stage.cluster.ask(async |s| s.status().await)?, &victim);
    Ok(scene)
}

fn choose(status: &v1::StatusResponse, kill: Option<Target>) -> Result<v1::Node, LabError> {
    let fits = |node: &&v1::Node| match kill {
        None => true,
        Some(Target::Worker) => node.role() == v1::NodeRole::Worker,
        Some(Target::Follower) => node.role() == v1::NodeRole::Voter && !node.leader,
        Some(Target::Leader) => node.leader,
    };
    let all: Vec<_> = status.nodes.iter().filter(fits).collect();
    let none = LabError::Cluster { code: Code::NotFound, message: "no such node to cut".into() };
    let at = random(0, all.len() as u64);
    all.get(at as usize).map(|node| (*node).clone()).ok_or(none)
}

fn role_of(status: &v1::StatusResponse, name: &str) -> &'static str {
    match status.nodes.iter().find(|n| n.name == name) {
        Some(node) if node.leader => "leader",
        Some(node) if node.role() == v1::NodeRole::Worker => "worker",
        _ => "voter",
    }
}

fn create(stage: &Stage, spec: &ContainerSpec, node: &NodeName) -> Result<v1::Container, LabError> {
    let name = &stage.container;
    stage.cluster.ask(async |s| {
        let (container, operation) = s.create(name, spec, false, Some(node)).await?;
        if let Some(operation) = operation {
            s.follow(operation, stage.lab().pace().of(CREATE_LIMIT), |_| {}).await?;
        }
        Ok(container)
    })
}

/// A number from `low` up to, but not including, `high` (`low` if there is none).
fn random(low: u64, high: u64) -> u64 {
    let bytes = RequestId::generate().to_bytes();
    // The last eight bytes of a UUIDv7 are random but for two bits at the top.
    let number = bytes[10..].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    low + number.checked_rem(high.saturating_sub(low)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_stays_in_range() {
        assert!((0..200).all(|_| (5..8).contains(&random(5, 8))));
        assert_eq!(random(5, 5), 5);
    }
}

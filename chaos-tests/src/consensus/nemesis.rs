//! Harm, one after another: it is done, held, undone, and then the cluster must answer again through every
//! node before the next comes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use holdfast_lab::{Cluster, Lab, LabError, Part, wait_until};
use holdfast_proto::v1;

use super::load::Load;
use super::plan::{Fault, Kind, Schedule};

/// With a majority there a leader is found within this.
const LEADER_LIMIT: Duration = Duration::from_secs(30);
/// And all nodes answer within this after all harm is undone.
const RECOVER_LIMIT: Duration = Duration::from_secs(30);
/// So long a standby may take to get the vote of a lost voter.
const REPLACE_LIMIT: Duration = Duration::from_secs(150);
/// Between the end of one harm and the next.
const CALM: Duration = Duration::from_millis(700);

/// Harm that was done. Times are in nanoseconds since the run began.
#[derive(Debug, Clone)]
pub(super) struct Injected {
    pub(super) kind: Kind,
    pub(super) what: String,
    pub(super) from: u64,
    /// When every node answered again.
    pub(super) recovered: u64,
}

/// Does harm as planned until its time is over; clients must go on asking until it returns. All harm is
/// undone then, unless something failed.
pub(super) fn run(
    lab: &Lab,
    load: &Arc<Load>,
    schedule: Schedule,
    until: Instant,
    say: &dyn Fn(&str),
) -> (Vec<Injected>, Option<LabError>) {
    let mut injected = Vec::new();
    for fault in schedule {
        if Instant::now() >= until {
            break;
        }
        match inject(lab, load, &fault) {
            Ok(done) => {
                let took = Duration::from_nanos(done.recovered - done.from);
                say(&format!(
                    "{}: {}; {:.1} s until all answered",
                    done.kind,
                    done.what,
                    took.as_secs_f64()
                ));
                injected.push(done);
            }
            Err(error) => return (injected, Some(error)),
        }
    }
    (injected, None)
}

fn inject(lab: &Lab, load: &Load, fault: &Fault) -> Result<Injected, LabError> {
    let cluster = Cluster::of(lab)?;
    let leader = cluster.wait_for("a leader", LEADER_LIMIT, async |session| {
        let status = session.status().await?;
        Ok(Some(status.leader).filter(|leader| !leader.is_empty()))
    })?;
    let mut dice = fault.dice.clone();
    let others: Vec<_> = load.nodes.iter().filter(|node| **node != leader).cloned().collect();
    let victim = match fault.kind {
        Kind::LeaderKill | Kind::LeaderPause => leader.clone(),
        _ => dice.one(&others).cloned().unwrap_or_default(),
    };
    let from = load.now();
    let what = match fault.kind {
        Kind::LeaderKill | Kind::FollowerKill => {
            let before = lab.pid(&victim, Part::Daemon)?;
            lab.crash(&victim, Part::Daemon)?;
            // What it had answered by then is no answer of the one that follows it.
            wait_until(&format!("a new daemon on {victim}"), RECOVER_LIMIT, || {
                Ok(lab.pid(&victim, Part::Daemon).is_ok_and(|pid| pid != before))
            })?;
            format!("{victim} was killed")
        }
        Kind::LeaderPause | Kind::FollowerPause => {
            lab.pause(&victim, Part::Daemon)?;
            std::thread::sleep(fault.hold);
            lab.resume(&victim, Part::Daemon)?;
            format!("{victim} was stopped for {:.1} s", fault.hold.as_secs_f64())
        }
        Kind::Symmetric | Kind::OneWay | Kind::Partial => {
            let drops = fault.drops(&leader, &load.nodes);
            let pairs: Vec<_> = drops.iter().map(|(from, to)| format!("{from}->{to}")).collect();
            lab.partition(drops)?;
            std::thread::sleep(fault.hold);
            lab.partition([].into())?;
            format!(
                "{leader} led, {} was cut for {:.1} s",
                pairs.join(" "),
                fault.hold.as_secs_f64()
            )
        }
        Kind::Replacement => replace(lab, &cluster, &leader)?,
    };
    let undone = load.now();
    wait_until(&format!("an answer of every node after {what}"), RECOVER_LIMIT, || {
        std::thread::sleep(Duration::from_millis(20));
        Ok(load.answered.iter().all(|at| at.load(Ordering::Relaxed) > undone))
    })?;
    let recovered = load.now();
    std::thread::sleep(CALM);
    Ok(Injected { kind: fault.kind, what, from, recovered })
}

/// Takes a voter that does not lead away until another node has its vote.
fn replace(lab: &Lab, cluster: &Cluster, leader: &str) -> Result<String, LabError> {
    let voters = cluster.ask(async |session| Ok(voters(&session.nodes().await?)))?;
    let Some(victim) = voters.iter().find(|node| *node != leader) else {
        return Err(LabError::NoNode { node: "with a vote".into(), have: voters.join(", ") });
    };
    lab.kill(victim)?;
    let what = format!("the replacement of {victim}");
    let replaced = cluster.wait_for(&what, REPLACE_LIMIT, async |session| {
        let now = self::voters(&session.nodes().await?);
        Ok((now.len() == voters.len() && !now.contains(victim)).then_some(()))
    });
    lab.power_on(victim)?;
    replaced.map(|()| format!("{victim} lost its vote to another"))
}

fn voters(nodes: &[v1::Node]) -> Vec<String> {
    let votes = nodes.iter().filter(|node| node.role() == v1::NodeRole::Voter);
    votes.map(|node| node.name.clone()).collect()
}

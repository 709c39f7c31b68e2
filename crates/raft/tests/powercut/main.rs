//! Power cuts of a cluster of three nodes, each a process on a disk of its own, while they write
//! (I1 to I5): of single machines in the course of a life, and of all three at its end. No write that
//! was acknowledged is ever missing, no vote is given twice, no node finds its files damaged. What was
//! acknowledged and voted is noted in `HOLDFAST_TEST_ACKED`, a file outside of the guest.
//!
//! Run by `cargo xtask guest -- consensus`, which cuts at the moments that are printed here, or a
//! little later. What the guest had not flushed to its disks is then lost or not, at random.
#![allow(clippy::unwrap_used)]

mod machine;
mod member;
mod notes;
mod witness;

use std::path::PathBuf;

use machine::{Machine, Status, run, until};
use member::Member;
use notes::Notes;

/// So many writes are acknowledged between two upsets.
const WRITES: usize = 25;

/// What befalls the cluster while it writes. A life begins with each of them in turn.
const UPSETS: [fn(&mut Life, u64); 5] = [
    a_follower_loses_power,
    a_leader_is_alone,
    a_leader_loses_power,
    a_follower_falls_behind,
    the_clock_jumps,
];

/// Not a test: what a node's process does. It returns at once unless the cluster set it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_the_cluster() {
    let Ok(node) = std::env::var("HOLDFAST_TEST_NODE") else { return };
    let path = |name: &str| std::env::var(name).map(PathBuf::from).unwrap();
    member::live(Member {
        node: node.parse().unwrap(),
        mount: path("HOLDFAST_TEST_MOUNT"),
        notes: path("HOLDFAST_TEST_ACKED"),
        status: path("HOLDFAST_TEST_STATUS"),
    })
    .await;
}

/// Not a test outside of the guest, which gives it disks.
#[test]
fn a_life_until_the_power_goes() {
    let Ok(disks) = std::env::var("HOLDFAST_TEST_DISKS") else { return };
    let acked = PathBuf::from(std::env::var("HOLDFAST_TEST_ACKED").unwrap());
    let notes = Notes::open(&acked);
    println!("told: {}", notes.read().judge().unwrap());
    notes.write("life");
    let lives = std::fs::read_to_string(&acked).unwrap().lines().filter(|l| *l == "life").count();
    let machines = disks.split(',').zip(1..).map(|(disk, node)| Machine::new(node, disk, &acked));
    let mut life = Life { machines: machines.collect(), notes };
    life.begin();
    for round in 0..UPSETS.len() {
        life.writes_go_on(round);
        UPSETS[(lives - 1 + round) % UPSETS.len()](&mut life, round as u64);
    }
    life.writes_go_on(UPSETS.len());
    life.end();
}

struct Life {
    machines: Vec<Machine>,
    notes: Notes,
}

impl Life {
    fn begin(&mut self) {
        for machine in &mut self.machines {
            machine.prepare(&self.notes);
        }
        println!("at opening 0.");
        for machine in &mut self.machines {
            machine.start();
        }
        until(|| {
            self.machines.iter_mut().any(|m| m.status().is_some_and(|s| s.complete)).then_some(())
        });
    }

    /// Writes are acknowledged, whoever takes them.
    fn writes_go_on(&mut self, round: usize) {
        println!("at writing {round}.");
        let before = self.notes.read().acked();
        until(|| {
            // A node that ended is not waited for.
            self.machines.iter_mut().for_each(|m| drop(m.status()));
            (self.notes.read().acked() >= before + WRITES).then_some(())
        });
        self.notes.read().judge().unwrap();
    }

    /// The place of the machine that leads.
    fn leader(&mut self) -> usize {
        until(|| self.machines.iter_mut().position(|m| m.status().is_some_and(|s| s.leads)))
    }

    fn follower(&mut self, round: u64) -> usize {
        let leader = self.leader();
        (leader + 1 + round as usize % 2) % self.machines.len()
    }

    fn status(&mut self, at: usize) -> Status {
        until(|| self.machines[at].status())
    }

    /// The machine's node starts, and is as far as the others were then.
    fn returns(&mut self, at: usize) {
        let leader = self.leader();
        let committed = self.status(leader).committed;
        self.machines[at].start();
        println!("at return {}.", self.machines[at].node);
        until(|| self.machines[at].status().filter(|s| s.applied >= committed));
    }

    /// Nobody writes any more: all have the same state, and their files are closed in good order.
    fn end(mut self) {
        self.machines.iter_mut().for_each(Machine::quiet);
        let hash = until(|| {
            let all: Option<Vec<_>> = self.machines.iter_mut().map(Machine::status).collect();
            let all = all?;
            let same = all.iter().all(|s| s.applied == all[0].applied && s.applied == s.last);
            same.then(|| all.into_iter().map(|s| s.hash).collect::<Option<Vec<_>>>()).flatten()
        });
        assert!(hash.windows(2).all(|pair| pair[0] == pair[1]), "{hash:?}");
        for machine in &mut self.machines {
            machine.stop();
            machine.unmount();
        }
        println!("told: {}", self.notes.read().judge().unwrap());
    }
}

fn a_follower_loses_power(life: &mut Life, round: u64) {
    let at = life.follower(round);
    life.machines[at].lose_power();
    life.returns(at);
}

fn a_leader_loses_power(life: &mut Life, _: u64) {
    let at = life.leader();
    life.machines[at].lose_power();
    life.returns(at);
}

/// A leader whose followers stand still writes what is never committed; it is killed, others lead,
/// and what it wrote is cut off when it comes back.
fn a_leader_is_alone(life: &mut Life, round: u64) {
    let at = life.leader();
    let others: Vec<usize> = (0..life.machines.len()).filter(|other| *other != at).collect();
    others.iter().for_each(|other| life.machines[*other].freeze());
    println!("at alone {round}.");
    until(|| life.machines[at].status().filter(|s| s.last > s.committed));
    life.machines[at].kill();
    others.iter().for_each(|other| life.machines[*other].thaw());
    until(|| {
        others
            .iter()
            .any(|other| life.machines[*other].status().is_some_and(|s| s.leads))
            .then_some(())
    });
    life.writes_go_on(UPSETS.len() + 1);
    println!("at truncating {round}.");
    life.returns(at);
}

/// What a node lacks is no longer in the leader's log: it gets a snapshot.
fn a_follower_falls_behind(life: &mut Life, round: u64) {
    let at = life.follower(round);
    let had = life.status(at).last;
    life.machines[at].kill();
    until(|| {
        let mut snapshots =
            life.machines.iter_mut().filter_map(Machine::status).map(|s| s.snapshot);
        snapshots.any(|snapshot| snapshot > had + 60).then_some(())
    });
    println!("at behind {round}.");
    life.returns(at);
}

/// The wall clock means nothing to consensus: the same leader goes on in the same term.
fn the_clock_jumps(life: &mut Life, round: u64) {
    // An election may come of the machine's being slow, but not each time.
    let calm = (0..3).any(|_| the_leader_stays_while_it_jumps(life, round));
    assert!(calm, "the leader changed each time that the clock jumped");
}

fn the_leader_stays_while_it_jumps(life: &mut Life, round: u64) -> bool {
    let at = life.leader();
    let before = life.status(at);
    for jump in ["+5 hours", "-11 hours", "+6 hours"] {
        run("date", &["--set", jump]);
        println!("at jump {round}.");
        life.writes_go_on(UPSETS.len() + 2);
    }
    let after = life.status(at);
    (after.leads, after.term) == (true, before.term)
}

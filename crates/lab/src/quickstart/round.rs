//! One round: a container on a node, the node's power cut, and what became of both.

use std::time::Duration;

use holdfast_proto::v1;

use super::Narrator;
use super::aftermath::{Returned, account, watch_return};
use super::cut::{Cut, too_early};
use super::options::QuickstartOptions;
use super::report::RoundReport;
use super::scene::{Scene, set_scene};
use super::stage::Stage;
use super::story::{Account, Story};
use crate::LabError;
use crate::clock::BootInstant;
use crate::wait::wait_until;
use crate::workload::{Acked, Judgement, Ledger, fetch_chain, parse_chain};

const RETURN_LIMIT: Duration = Duration::from_secs(60);
const HEARD_LIMIT: Duration = Duration::from_secs(30);
/// How long the client goes on asking after the return.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Plays the round of this number on a stage that holds no container yet; its container is left
/// there.
pub fn play(
    stage: &Stage,
    options: &QuickstartOptions,
    narrator: &Narrator,
    number: u32,
) -> Result<RoundReport, LabError> {
    narrator.say(format_args!("round {number} of {}", options.rounds));
    let scene = set_scene(stage, options, narrator)?;
    let status = heard_of(stage, &scene)?;
    narrator.say(format_args!("CUTTING THE POWER of {} ({})", scene.node, scene.role));
    let boot = stage.lab().kill(&scene.node)?;
    // A request that was sent while the power was being cut may still have been answered.
    let dead = BootInstant::now();
    let cut = Cut::at(boot, status.applied);
    judge(stage, narrator, scene, cut, dead)
}

/// The cluster's status at a moment when the node was heard of within a heartbeat: what is judged
/// counts from its last answer, and a machine that is slow by more than its pace may have missed some.
fn heard_of(stage: &Stage, scene: &Scene) -> Result<v1::StatusResponse, LabError> {
    let heartbeat_ms = scene.lease.lease_ms / 6;
    let limit = stage.lab().pace().of(HEARD_LIMIT);
    stage.cluster.wait_for("a heartbeat of the node", limit, async |s| {
        let status = s.status().await?;
        let node = status.nodes.iter().find(|n| n.name == scene.node);
        let heard = node.and_then(|n| n.last_seen_ms).is_some_and(|ago| ago <= heartbeat_ms);
        Ok(heard.then_some(status))
    })
}

/// From here on everything that is wrong is a finding of the round, not an end to it.
fn judge(
    stage: &Stage,
    narrator: &Narrator,
    scene: Scene,
    cut: Cut,
    dead: BootInstant,
) -> Result<RoundReport, LabError> {
    let mut problems = Vec::new();
    let Scene { node: victim, role, uid, address, lease, probe } = scene;
    match wait_until("the first answer after the cut", stage.lab().pace().of(RETURN_LIMIT), || {
        Ok(probe.first_after(dead).is_some())
    }) {
        Ok(()) => narrator.say("the service answers again"),
        Err(error) => problems.push(error.to_string()),
    }
    let account = account(stage, &victim, &uid.to_string(), cut.revision)?;
    std::thread::sleep(stage.lab().pace().of(AFTERMATH));
    let answers = Answers { last: probe.last_before(dead), first: probe.first_after(dead) };
    let records =
        hold_records(stage, address, probe.finish(), account.data_as_of_ms, &mut problems);
    let seen = stage.observer.observation();
    let verdict = seen.verdict(uid);
    if !verdict.holds() {
        problems.push(format!("two nodes ran the container for {} ms", verdict.overlap_ms()));
    }
    problems.extend(too_early(&account, &lease, cut));
    let mut timeline = tell(&victim, lease.lease_ms, &answers, &account, cut);
    let started = account.target.as_deref().and_then(|t| seen.first_run_after(uid, t, cut.boot));
    if let Some(at) = started {
        timeline.add("its tasks run there", cut.wall_of(at), cut.wall_ms);
    }
    let returned = match watch_return(stage, narrator, &victim, uid, account.target.is_some()) {
        Ok(returned) => returned,
        Err(error) => {
            problems.push(format!("after the power came back: {error}"));
            Returned::default()
        }
    };
    let lost = records.as_ref().map_or(0, |r| r.lost);
    if lost > 0 && !returned.diverged {
        problems.push("what was never shipped is not listed as diverged".to_owned());
    }
    Ok(RoundReport {
        victim,
        role: role.to_owned(),
        rto_s: answers.outage_s(cut),
        rpo_s: records.as_ref().map(|r| answers.loss_s(r)),
        bound_s: lease.lost_after_ms as f64 / 1000.0,
        took_over_after_s: account.took_over_after_ms().map(|ms| ms as f64 / 1000.0),
        overlap_ms: verdict.overlap_ms(),
        min_gap_ms: verdict.min_gap_ms(),
        observer_blink_ms: seen.longest_blink_ns / 1_000_000,
        records_acked: records.as_ref().map_or(0, |r| r.acked),
        records_lost: lost,
        records_lost_unreported: records.as_ref().map_or(0, |r| r.unreported),
        chain_ok: records.is_some(),
        target: account.target,
        diverged_kept: returned.diverged,
        caught_up_after_s: returned.caught_up_after.map(|d| d.as_secs_f64()),
        problems,
        timeline,
    })
}

/// The answers on both sides of the outage.
struct Answers {
    last: Option<Acked>,
    first: Option<Acked>,
}

impl Answers {
    fn last_instant(&self, cut: Cut) -> BootInstant {
        self.last.as_ref().map_or(cut.boot, |last| last.acked)
    }

    fn outage_s(&self, cut: Cut) -> Option<f64> {
        let first = self.first.as_ref()?;
        Some(first.acked.since(self.last_instant(cut)).as_secs_f64())
    }

    fn loss_s(&self, records: &Judgement) -> f64 {
        match (&self.last, records.oldest_lost) {
            (Some(last), Some(oldest)) => last.acked.since(oldest).as_secs_f64(),
            _ => 0.0,
        }
    }
}

/// Fetches the chain and holds what the client knows against it. `None` if it is not whole.
fn hold_records(
    stage: &Stage,
    address: std::net::Ipv4Addr,
    acked: Vec<Acked>,
    data_as_of_ms: Option<u64>,
    problems: &mut Vec<String>,
) -> Option<Judgement> {
    let chain = fetch_chain(stage.lab().layout(), address, stage.lab().pace())
        .map_err(|error| error.to_string())
        .and_then(|text| parse_chain(&text).map_err(|f| format!("the chain is damaged: {f}")));
    match chain {
        Err(problem) => {
            problems.push(problem);
            None
        }
        Ok(chain) => {
            let mut ledger = Ledger::default();
            ledger.extend(acked);
            let records = ledger.judge(&chain, data_as_of_ms);
            if records.unreported > 0 {
                let count = records.unreported;
                problems.push(format!("{count} records were lost and not reported"));
            }
            Some(records)
        }
    }
}

fn tell(victim: &str, lease_ms: u64, answers: &Answers, account: &Account, cut: Cut) -> Story {
    let target = account.target.as_deref().unwrap_or("a node");
    let wall = |acked: &Option<Acked>| acked.as_ref().map(|a| a.acked_wall_ms);
    let moments = [
        (wall(&answers.last), "last good answer".to_owned()),
        (Some(cut.wall_ms), format!("the power of {victim} is cut")),
        (Some(cut.wall_ms + lease_ms), "its lease ends, at the latest".to_owned()),
        (account.lost_at_ms, "the node is lost: a Raft entry says so".to_owned()),
        (account.taken_at_ms, format!("the new epoch is committed, on {target}")),
        (account.running_at_ms, format!("{target} reports that it runs")),
        (wall(&answers.first), "first good answer".to_owned()),
    ];
    let mut story = Story::default();
    for (at, what) in moments {
        if let Some(at) = at {
            story.add(what, at, cut.wall_ms);
        }
    }
    story
}

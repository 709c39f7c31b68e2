//! Consensus as its clients see it, while nodes are killed, stopped and cut off from each other: many
//! clients write, read and swap labels of nodes through all nodes, and every answer is held against all
//! others (I4-I7).
//!
//! ```text
//!  plan ──▶ nemesis ─harm──▶ nodes of a lab ◀──calls── load ──▶ history ──▶ judge ──▶ report
//!  (seed)                       └─metrics─▶ watch ───────────────────────────────────────▲
//! ```
//!
//! A label of a node is a register, a node's version makes it one with compare-and-swap. Every value is
//! written once, so a read says which write it saw. A run is made of rounds: each begins with labels that
//! nobody used before, and ends with no call under way, so its history stands by itself.
//!
//! A run that did not come to its least number of calls, or in which harm of some kind was not done, has
//! not passed, whatever it found.

mod history;
mod judge;
mod load;
mod nemesis;
mod plan;
mod report;
mod versions;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use holdfast_lab::{LabError, NodeRecord, Programs, Purpose, ScopedLab, UpOptions, in_client};
use holdfast_proto::{Address, Dialer, RemoteError};
use holdfast_trust::{Bundle, Expected, TlsClient};
use tokio::runtime::Builder;

use self::history::Call;
use self::judge::{Judged, judge};
use self::load::{Load, Notes};
use self::nemesis::Injected;
use self::plan::Schedule;
use self::watch::{Seen, Watch};
use crate::dice::mix;
use crate::linear::Limits;

pub use plan::Kind;
pub use report::{FaultReport, Report};

/// A round ends after so many calls.
const ROUND: u64 = 400_000;
/// When no more harm is done, all nodes get to the same entry within this.
const LEVEL_LIMIT: Duration = Duration::from_secs(90);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The lab's name.
    pub name: String,
    /// What its nodes run.
    pub programs: Programs,
    /// How many nodes with a vote.
    pub voters: usize,
    /// How many that get one when another is lost: then a voter is taken away for that long now and then,
    /// and this must be seen to happen.
    pub standbys: usize,
    /// How many clients.
    pub clients: usize,
    /// For how long.
    pub duration: Duration,
    /// What chance is made of.
    pub seed: u64,
    /// So many calls must be made.
    pub least_calls: u64,
}

impl Options {
    /// The harm to be done. Each must be done at least once.
    fn kinds(&self) -> Vec<Kind> {
        let replacement = (self.standbys > 0).then_some(Kind::Replacement);
        Kind::PLAIN.into_iter().chain(replacement).collect()
    }
}

/// Makes a lab, and runs. `say` is told what goes on.
///
/// # Errors
/// If the lab or its cluster cannot be made. Whatever happens afterwards is in the report.
pub fn soak(options: &Options, say: &dyn Fn(&str)) -> Result<Report, LabError> {
    let up = UpOptions {
        voters: options.voters,
        standbys: options.standbys,
        purpose: Purpose::Rehearsal,
        replace: true,
        ..UpOptions::new(&options.name, options.programs.clone())
    };
    let count = options.voters + options.standbys;
    say(&format!("seed {}: a lab of {count} nodes", options.seed));
    let lab = ScopedLab::up(&up)?;
    lab.form_cluster()?;
    let began = Instant::now();
    let (over, ended) = (Arc::new(AtomicBool::new(false)), began + options.duration);
    let (tell, told) = channel();
    let clients = {
        let (nodes, over, options) = (lab.record()?.nodes, over.clone(), options.clone());
        let dialer = dialer(&lab, &nodes)?;
        in_client(lab.layout(), move || live((&nodes, &dialer), &options, &over, &tell))?
    };
    let schedule = Schedule::new(options.seed, &options.kinds());
    let harm = told.recv().map(|load| nemesis::run(&lab, &load, schedule, ended, say)).ok();
    over.store(true, Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    say("judging");
    let lived = clients.join().ok().flatten();
    Ok(match (lived, harm) {
        (Some(Ok(lived)), Some((injected, failure))) => {
            account(options, lived, &injected, failure, seconds)
        }
        _ => Report {
            seed: options.seed,
            problems: vec!["the clients could not begin, or broke down".to_owned()],
            ..Report::default()
        },
    })
}

/// How the clients reach the nodes: as the first of them, which may ask for anything.
fn dialer(lab: &ScopedLab, nodes: &[NodeRecord]) -> Result<Dialer, LabError> {
    let Some(first) = nodes.first() else { return Ok(Dialer::local()) };
    let file = lab.layout().keys_file(&first.name);
    let unread = |source| LabError::Io { what: "cannot read", path: file.clone(), source };
    let pem = std::fs::read_to_string(&file).map_err(unread)?;
    let client = Bundle::from_pem(&pem).and_then(|own| {
        let cluster = own.certificate.principal()?.cluster();
        TlsClient::new(&own, Expected { cluster, member: true, roster: None })
    });
    client.map(Dialer::tls).map_err(|error| unread(std::io::Error::other(error)))
}

/// What the clients' thread brings back.
struct Lived {
    judged: Judged,
    notes: Notes,
    seen: Seen,
    level: bool,
}

/// The clients' thread: rounds, until it is over.
fn live(
    (nodes, dialer): (&[NodeRecord], &Dialer),
    options: &Options,
    over: &Arc<AtomicBool>,
    tell: &Sender<Arc<Load>>,
) -> Result<Lived, RemoteError> {
    let broken = |error: std::io::Error| RemoteError {
        code: holdfast_types::Code::Internal,
        message: format!("cannot start the clients' runtime: {error}"),
        leader: None,
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(broken)?;
    runtime.block_on(async {
        let address = |node: &NodeRecord| (node.name.clone(), Address::Tcp(node.api().to_string()));
        let load = Arc::new(Load::new(&nodes.iter().map(address).collect::<Vec<_>>(), dialer));
        let watch = Arc::new(Watch::default());
        let metrics: Vec<_> = nodes.iter().map(NodeRecord::metrics).collect();
        let watching = {
            let watch = watch.clone();
            tokio::spawn(async move { watch.run(&metrics).await })
        };
        // Whoever waits for it gives up only with the whole run.
        drop(tell.send(load.clone()));
        let mut judged = Judged::default();
        let mut judging = None;
        let mut number = 0;
        let mut judge_with = |judged: &mut Judged, calls: Vec<Call>| {
            let next = std::thread::spawn(move || judge(&calls, Limits::default()));
            add(judged, judging.replace(next));
        };
        while !over.load(Ordering::Relaxed) {
            let calls = round(&load, number, options, || over.load(Ordering::Relaxed)).await;
            judge_with(&mut judged, calls);
            number += 1;
        }
        // One more without harm, until all nodes are at the same entry.
        watch.forget();
        let last = Instant::now() + LEVEL_LIMIT;
        let level = || watch.seen().level(nodes.len());
        let calls = round(&load, number, options, || level() || Instant::now() > last).await;
        judge_with(&mut judged, calls);
        watching.abort();
        add(&mut judged, judging);
        let seen = watch.seen();
        Ok(Lived { judged, notes: load.notes(), level: seen.level(nodes.len()), seen })
    })
}

type Judging = std::thread::JoinHandle<Judged>;

fn add(judged: &mut Judged, judging: Option<Judging>) {
    match judging.map(Judging::join) {
        Some(Ok(round)) => judged.add(round),
        Some(Err(_)) => judged.undecided += 1,
        None => {}
    }
}

/// One round, until it has enough calls or `over` says so: what all clients did.
async fn round(
    load: &Arc<Load>,
    number: u32,
    options: &Options,
    over: impl Fn() -> bool,
) -> Vec<Call> {
    load.clear(number).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..options.clients as u64 {
        let seed = mix(options.seed ^ mix(u64::from(number) << 32 | client));
        clients.spawn(load.clone().client(number, seed, stop.clone()));
    }
    let begun = load.calls.load(Ordering::Relaxed);
    while !over() && load.calls.load(Ordering::Relaxed) - begun < ROUND {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await.into_iter().flatten().collect()
}

fn account(
    options: &Options,
    lived: Lived,
    injected: &[Injected],
    failure: Option<LabError>,
    seconds: f64,
) -> Report {
    let Lived { judged, notes, seen, level } = lived;
    let mut faults: BTreeMap<Kind, FaultReport> = BTreeMap::new();
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    for Injected { kind, from, recovered, .. } in injected {
        let fault = faults.entry(*kind).or_default();
        fault.count += 1;
        let silence = ms(judged.longest_silence(*from, *recovered));
        fault.longest_unavailable_ms = fault.longest_unavailable_ms.max(silence);
        let recovery = ms(Duration::from_nanos(recovered - from));
        fault.longest_recovery_ms = fault.longest_recovery_ms.max(recovery);
    }
    let total = judged.calls();
    let mut problems: Vec<_> = failure.map(|error| error.to_string()).into_iter().collect();
    let kinds = options.kinds();
    let missing = kinds.iter().filter(|kind| !faults.contains_key(kind));
    problems.extend(missing.map(|kind| format!("no fault of kind {kind} happened")));
    let wanting = [
        (
            total < options.least_calls,
            format!("fewer calls than {} were made", options.least_calls),
        ),
        (judged.undecided > 0, format!("{} histories could not be judged", judged.undecided)),
        (!level, "at the end not all nodes had the same entries".to_owned()),
        (seen.compared() == 0, "no state was compared with another".to_owned()),
        (notes.repeated == 0, "no request was repeated".to_owned()),
    ];
    problems.extend(wanting.into_iter().filter(|(so, _)| *so).map(|(_, why)| why));
    let (compared, leader_changes) = (seen.compared(), seen.leader_changes());
    let violations: Vec<_> =
        judged.violations.into_iter().chain(notes.violations).chain(seen.violations).collect();
    Report {
        ok: violations.is_empty() && problems.is_empty(),
        seed: options.seed,
        seconds,
        nodes: options.voters + options.standbys,
        clients: options.clients,
        total,
        per_second: total as f64 / seconds,
        operations: judged.operations,
        unknown: notes.unknown,
        repeated: notes.repeated,
        registers: judged.registers,
        checked: judged.checked,
        check_seconds: judged.took.as_secs_f64(),
        faults,
        leader_changes,
        hashes_compared: compared,
        violations,
        problems,
    }
}

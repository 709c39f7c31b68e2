//! What `cargo xtask bench consensus` runs: three nodes of Holdfast beside three of etcd, on one
//! disk and over loopback, loaded in turns by this one program. It measures, and prints one JSON
//! object. Needs root.

mod cluster;
mod etcd;
mod flushes;
mod heartbeats;
mod holdfast;
mod load;
mod process;
mod takeover;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use self::cluster::Cluster;
use self::etcd::Etcd;
use self::holdfast::Holdfast;

/// How much of everything.
pub(crate) struct Plan {
    /// Where all of it lives; ours alone.
    dir: PathBuf,
    rounds: u32,
    /// How long one load lasts.
    span: Duration,
    /// Leaders that are killed, of each.
    kills: u32,
    /// Simulated workers.
    workers: u32,
    /// One part of it alone.
    only: Option<String>,
}

/// What was measured: lists of numbers by name.
#[derive(Default)]
pub(crate) struct Measured(Map<String, Value>);

impl Measured {
    /// Adds one measurement.
    pub(crate) fn add(&mut self, name: String, value: f64) {
        let list = self.0.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(value.into());
        }
    }
}

fn main() -> ExitCode {
    match plan().and_then(|plan| run(&plan)) {
        Ok(measured) => {
            println!("{}", Value::Object(measured.0));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `DIR ROUNDS SECONDS KILLS WORKERS [PART]`, and whatever cargo adds.
fn plan() -> Result<Plan> {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let mut next = || args.next().context("usage: DIR ROUNDS SECONDS KILLS WORKERS");
    Ok(Plan {
        dir: next()?.into(),
        rounds: next()?.parse()?,
        span: Duration::from_secs(next()?.parse()?),
        kills: next()?.parse()?,
        workers: next()?.parse()?,
        only: next().ok(),
    })
}

fn run(plan: &Plan) -> Result<Measured> {
    process::raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Polled on this thread, which children are bound to: they end when it does.
    runtime.block_on(measure(plan))
}

async fn measure(plan: &Plan) -> Result<Measured> {
    let mut measured = Measured::default();
    let wanted = |part: &str| plan.only.as_deref().is_none_or(|only| only == part);
    say("three nodes of each begin");
    let mut ours = Holdfast::begin(&plan.dir.join("holdfast")).await?;
    let mut theirs = Etcd::begin(&plan.dir.join("etcd")).await?;
    ours.ready().await?;
    theirs.ready().await?;
    if wanted("traffic") {
        traffic::measure(&ours, &theirs, plan, &mut measured).await?;
    }
    if wanted("flushes") {
        flushes::measure(&mut ours, plan, &mut measured).await?;
        flushes::measure(&mut theirs, plan, &mut measured).await?;
    }
    if wanted("leader") {
        for round in 1..=plan.kills {
            takeover::measure(&mut ours, round, &mut measured).await?;
            takeover::measure(&mut theirs, round, &mut measured).await?;
        }
    }
    drop(theirs);
    if wanted("heartbeats") {
        heartbeats::measure(&mut ours, plan, &mut measured).await?;
    }
    Ok(measured)
}

/// Says how far it is.
pub(crate) fn say(text: &str) {
    eprintln!("consensus: {text}");
}

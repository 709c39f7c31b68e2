//! What `cargo xtask bench replicate` runs: it measures, and prints one JSON object. Both pools and
//! both ends of the connection are in this one process. Needs root.

mod content;
mod delta;
mod full;
mod limits;
mod pause;
mod raw;
mod rig;
mod rivals;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use self::rig::Rig;

/// How much of everything.
pub(crate) struct Plan {
    /// Where all of it lives; ours alone.
    dir: PathBuf,
    rounds: u32,
    /// Bytes of a full copy, and of the volume of which 1 % is changed.
    full: u64,
    delta: u64,
    /// One part of it alone.
    only: Option<String>,
}

/// What was measured: lists of numbers by name.
pub(crate) type Measured = Map<String, Value>;

type Part = fn(&Rig, &Plan, &mut Measured) -> Result<()>;

fn main() -> ExitCode {
    // The pause is measured with the freeze helper, which is a program: this one.
    let helper = std::env::args_os().skip(1).skip_while(|arg| arg != rig::HELPER).skip(1);
    if std::env::args_os().nth(1).is_some_and(|arg| arg == rig::HELPER) {
        return holdfast_storage::fsys::helper_main(helper);
    }
    match plan().and_then(|plan| run(&plan)) {
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

/// `DIR ROUNDS FULL-BYTES DELTA-BYTES [PART]`, and whatever cargo adds.
fn plan() -> Result<Plan> {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let mut next = || args.next().context("usage: DIR ROUNDS FULL-BYTES DELTA-BYTES");
    Ok(Plan {
        dir: next()?.into(),
        rounds: next()?.parse()?,
        full: next()?.parse()?,
        delta: next()?.parse()?,
        only: next().ok(),
    })
}

fn run(plan: &Plan) -> Result<Measured> {
    let rig = Rig::new(&plan.dir)?;
    let mut measured = Measured::new();
    // The pause comes first: what was removed a moment ago is still at work on the disk.
    let parts: [(&str, Part); 5] = [
        ("pause", pause::measure),
        ("full", full::measure),
        ("delta", delta::measure),
        ("scale", delta::scale),
        ("torn", delta::torn),
    ];
    limits::measure(&rig, "before", &mut measured)?;
    for (name, part) in parts {
        if plan.only.as_deref().is_none_or(|only| only == name) {
            part(&rig, plan, &mut measured)?;
        }
    }
    limits::measure(&rig, "after", &mut measured)?;
    Ok(measured)
}

/// Says how far it is.
pub(crate) fn say(text: &str) {
    eprintln!("replicate: {text}");
}

//! The commands: one file per group, each with its arguments and what it does.

mod backup;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod container;
pub(crate) mod create;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod lab;
pub(crate) mod logs;
pub(crate) mod node;
pub(crate) mod operation;
mod pack;
pub(crate) mod pool;
pub(crate) mod replica;
pub(crate) mod resize;
pub(crate) mod snapshot;

use std::path::Path;
use std::time::Duration;

use holdfast_cli::client::{ADDRESS_FILE, Freshness, Session, discover};
use holdfast_proto::Dialer;
use serde::Serialize;
use serde_json::json;

use crate::args::{Cli, Command, Global};
use crate::error::CliError;
use crate::output::{Format, error_bytes, show, span};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What every command that talks to the cluster needs.
pub(crate) struct Context {
    session: Session,
    format: Format,
    /// The `--timeout` that was given, if any.
    timeout: Option<Duration>,
}

/// Runs the command; returns the exit status.
pub(crate) async fn run(cli: Cli) -> Result<u8, CliError> {
    let Cli { global, command } = cli;
    if global.stale && !command.only_reads() {
        return Err(CliError::NotStale);
    }
    let context = || Context::new(&global);
    match command {
        Command::Exec(args) => return args.run(&context()?).await,
        Command::Cluster(args) => args.run(&context()?).await,
        Command::Node(args) => args.run(&context()?).await,
        Command::Pool(args) => args.run(&context()?).await,
        Command::Image(args) => args.run(&context()?).await,
        Command::Create(args) => args.run(&context()?).await,
        Command::Ls => container::list(&context()?).await,
        Command::Show(args) => args.show(&context()?).await,
        Command::Start(args) => args.start(&context()?).await,
        Command::Stop(args) => args.stop(&context()?).await,
        Command::Rm(args) => args.run(&context()?).await,
        Command::Resize(args) => args.run(&context()?).await,
        Command::Snapshot(args) => args.run(&context()?).await,
        Command::Clone(args) => args.run(&context()?).await,
        Command::Logs(args) => args.run(&context()?).await,
        Command::Events(args) => args.run(&context()?).await,
        Command::Sync(args) => args.run(&context()?).await,
        Command::Diverged(args) => args.run(&context()?).await,
        Command::Takeover(args) => args.run(&context()?).await,
        Command::Operation(args) => args.run(&context()?).await,
        Command::Doctor(args) => args.run(global.output),
        Command::Lab(args) => args.run(),
        Command::Completion(args) => args.run(),
    }?;
    Ok(0)
}

impl Context {
    fn new(global: &Global) -> Result<Self, CliError> {
        let addresses = match &global.address[..] {
            [] => discover(Path::new(ADDRESS_FILE))?,
            given => given.to_vec(),
        };
        let timeout = global.timeout.map(|t| t.0);
        let session = Session::new(addresses, Dialer::local(), timeout.unwrap_or(DEFAULT_TIMEOUT));
        let session = if global.stale { session.stale() } else { session };
        Ok(Self { session, format: global.output, timeout })
    }

    /// Says on standard error what was read from, where it may be old and each line is an object.
    fn say_freshness(&self) -> Result<(), CliError> {
        match (self.session.freshness(), self.format) {
            (None, _) => Ok(()),
            (Some(fresh), Format::Table) => {
                error_bytes(format!("{}\n", staleness(&fresh)).as_bytes())
            }
            (Some(fresh), Format::Json) => {
                error_bytes(format!("{}\n", json!({ "read": read_from(&fresh) })).as_bytes())
            }
        }
    }

    /// Prints what was read; where it may be old, with what it was read from.
    fn show<T: Serialize>(&self, json: &T, table: impl FnOnce() -> String) -> Result<(), CliError> {
        match self.session.freshness() {
            None => show(self.format, json, table),
            Some(fresh) => {
                let both = json!({ "read": read_from(&fresh), "result": json });
                show(self.format, &both, || format!("{}\n\n{}", table(), staleness(&fresh)))
            }
        }
    }
}

/// What a stale answer was read from, for programs.
fn read_from(fresh: &Freshness) -> serde_json::Value {
    let age_ms = fresh.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    json!({ "node": fresh.node, "applied": fresh.applied, "age_ms": age_ms })
}

/// The same for people.
fn staleness(fresh: &Freshness) -> String {
    let age = match fresh.age {
        Some(age) => {
            let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            format!("at most {} old", span(millis))
        }
        None => "of unknown age: it has not heard from a leader yet".to_owned(),
    };
    format!("read from {} alone: entry {}, {age}", fresh.node, fresh.applied)
}

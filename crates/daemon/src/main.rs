//! `holdfastd`: one node of a Holdfast cluster.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use holdfast_daemon::{Config, DEFAULT_CONFIG, Daemon, DaemonError, Host, Mode};
use holdfast_types::Code;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

/// Most of what a busy node allocates is freed by another thread, where the C library's allocator spends
/// a fifth of all processor time and gives memory back only to ask for it again.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is logged, such as `info` or `holdfast_daemon=debug`.
const LOG_VARIABLE: &str = "HOLDFAST_LOG";

/// Consensus tells of its inner life at `info`; what matters of it is logged by us.
const LOG_DEFAULT: &str = "info,openraft=warn";

/// A node is mostly idle: two threads serve it, and what blocks has its own.
const WORKERS: usize = 2;
const MAX_BLOCKING: usize = 128;

/// One node of a Holdfast cluster.
#[derive(Parser)]
#[command(name = "holdfastd", version)]
struct Args {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Check the configuration and the machine, and change nothing.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Go on without a majority of the voters, which is lost for good: shows what may be lost, and
    /// asks. The daemon must not run.
    Recover {
        /// Only show what this node's log has, to find the survivor whose log ends latest.
        #[arg(long)]
        show: bool,
        /// Do not ask: the machines of the other voters are off for good.
        #[arg(long, conflicts_with = "show")]
        yes_the_others_are_gone: bool,
    },
    /// Look at this machine, and say what is wrong with it and what to do. Changes nothing; fails if
    /// there is a problem. The daemon may run or not.
    Doctor {
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
}

/// What clap exits with itself.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            eprintln!("holdfastd: {}: {}", Code::InvalidArgument, sentence(&error));
            return ExitCode::from(WRONG_USE);
        }
        // Help or the version was asked for. There is nobody to tell if it cannot be printed.
        Err(error) => {
            drop(error.print());
            return ExitCode::SUCCESS;
        }
    };
    let filter =
        EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let ended = match args.command {
        Some(Command::Doctor { json }) => examine(&args.config, json),
        Some(Command::Recover { show, yes_the_others_are_gone }) => {
            let mode = match (show, yes_the_others_are_gone) {
                (true, _) => Mode::Show,
                (false, true) => Mode::Confirmed,
                (false, false) => Mode::Ask,
            };
            begin(&args, Some(mode)).map(|()| ExitCode::SUCCESS)
        }
        None => begin(&args, None).map(|()| ExitCode::SUCCESS),
    };
    match ended {
        Ok(status) => status,
        Err(error) => {
            eprintln!("holdfastd: {}: {error}", error.code());
            ExitCode::FAILURE
        }
    }
}

/// What is wrong with the command line, in one line: the first paragraph of what clap says. The
/// others are tips and the usage.
fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Shows how the machine is. There is nobody to tell if that cannot be printed.
fn examine(config: &Path, json: bool) -> Result<ExitCode, DaemonError> {
    let diagnosis = holdfast_daemon::examine(config)?;
    let mut out = std::io::stdout();
    drop(match json {
        true => serde_json::to_writer_pretty(&mut out, &diagnosis)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out)),
        false => writeln!(out, "{diagnosis}"),
    });
    Ok(if diagnosis.has_problem() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Is the daemon, or recovers what it left.
fn begin(args: &Args, recovery: Option<Mode>) -> Result<(), DaemonError> {
    never_dump()?;
    let config = Config::load(&args.config)?;
    if !rustix::process::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    let host = Host::new(config.clone());
    if args.check {
        return Ok(holdfast_daemon::Machine::check(&host)?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MAX_BLOCKING)
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Disk { path: "/proc/self/task".into(), source })?;
    let ended = match recovery {
        None => runtime.block_on(run(config, host)),
        Some(mode) => {
            let mut out = std::io::stdout();
            runtime.block_on(holdfast_daemon::recover(&config, mode, &mut out, typed))
        }
    };
    // A thread that waits for the kernel must not keep the process.
    runtime.shutdown_background();
    ended
}

/// Its memory has the node's keys: no core of it is written, and nobody but root looks into it. What it
/// executes is not bound by that.
fn never_dump() -> Result<(), DaemonError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|source| DaemonError::Disk { path: "/proc/self".into(), source: source.into() })
}

/// A line that a person types; nothing if nobody is there.
fn typed() -> Option<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).ok().filter(|read| *read > 0).map(|_| line)
}

async fn run(config: Config, host: Host) -> Result<(), DaemonError> {
    let mut stop = Box::pin(asked_to_stop()?);
    let mut daemon = tokio::select! {
        daemon = Daemon::start(config, Arc::new(host)) => daemon?,
        name = &mut stop => {
            info!(signal = name, "stopped while starting");
            return Ok(());
        }
    };
    let ended = tokio::select! {
        error = daemon.failed() => Err(error),
        name = &mut stop => {
            info!(signal = name, "stopping");
            Ok(())
        }
    };
    daemon.stop().await;
    ended
}

/// Returns when a signal asks the process to end.
fn asked_to_stop() -> Result<impl Future<Output = &'static str>, DaemonError> {
    let listen = |kind| {
        signal(kind).map_err(|source| DaemonError::Disk { path: "/proc/self/fd".into(), source })
    };
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    })
}

//! The command line.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use holdfast_lab::{
    DEFAULT_LAB, Lab, LabError, NodeStatus, Pace, Part, PartStatus, Power, Programs, Role,
    UpOptions, check_machine,
};
use holdfast_types::ByteSize;
use rehearsal::Rehearsal;

mod rehearsal;

/// A whole Holdfast cluster on this machine, with faults on demand.
#[derive(Debug, Parser)]
#[command(name = "holdfast-lab", version)]
pub(crate) struct Cli {
    /// Which lab.
    #[arg(long, global = true, default_value = DEFAULT_LAB)]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a cluster of nodes on this machine.
    Up(Up),
    /// Remove the lab, its data and every trace of it.
    Down {
        /// Where its data is, if it was not made in the default place and its record is lost.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Show the nodes as this machine sees them.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Cut a node's power.
    Kill {
        /// The node.
        node: String,
    },
    /// Give a node its power back.
    Poweron {
        /// The node.
        node: String,
    },
    /// Take a node's network link down.
    Cut {
        /// The node.
        node: String,
        /// Drop only what it would receive from this node.
        #[arg(long)]
        from: Option<String>,
    },
    /// Undo every cut of a node.
    Heal {
        /// The node.
        node: String,
    },
    /// Stop a node's daemon or guardian with SIGSTOP.
    Pause(PartArgs),
    /// Continue what was paused.
    Resume(PartArgs),
    /// Kill a node's daemon or guardian; it is started again.
    Crash(PartArgs),
    /// Lose a machine, and show what becomes of its container.
    Quickstart(Rehearsal),
    /// Watch what runs where, as this machine sees it, and judge whether anything ran twice.
    Observe {
        /// For how long.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Make the namespaces of a node.
    #[command(hide = true)]
    NodeBoot {
        /// The node's plan.
        plan: PathBuf,
    },
    /// Be the init of a node.
    #[command(hide = true)]
    NodeInit {
        /// The node's plan.
        plan: PathBuf,
    },
    /// Be what the node dies with.
    #[command(hide = true)]
    NodeFuse,
    /// Become a service of a node.
    #[command(hide = true)]
    NodeExec {
        /// Where it is to live.
        #[arg(long)]
        cgroup: String,
        /// How unlikely it is to be killed for memory.
        #[arg(long, allow_hyphen_values = true)]
        oom_score_adj: i16,
        /// The service.
        #[arg(last = true)]
        argv: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
struct Up {
    /// Voters: 1, 3, 5 or 7.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Nodes that have the log, and a vote only when one of the voters is lost.
    #[arg(long, default_value_t = 0)]
    standbys: usize,
    /// Nodes that take no part in Raft.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Where the nodes keep their data [default: /var/lib/holdfast-NAME].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Size of each node's pool.
    #[arg(long, default_value = "4GiB")]
    pool_size: ByteSize,
    /// A blank disk for each node's pool, which becomes an LVM volume group; without any the pools
    /// are files on XFS.
    #[arg(long = "device", value_name = "DEVICE", conflicts_with = "pool_size")]
    devices: Vec<PathBuf>,
    /// This machine is so many times slower than usual: the lease and all waits get longer by that.
    #[arg(long, default_value_t, value_name = "FACTOR")]
    slow: Pace,
}

#[derive(Debug, Args)]
struct PartArgs {
    /// The node.
    node: String,
    /// Which of its parts.
    #[arg(long, value_enum, default_value = "daemon")]
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Daemon,
    Guardian,
    Both,
}

impl What {
    fn parts(self) -> &'static [Part] {
        match self {
            Self::Daemon => &[Part::Daemon],
            Self::Guardian => &[Part::Guardian],
            Self::Both => &[Part::Daemon, Part::Guardian],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(crate) fn run(cli: Cli) -> Result<ExitCode, LabError> {
    let open = || Lab::open(&cli.name);
    match cli.command {
        Command::Up(up) => bring_up(&cli.name, up)?,
        Command::Down { dir } => Lab::down(&cli.name, dir)?,
        Command::Status { output } => show(&open()?.status()?, output),
        Command::Kill { node } => drop(open()?.kill(&node)?),
        Command::Poweron { node } => open()?.power_on(&node)?,
        Command::Cut { node, from: None } => open()?.cut(&node)?,
        Command::Cut { node, from: Some(from) } => open()?.cut_from(&node, &from)?,
        Command::Heal { node } => open()?.heal(&node)?,
        Command::Pause(args) => each_part(&args, |p| open()?.pause(&args.node, p))?,
        Command::Resume(args) => each_part(&args, |p| open()?.resume(&args.node, p))?,
        Command::Crash(args) => each_part(&args, |p| open()?.crash(&args.node, p))?,
        Command::Quickstart(args) => return rehearsal::run(&cli.name, &args),
        Command::Observe { seconds } => rehearsal::observe(&open()?, seconds)?,
        Command::NodeBoot { plan } => holdfast_lab::node::boot(&plan)?,
        Command::NodeInit { plan } => holdfast_lab::node::init(&plan)?,
        Command::NodeFuse => holdfast_lab::node::fuse(),
        Command::NodeExec { cgroup, oom_score_adj, argv } => {
            holdfast_lab::node::exec(&cgroup, oom_score_adj, &argv)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn bring_up(name: &str, up: Up) -> Result<(), LabError> {
    check_machine()?;
    let options = UpOptions {
        dir: up.dir,
        voters: up.nodes,
        standbys: up.standbys,
        workers: up.workers,
        pool_size: up.pool_size,
        devices: up.devices,
        pace: up.slow,
        ..UpOptions::new(name, Programs::find()?)
    };
    let lab = Lab::up(&options)?;
    if let Err(error) = lab.form_cluster() {
        eprintln!(
            "the lab stays up for a look at {}; then: holdfast lab down",
            lab.layout().dir().display()
        );
        return Err(error);
    }
    show(&lab.status()?, Output::Table);
    Ok(())
}

fn each_part(
    args: &PartArgs,
    mut act: impl FnMut(Part) -> Result<(), LabError>,
) -> Result<(), LabError> {
    args.what.parts().iter().try_for_each(|part| act(*part))
}

fn show(nodes: &[NodeStatus], output: Output) {
    if output == Output::Json {
        println!("{}", serde_json::json!({ "nodes": nodes }));
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NODE", "ROLE", "ADDRESS", "POWER", "LINK", "DAEMON", "GUARDIAN"]);
    for status in nodes {
        let node = &status.node;
        table.add_row([
            node.name.clone(),
            match node.role {
                Role::Voter => "voter".into(),
                Role::Standby => "standby".into(),
                Role::Worker => "worker".into(),
            },
            node.address.to_string(),
            if node.power == Power::On { "on".into() } else { "off".into() },
            if node.linked { "up".into() } else { "cut".into() },
            part(status.daemon),
            part(status.guardian),
        ]);
    }
    println!("{table}");
}

fn part(status: PartStatus) -> String {
    match status {
        PartStatus::Down => "down".into(),
        PartStatus::Running { pid } => format!("running ({pid})"),
        PartStatus::Paused { pid } => format!("paused ({pid})"),
    }
}

/// The error and all its causes, on one line.
pub(crate) fn one_line(error: &LabError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

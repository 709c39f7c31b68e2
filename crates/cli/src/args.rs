//! The command line.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};
use holdfast_proto::Address;

use crate::commands::{
    cluster, completion, container, create, doctor, events, exec, image, lab, logs, node,
    operation, pool, replica, resize, snapshot,
};
use crate::error::EXIT_STATUSES;
use crate::output::Format;
use crate::values::DurationArg;

/// The client of a Holdfast cluster: containers that outlive their machines
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXIT_STATUSES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The command line `args`, the program's name first. What follows `lab` is the lab's own, also
    /// where it looks like one of our options.
    pub(crate) fn read(mut args: Vec<OsString>) -> Result<Self, clap::Error> {
        let own = match args.get(1) {
            Some(first) if first == "lab" => args.split_off(2),
            _ => Vec::new(),
        };
        let mut cli = Self::try_parse_from(args)?;
        if let Command::Lab(lab) = &mut cli.command {
            lab.args.extend(own);
        }
        Ok(cli)
    }
}

/// What every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the cluster is: unix:/path or host:port, several by commas, tried in turn
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_ADDRESS",
        value_delimiter = ',',
        value_name = "ADDR"
    )]
    pub(crate) address: Vec<Address>,
    /// How long to try to get an answer, or to wait in `sync` [default: 10s; `sync` 60s]
    #[arg(long, global = true, value_name = "DURATION")]
    pub(crate) timeout: Option<DurationArg>,
    /// Show what the node that is asked has, with a quorum or without, and how old that may be
    #[arg(long, global = true)]
    pub(crate) stale: bool,
    /// How to print the result
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// The machines of the cluster
    #[command(subcommand)]
    Node(node::Command),
    /// What the machines keep volumes in
    #[command(subcommand)]
    Pool(pool::Command),
    /// What containers are made from
    #[command(subcommand)]
    Image(image::Command),
    /// Create a container and start it
    Create(Box<create::Create>),
    /// List the containers
    Ls,
    /// Show everything about a container
    Show(container::Named),
    /// Start a container
    Start(container::Change),
    /// Stop a container
    Stop(container::Change),
    /// Delete a container and all its copies
    Rm(container::Remove),
    /// Make a container's disk larger
    Resize(resize::Resize),
    /// Run a command in a container
    Exec(exec::Exec),
    /// Points of a container's disk that are kept by name
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Create a container that begins as a snapshot of another
    Clone(snapshot::Clone),
    /// Print the end of a container's console log
    Logs(logs::Logs),
    /// Print what happened, oldest first
    Events(events::Events),
    /// Wait until a replica holds everything written so far
    Sync(replica::Sync),
    /// What lost nodes wrote and never shipped
    #[command(subcommand)]
    Diverged(replica::DivergedCommand),
    /// Decide a takeover that is held for a person
    #[command(subcommand)]
    Takeover(replica::TakeoverCommand),
    /// Long-running work
    #[command(subcommand)]
    Operation(operation::Command),
    /// Look at this machine, and say what keeps it from being a node and what to do; needs root
    Doctor(doctor::Doctor),
    /// A whole cluster on this machine, to try things and to break them (see holdfast lab --help)
    Lab(lab::Lab),
    /// Print a completion script for a shell
    Completion(completion::Completion),
}

impl Command {
    /// Whether it only reads what every node has, so that it may be answered by any alone.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Self::Cluster(command) => matches!(command, cluster::Command::Status),
            Self::Node(command) => {
                matches!(command, node::Command::Ls | node::Command::Show { .. })
            }
            Self::Image(command) => matches!(command, image::Command::Ls),
            Self::Snapshot(command) => matches!(command, snapshot::Command::Ls { .. }),
            Self::Operation(operation::Command::Show { wait, .. }) => wait.is_none(),
            Self::Ls | Self::Show(_) | Self::Events(_) | Self::Diverged(_) => true,
            Self::Pool(_) | Self::Create(_) | Self::Start(_) | Self::Stop(_) | Self::Rm(_) => false,
            Self::Resize(_) | Self::Exec(_) | Self::Clone(_) | Self::Logs(_) | Self::Sync(_) => {
                false
            }
            Self::Takeover(_) | Self::Doctor(_) | Self::Lab(_) | Self::Completion(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_come_as_a_list() {
        let cli = Cli::try_parse_from(["holdfast", "ls", "--address", "unix:/a,h:1"]).unwrap();
        assert_eq!(cli.global.address.len(), 2);
    }

    #[test]
    fn what_follows_the_dashes_is_the_commands_own() {
        let line = "holdfast exec web -- sh -c exit -o json --timeout";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Exec(exec) = cli.command else { panic!("not exec") };
        assert_eq!(exec.command, ["sh", "-c", "exit", "-o", "json", "--timeout"]);
        assert_eq!(cli.global.output, Format::Table);
    }

    #[test]
    fn the_labs_arguments_are_passed_on_as_they_are() {
        for line in ["holdfast lab up --nodes 3", "holdfast lab -o json", "holdfast lab --help"] {
            let cli = Cli::read(line.split(' ').map(OsString::from).collect()).unwrap();
            let Command::Lab(lab) = cli.command else { panic!("not lab") };
            assert_eq!(lab.args, line.split(' ').skip(2).collect::<Vec<_>>());
        }
    }
}

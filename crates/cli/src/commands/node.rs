//! `holdfast node`: the machines.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use holdfast_proto::{Address, v1};
use holdfast_types::{LabelKey, NodeName, Revision};
use serde_json::json;

use super::Context;
use crate::error::CliError;
use crate::output::show;
use crate::values::{DurationArg, LabelArg};
use crate::view::{NodeView, role_word};

/// More than any token has.
const TOKEN_BYTES: u64 = 4_096;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the nodes
    Ls,
    /// Show everything about a node
    Show {
        /// Which node
        name: NodeName,
    },
    /// Give a node labels, or take some off it
    #[command(
        after_help = "The label `domain` names what fails as one, such as a rack or a building:\n  holdfast node label n1 domain=rack-a\n  holdfast node label n1 --remove domain"
    )]
    Label {
        /// Which node
        name: NodeName,
        /// KEY=VALUE; may be repeated
        #[arg(value_name = "KEY=VALUE", required_unless_present = "remove")]
        labels: Vec<LabelArg>,
        /// A key; may be repeated
        #[arg(long, value_name = "KEY")]
        remove: Vec<LabelKey>,
        /// Only if the node is of this version, as `node show` has it
        #[arg(long, value_name = "VERSION")]
        if_version: Option<u64>,
    },
    /// Make a token that lets one machine into the cluster
    #[command(
        after_help = "Whoever has the token can join once with it, so it is a secret until then:\n  holdfast node token | ssh n2 holdfast node join --peer 10.0.0.1:7443"
    )]
    Token {
        /// How long it is good, 30 days at most
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        lifetime: DurationArg,
    },
    /// Make the local node join an existing cluster
    #[command(
        after_help = "Only through the local socket of the node that is to join. The token is read from a file, or from standard input, so that no list of processes shows it:\n  ssh n1 holdfast node token | holdfast node join --peer 10.0.0.1:7443 --peer 10.0.0.2:7443"
    )]
    Join {
        /// The file with the token that `holdfast node token` has printed; - is standard input
        #[arg(long, value_name = "FILE", default_value = "-")]
        token_file: PathBuf,
        /// A member's host:port; may be repeated, any one that answers will do
        #[arg(long = "peer", required = true, value_name = "HOST:PORT")]
        peers: Vec<Address>,
        /// What the node is to be in Raft [default: what the cluster lacks]
        #[arg(long, value_enum)]
        role: Option<Role>,
    },
    /// Let a node go for good
    #[command(
        after_help = "Refused while only this node has something, or when without it no majority of voters would answer.\nA machine that was wiped joins anew after this; its old id never comes back:\n  holdfast node rm n2"
    )]
    Rm {
        /// Which node
        name: NodeName,
        /// Also if it is lost and has what no other node has: replicas, images, snapshots, and what
        /// it wrote and never shipped
        #[arg(long)]
        force: bool,
    },
}

/// A node's role in Raft.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    /// Votes, also where fewer voters would do; there are at most 7
    Voter,
    /// Learns, and is promoted when a voter is lost
    Standby,
    /// Takes no part in Raft
    Worker,
    /// Votes, and neither stores nor runs anything: for two nodes and a small machine
    Witness,
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Ls => {
                let nodes = context.session.nodes().await?;
                let views: Vec<_> = nodes.into_iter().map(NodeView::from).collect();
                context.show(&views, || NodeView::table(&views))
            }
            Self::Show { name } => {
                let view = NodeView::from(context.session.node(&name).await?);
                context.show(&view, || view.pairs())
            }
            Self::Label { name, labels, remove, if_version } => {
                let set = labels.into_iter().map(|label| (label.key, label.value)).collect();
                let expect = if_version.map(Revision);
                let version = context.session.set_labels(&name, &set, &remove, expect).await?;
                let json = json!({ "name": name, "revision": version.0 });
                show(context.format, &json, || format!("node {name} is of version {version}"))
            }
            Self::Token { lifetime } => {
                let made = context.session.join_token(Some(lifetime.0)).await?;
                let json = json!({
                    "token": made.token.to_string(),
                    "expires_ms": made.expires.0,
                    "peers": made.peers,
                });
                // The token alone, so that it can be piped.
                show(context.format, &json, || made.token.to_string())
            }
            Self::Join { token_file, peers, role } => {
                let token = read_token(&token_file)?;
                let peers = peers.iter().map(ToString::to_string).collect();
                let role = role.map_or(v1::NodeRole::Unspecified, v1::NodeRole::from);
                let joined = context.session.join(peers, role, token).await?;
                let role = role_word(joined.role());
                let (cluster, node) = (&joined.cluster_id, joined.node_id);
                let json = json!({ "cluster_id": cluster, "node_id": node, "role": role });
                show(context.format, &json, || {
                    format!("cluster {cluster}: joined as {role}, node {node}")
                })
            }
            Self::Rm { name, force } => {
                let removed = context.session.remove_node(&name, force).await?;
                let json = json!({ "name": name, "successor": removed.successor });
                show(context.format, &json, || match removed.successor.as_str() {
                    "" => format!("node {name}: removed"),
                    next => format!("node {name}: removed; {next} votes in its place"),
                })
            }
        }
    }
}

/// What the file has, or standard input.
fn read_token(file: &Path) -> Result<String, CliError> {
    let what = match file == Path::new("-") {
        true => "the join token from standard input".to_owned(),
        false => format!("the join token in {}", file.display()),
    };
    let mut token = String::new();
    let read = match file == Path::new("-") {
        true if std::io::stdin().is_terminal() => {
            eprint!("Join token: ");
            std::io::stdin().read_line(&mut token).map(drop)
        }
        true => std::io::stdin().take(TOKEN_BYTES).read_to_string(&mut token).map(drop),
        false => File::open(file)
            .and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut token))
            .map(drop),
    };
    read.map_err(|source| CliError::Read { what, source })?;
    Ok(token.trim().to_owned())
}

impl From<Role> for v1::NodeRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Voter => Self::Voter,
            Role::Standby => Self::Standby,
            Role::Worker => Self::Worker,
            Role::Witness => Self::Witness,
        }
    }
}

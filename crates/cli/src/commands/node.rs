//! `holdfast node`: the machines.

use clap::{Subcommand, ValueEnum};
use holdfast_proto::{Address, v1};
use holdfast_types::{LabelKey, NodeName, Revision};
use serde_json::json;

use super::Context;
use crate::error::CliError;
use crate::output::show;
use crate::values::LabelArg;
use crate::view::{NodeView, role_word};

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
    /// Make the local node join an existing cluster
    #[command(
        after_help = "Only through the local socket of the node that is to join:\n  holdfast node join --peer 10.0.0.1:7443 --peer 10.0.0.2:7443"
    )]
    Join {
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
            Self::Join { peers, role } => {
                let peers = peers.iter().map(ToString::to_string).collect();
                let role = role.map_or(v1::NodeRole::Unspecified, v1::NodeRole::from);
                let joined = context.session.join(peers, role).await?;
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

//! `holdfast node`: the machines.

use clap::{Subcommand, ValueEnum};
use holdfast_proto::{Address, v1};
use serde_json::json;

use super::Context;
use crate::error::CliError;
use crate::output::show;
use crate::view::{NodeView, role_word};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the nodes
    Ls,
    /// Make the local node join an existing cluster
    #[command(
        after_help = "Only through the local socket of the node that is to join:\n  holdfast node join --peer 10.0.0.1:7443 --peer 10.0.0.2:7443"
    )]
    Join {
        /// A member's host:port; may be repeated, any one that answers will do
        #[arg(long = "peer", required = true, value_name = "HOST:PORT")]
        peers: Vec<Address>,
        /// What the node is to be in Raft
        #[arg(long, value_enum, default_value_t)]
        role: Role,
    },
}

/// A node's role in Raft.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Role {
    /// Votes; there are 3, 5 or 7
    #[default]
    Voter,
    /// Learns, and is promoted when a voter is lost
    Standby,
    /// Takes no part in Raft
    Worker,
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Ls => {
                let nodes = context.session.nodes().await?;
                let views: Vec<_> = nodes.into_iter().map(NodeView::from).collect();
                show(context.format, &views, || NodeView::table(&views))
            }
            Self::Join { peers, role } => {
                let peers = peers.iter().map(ToString::to_string).collect();
                let role = v1::NodeRole::from(role);
                let joined = context.session.join(peers, role).await?;
                let json = json!({ "cluster_id": joined.cluster_id, "node_id": joined.node_id });
                show(context.format, &json, || {
                    let role = role_word(role);
                    format!(
                        "cluster {}: joined as {role}, node {}",
                        joined.cluster_id, joined.node_id
                    )
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
        }
    }
}

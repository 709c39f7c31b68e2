//! `holdfast cluster`: make one, look at it.

use clap::Subcommand;
use holdfast_proto::v1;
use serde_json::json;

use super::Context;
use crate::error::CliError;
use crate::output::show;
use crate::values::DurationArg;
use crate::view::StatusView;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The leader, the nodes, and what needs attention
    #[command(after_help = "Example:\n  holdfast cluster status -o json")]
    Status,
    /// Make a new cluster, with the local node as its first voter
    #[command(
        after_help = "Only through the local socket:\n  holdfast --address unix:/run/holdfast/holdfastd.sock cluster init"
    )]
    Init {
        /// How long a node may run its protected containers without hearing from the leader, 1s to
        /// 60s: a longer lease survives longer pauses, a shorter one fails over sooner
        #[arg(long, value_name = "DURATION")]
        lease: Option<DurationArg>,
    },
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Status => {
                let view = StatusView::from(context.session.status().await?);
                show(context.format, &view, || view.table())
            }
            Self::Init { lease } => {
                let lease = lease.map(|lease| v1::LeaseSettings {
                    lease_ms: lease.millis(),
                    ..Default::default()
                });
                let made = context.session.init(lease).await?;
                let json = json!({ "cluster_id": made.cluster_id, "node_id": made.node_id });
                show(context.format, &json, || {
                    format!("cluster {}: made, this is node {}", made.cluster_id, made.node_id)
                })
            }
        }
    }
}

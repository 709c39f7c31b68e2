//! `holdfast cluster`: make one, look at it, and what is needed on a bad night.

use std::ffi::OsString;

use clap::Subcommand;
use holdfast_proto::v1;
use serde_json::json;

use super::{Context, backup, lab};
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
    /// Write everything that the cluster has agreed on to a file, while it works
    #[command(
        after_help = "Examples:\n  holdfast cluster backup /var/backups/holdfast\n  holdfast cluster backup --verify /var/backups/holdfast\n  holdfast cluster backup - | ssh vault 'cat > holdfast.backup'"
    )]
    Backup(backup::Take),
    /// Make a new cluster of a backup, with the local node as its first voter
    #[command(
        after_help = "Only through the local socket, on a machine that is in no cluster:\n  holdfast --address unix:/run/holdfast/holdfastd.sock cluster restore FILE"
    )]
    Restore(backup::Restore),
    /// Replace the cluster's certificate authority, with the cluster up
    #[command(
        name = "rotate-ca",
        after_help = "Do this when a member was stolen: it had the authority's key. Remove it first (holdfast node rm).\nEach step waits until every node has caught up; holdfast cluster status says which it waits for."
    )]
    RotateCa,
    /// Go on without a majority of the voters, which is lost for good (see holdfastd recover --help)
    #[command(disable_help_flag = true)]
    Recover {
        /// What holdfastd recover is given
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Status => {
                let view = StatusView::from(context.session.status().await?);
                context.show(&view, || view.table())
            }
            Self::RotateCa => {
                context.session.rotate_authority().await?;
                show(context.format, &json!({ "begun": true }), || {
                    "the authority is being replaced: holdfast cluster status says how far it is"
                        .into()
                })
            }
            Self::Backup(args) => args.run(context).await,
            Self::Restore(args) => args.run(context).await,
            Self::Recover { args } => {
                lab::become_program("holdfastd", std::iter::once("recover".into()).chain(args))
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

//! `Init`: this node makes a cluster.

use std::sync::Arc;

use holdfast_core::{Command, Entry, InitCluster, NewNode, NodeRole};
use holdfast_raft::RaftNode;
use holdfast_trust::Authority;
use holdfast_types::{CidrV4, ClusterId, Code, LeaseSettings, NodeId, RequestId};
use tracing::info;

use crate::certify;
use crate::clock;
use crate::fault::Fault;
use crate::identity::Identity;
use crate::machine::Duties;
use crate::startup::Shell;

/// The founder's id (see `holdfast_core::InitCluster`).
const FOUNDER: NodeId = NodeId(1);

/// The overlay's address range.
const OVERLAY: &str = "10.77.0.0/16";

/// Makes a cluster with this node as its first voter. What fails before the identity is written
/// leaves nothing behind but an empty pool that has the cluster's id, and that any other cluster may
/// have: no other node has heard of this one.
pub(crate) async fn found(shell: &Arc<Shell>, lease: LeaseSettings) -> Result<Identity, Fault> {
    if shell.only_votes() {
        return Err(crate::join::no_pool_driver());
    }
    lease.check().map_err(|e| Fault::new(e.code(), e.to_string()))?;
    let config = shell.config();
    let identity = Identity {
        cluster: ClusterId::generate(),
        node: FOUNDER,
        name: config.name.clone(),
        role: NodeRole::Voter,
        address: config.advertise.clone(),
        peers: Vec::new(),
    };
    let (authority, bundle) = certify::found(&identity)?;
    shell.keyring().enforce(bundle)?;
    let (duties, hint) = shell.begin(&identity).inspect_err(|_| shell.forget_keys())?;
    let made = make(shell, &identity, lease, &authority, &*duties).await;
    let raft = match made {
        Ok(raft) => raft,
        Err(fault) => {
            duties.stop().await;
            shell.discard();
            return Err(fault);
        }
    };
    info!(cluster = %identity.cluster, "cluster made");
    shell.enter(identity.clone(), Some(raft), duties, hint);
    Ok(identity)
}

async fn make(
    shell: &Shell,
    identity: &Identity,
    lease: LeaseSettings,
    authority: &Authority,
    duties: &dyn Duties,
) -> Result<RaftNode, Fault> {
    duties.run().await?;
    let raft = shell.open_raft(identity).await?;
    let begun = async {
        raft.initialize(&identity.address).await?;
        let made = Command::InitCluster(first_command(shell, identity, lease)?);
        for command in [made, certify::first(authority)] {
            let entry = Entry { request: RequestId::generate(), at: clock::wall(), command };
            raft.propose(entry).await??;
        }
        shell.keyring().keep()?;
        Ok::<(), Fault>(identity.write(shell.data().path())?)
    };
    match begun.await {
        Ok(()) => Ok(raft),
        Err(fault) => {
            raft.shutdown().await?;
            Err(fault)
        }
    }
}

fn first_command(
    shell: &Shell,
    identity: &Identity,
    lease: LeaseSettings,
) -> Result<InitCluster, Fault> {
    let overlay: CidrV4 = OVERLAY
        .parse()
        .map_err(|e: holdfast_types::NetError| Fault::new(Code::Internal, e.to_string()))?;
    Ok(InitCluster {
        cluster: identity.cluster,
        lease,
        overlay,
        founder: NewNode {
            name: identity.name.clone(),
            address: identity.address.clone(),
            underlay: shell.config().network.underlay,
            role: identity.role,
            asked: None,
        },
    })
}

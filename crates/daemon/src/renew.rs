//! Keeps this node's certificate good: a new key, certified anew, well before the old one ends, and at once
//! when the authorities change. What fails is tried again; the old certificate stays until then.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::State;
use holdfast_proto::internal::RenewRequest;
use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_raft::RaftNode;
use holdfast_trust::{Bundle, SecretKey};
use tracing::{info, warn};

use crate::certify::{self, Issued};
use crate::channels::There;
use crate::fault::Fault;
use crate::forward::Call;
use crate::keyring::{Keyring, Ring};
use crate::member::Member;

/// Between two looks at the clock, which may jump.
const LOOK: Duration = Duration::from_secs(60);

/// Between two renewals at least.
const PAUSE: Duration = Duration::from_secs(5);

/// Between two at what the leader has said.
const GLANCE: Duration = Duration::from_secs(1);

/// After a failure.
const RETRY: Duration = Duration::from_secs(30);

/// Renews for as long as it is run.
pub(crate) async fn follow(member: Arc<Member>, keyring: Keyring) {
    loop {
        if let Some(raft) = &member.raft {
            until_changed(raft, &keyring).await;
        } else {
            until_asked(&keyring).await;
        }
        match renewed(&member, &keyring).await {
            Ok(()) => {
                info!("this node has a new certificate");
                // However the clocks stand, and until a heartbeat has said so.
                tokio::time::sleep(PAUSE).await;
            }
            Err(fault) => {
                warn!(code = %fault.code, error = %fault, "the certificate is not renewed yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn renewed(member: &Arc<Member>, keyring: &Keyring) -> Result<(), Fault> {
    let bundle = match &member.raft {
        Some(raft) => certify::own(&raft.state(), member.node())?,
        None => ask(member).await?,
    };
    let keyring = keyring.clone();
    let writing = tokio::task::spawn_blocking(move || keyring.replace(bundle));
    let broken = |e| Fault::new(holdfast_types::Code::Internal, format!("nobody wrote it: {e}"));
    Ok(writing.await.map_err(broken)??)
}

/// Returns when it is time, or when the leader wants others believed than this node's certificate says.
async fn until_asked(keyring: &Keyring) {
    while !keyring.standing().is_behind() && !is_due(keyring.ring().as_deref()) {
        tokio::time::sleep(GLANCE).await;
    }
}

/// Returns when it is time, or when others are believed than this node's certificate says.
async fn until_changed(raft: &RaftNode, keyring: &Keyring) {
    let mut applied = raft.watch();
    loop {
        let is_other = |state: &State| {
            keyring.ring().is_none_or(|ring| !is_of(&ring.bundle, state)) && has_me(state, raft)
        };
        if is_due(keyring.ring().as_deref()) {
            return;
        }
        // After a restart the state may be older than the keys, which must not go back with it: what is
        // believed changes by what a quorum has, no other.
        if is_other(&applied.borrow_and_update().state)
            && raft.read_index().await.is_ok()
            && is_other(&raft.state())
        {
            return;
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() {
                // The node is stopping.
                std::future::pending::<()>().await;
            },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Whether the state says who this node is.
fn has_me(state: &State, raft: &RaftNode) -> bool {
    !state.trust.authorities.is_empty() && state.nodes.contains_key(&raft.id())
}

/// Whether it believes whom the cluster believes, and is certified by who certifies.
fn is_of(bundle: &Bundle, state: &State) -> bool {
    let believed = bundle.authorities.iter().map(|authority| authority.der());
    state.trust.authorities.iter().map(|kept| &kept.certificate[..]).eq(believed)
}

fn is_due(ring: Option<&Ring>) -> bool {
    let validity = ring.and_then(|ring| ring.bundle.certificate.validity().ok());
    let now_s = certify::now_s();
    // One that is not good yet was made by a clock that was wrong.
    validity.is_none_or(|validity| validity.renew_at_s() <= now_s || now_s < validity.from_s)
}

/// Asks the leader.
async fn ask(member: &Arc<Member>) -> Result<Bundle, Fault> {
    let key = SecretKey::generate()?;
    let request = RenewRequest {
        cluster_id: member.cluster().to_bytes().into(),
        node_id: member.node().0,
        signing_request: key.signing_request()?.into(),
    };
    let call = Call::begin(Duration::ZERO);
    let here = |_| async { Err(Fault::no_quorum()) };
    let there = |there: There| {
        let request = call.onward(request.clone());
        async move { LeaderServiceClient::new(there.relay).renew(request).await }
    };
    let answer = member.at_leader(&call, here, there).await?;
    let authorities = answer.authorities.into_iter().map(Into::into).collect();
    Issued { certificate: answer.certificate.into(), authorities }.bundle(key)
}

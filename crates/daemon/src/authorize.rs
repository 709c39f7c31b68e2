//! Who may call what: one table, and nobody may call what is not in it.
//!
//! ```text
//! connection ─▶ Peer: a principal, or nobody ─▶ Caller: what the state says of it now ─▶ Right ─▶ method
//! ```
//! A certificate says who somebody is; what they are now is looked up for each call, so a node that was
//! removed has no rights from the entry on that says so, however long its certificate is good. A worker has
//! no state, and goes by what its view and the certificate say.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt, ready};
use holdfast_core::NodeRole;
use holdfast_proto::{Sender, status_from};
use holdfast_trust::Principal;
use holdfast_types::{Code, NodeId};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::accept::Peer;
use crate::api::Origin;
use crate::fault::Fault;
use crate::gate::{Gate, Stage};
use crate::keyring::Keyring;

/// Who calls, as far as it matters for what they may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The machine's owner, on the local socket.
    Root,
    /// A node that has the log. It has the whole state, the authority's key included.
    Member(NodeId),
    /// A node that has not: it knows its own share, and may do its own part.
    Worker(NodeId),
    /// A member that a recovery has given up: a worker that may not know it yet.
    GivenUp(NodeId),
    /// A node by its certificate that is none by what is known here: removed, lost to a recovery, or let in a
    /// moment ago. Who leads tells it.
    Unknown(NodeId),
    /// Who has shown no certificate.
    Nobody,
}

/// What a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// To be this machine's owner.
    Local,
    /// To look at what the whole cluster may see.
    View,
    /// To change things.
    Change,
    /// To be a node, which then speaks for itself alone.
    Node,
    /// To have the log.
    Member,
    /// To have had it: consensus tells who was given up.
    Consensus,
    /// A join token, which the method looks at.
    Token,
}

impl Caller {
    fn may(self, right: Right) -> bool {
        match (self, right) {
            (Self::Root, Right::Local | Right::View | Right::Change) => true,
            (Self::Root, _) => false,
            (Self::Member(_), right) => !matches!(right, Right::Local | Right::Token),
            (Self::Worker(_), right) => matches!(right, Right::View | Right::Node),
            (Self::GivenUp(_), right) => {
                matches!(right, Right::View | Right::Node | Right::Consensus)
            }
            (Self::Unknown(_), right) => matches!(right, Right::Node | Right::Consensus),
            (Self::Nobody, right) => right == Right::Token,
        }
    }

    fn node(self) -> Option<NodeId> {
        match self {
            Self::Member(node) | Self::Worker(node) => Some(node),
            Self::GivenUp(node) | Self::Unknown(node) => Some(node),
            Self::Root | Self::Nobody => None,
        }
    }
}

/// The table: each method of each service.
const TABLE: &[(&str, &[(&str, Right)])] = &[
    (
        "holdfast.v1.ClusterService",
        &[
            ("Init", Right::Local),
            ("CreateToken", Right::Change),
            ("RotateAuthority", Right::Change),
            ("Join", Right::Local),
            ("Status", Right::View),
            ("ListNodes", Right::View),
            ("GetNode", Right::View),
            ("SetLabels", Right::Change),
            ("GetRevision", Right::View),
            ("RemoveNode", Right::Change),
            ("Backup", Right::Change),
            ("Restore", Right::Local),
        ],
    ),
    (
        "holdfast.v1.ContainerService",
        &[
            ("Create", Right::Change),
            ("List", Right::View),
            ("Get", Right::View),
            ("Start", Right::Change),
            ("Stop", Right::Change),
            ("Delete", Right::Change),
            ("Resize", Right::Change),
            ("Sync", Right::Change),
            ("Exec", Right::Change),
            // What a container says may be anything.
            ("Logs", Right::Change),
            ("ListDiverged", Right::View),
            ("DecideTakeover", Right::Change),
        ],
    ),
    (
        "holdfast.v1.ImageService",
        &[("Import", Right::Change), ("List", Right::View), ("Delete", Right::Change)],
    ),
    ("holdfast.v1.OperationService", &[("Get", Right::View)]),
    (
        "holdfast.v1.PoolService",
        &[
            ("Create", Right::Change),
            ("Change", Right::Change),
            // It looks at disks, and takes its time.
            ("Check", Right::Change),
            ("List", Right::View),
            ("Show", Right::View),
            ("Scrub", Right::Change),
        ],
    ),
    (
        "holdfast.v1.SnapshotService",
        &[
            ("Create", Right::Change),
            ("List", Right::View),
            ("Restore", Right::Change),
            ("Remove", Right::Change),
            ("CloneContainer", Right::Change),
            ("SetSchedule", Right::Change),
        ],
    ),
    ("holdfast.v1.EventService", &[("Watch", Right::View)]),
    (
        "holdfast.internal.v1.LeaderService",
        &[
            ("Admit", Right::Token),
            ("Renew", Right::Node),
            ("Register", Right::Node),
            ("Heartbeat", Right::Node),
            ("WatchView", Right::Node),
            ("Report", Right::Node),
            ("AddImage", Right::Node),
            ("Observe", Right::Member),
        ],
    ),
    (
        "holdfast.internal.v1.PeerService",
        &[
            ("Seal", Right::Member),
            ("Offer", Right::Node),
            ("Receive", Right::Node),
            ("Restamp", Right::Node),
            ("SyncNow", Right::Member),
        ],
    ),
    (
        "holdfast.internal.v1.RaftService",
        &[
            ("Append", Right::Consensus),
            ("Vote", Right::Consensus),
            ("PreVote", Right::Consensus),
            ("TransferLeader", Right::Consensus),
            ("ReadIndex", Right::Consensus),
            ("InstallSnapshot", Right::Consensus),
            ("Greet", Right::Consensus),
            ("Linger", Right::Consensus),
        ],
    ),
    // Each call in it is looked at by itself.
    ("holdfast.internal.v1.RelayService", &[("Relay", Right::Node)]),
];

/// What the method at that path needs; nothing is said of what nobody may call.
fn right_of(path: &str) -> Option<Right> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (_, methods) = TABLE.iter().find(|(name, _)| *name == service)?;
    methods.iter().find(|(name, _)| *name == method).map(|(_, right)| *right)
}

/// What every call passes.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) gate: Gate,
    pub(crate) keyring: Keyring,
    pub(crate) origin: Origin,
}

impl Guard {
    /// Lets the call through, with who makes it, or says why not.
    fn admit<B>(&self, request: &mut http::Request<B>) -> Result<(), Status> {
        let path = request.uri().path();
        let Some(right) = right_of(path) else {
            return Err(Status::unimplemented("there is no such method"));
        };
        let caller = match self.origin {
            Origin::Local => Caller::Root,
            Origin::Remote => self.caller(request.extensions().get::<Peer>())?,
        };
        if !caller.may(right) {
            return Err(refusal(caller, right).into());
        }
        if let Some(node) = caller.node() {
            request.extensions_mut().insert(Sender(node));
        }
        request.extensions_mut().insert(caller);
        Ok(())
    }

    /// What the peer of a connection is now.
    fn caller(&self, peer: Option<&Peer>) -> Result<Caller, Fault> {
        let ours = self.keyring.cluster();
        let principal = peer.and_then(|peer| peer.principal);
        let principal = principal.filter(|principal| Some(principal.cluster()) == ours);
        let (node, is_member) = match principal {
            Some(Principal::Member(_, node)) => (node, true),
            Some(Principal::Worker(_, node)) => (node, false),
            Some(Principal::User(..)) | None => return Ok(Caller::Nobody),
        };
        if !self.keyring.knows(node) {
            let cluster = principal.map(|who| who.cluster()).map(|id| id.to_string());
            let cluster = cluster.unwrap_or_default();
            let message = format!("node {node} was removed from cluster {cluster}");
            return Err(Fault::new(Code::NodeRemoved, message));
        }
        // A member that a recovery has given up is a worker from then on, whatever it has shown.
        let (is_there, is_worker) = match self.gate.stage() {
            Stage::Member(member) => match &member.raft {
                Some(raft) => {
                    let role = raft.state().nodes.get(&node).map(|node| node.role);
                    (role.is_some(), role == Some(NodeRole::Worker))
                }
                None => (member.duties.knows(node) == Some(true), false),
            },
            // It answers nobody yet.
            Stage::Uninitialised | Stage::Starting => (true, false),
        };
        Ok(match (is_there, is_member) {
            (false, _) => Caller::Unknown(node),
            (true, false) => Caller::Worker(node),
            (true, true) if is_worker => Caller::GivenUp(node),
            (true, true) => Caller::Member(node),
        })
    }
}

fn refusal(caller: Caller, right: Right) -> Fault {
    let (code, message) = match (caller, right) {
        (_, Right::Local) => (
            Code::Forbidden,
            "init, join and restore are answered on the machine's own socket alone",
        ),
        (Caller::Nobody, _) => {
            (Code::Untrusted, "this needs a certificate of the cluster, and none was shown")
        }
        (Caller::Unknown(_), _) => (
            Code::Forbidden,
            "this node is not known here, or not yet: only who leads tells it more",
        ),
        (Caller::Worker(_) | Caller::GivenUp(_), Right::Change) => (
            Code::Forbidden,
            "a worker may not change the cluster, nor may its root: do this on a member",
        ),
        (Caller::Worker(_) | Caller::GivenUp(_), _) => {
            (Code::Forbidden, "this is for members of the cluster alone")
        }
        (_, Right::Token) => (Code::Forbidden, "this node is in the cluster already"),
        _ => (Code::Forbidden, "this is for nodes of the cluster alone"),
    };
    Fault::new(code, message)
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// Services behind the guard.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S, B> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        match self.guard.admit(&mut request) {
            Ok(()) => self.inner.call(request).boxed(),
            Err(status) => ready(Ok(status.into_http())).boxed(),
        }
    }
}

/// The node that a call comes from; it may speak for itself alone.
///
/// # Errors
/// [`Code::Forbidden`] if it speaks for another.
pub(crate) fn speaks_for(sender: NodeId, node: u64) -> Result<(), Status> {
    if sender.0 == node {
        return Ok(());
    }
    let message = format!("node {sender} speaks for node {node}");
    Err(status_from(Code::Forbidden, message, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Every method there is, by the files that say what there is.
    fn methods() -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
        let mut files = Vec::new();
        for dir in ["holdfast/v1", "holdfast/internal/v1"] {
            let entries = std::fs::read_dir(root.join(dir)).unwrap();
            files.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let described = protox::compile(files, [root]).unwrap();
        let mut methods = BTreeSet::new();
        for file in described.file {
            for service in &file.service {
                for method in &service.method {
                    let (package, service) = (file.package(), service.name());
                    methods.insert(format!("/{package}.{service}/{}", method.name()));
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_has_a_row_and_every_row_a_method() {
        let rows = TABLE.iter().flat_map(|(service, rows)| {
            rows.iter().map(move |(method, _)| format!("/{service}/{method}"))
        });
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.iter().cloned().collect::<BTreeSet<_>>(), methods());
        assert_eq!(rows.len(), methods().len(), "a row twice");
    }

    /// I26: what each may call of everything there is, written down.
    #[test]
    fn each_caller_may_call_its_own_and_nothing_else() {
        let node = NodeId(1);
        let callers = [
            Caller::Nobody,
            Caller::Unknown(node),
            Caller::Worker(node),
            Caller::GivenUp(node),
            Caller::Member(node),
            Caller::Root,
        ];
        for method in methods() {
            let right = right_of(&method).unwrap();
            let expected = match right {
                Right::Token => [true, false, false, false, false, false],
                Right::Node => [false, true, true, true, true, false],
                Right::Consensus => [false, true, false, true, true, false],
                Right::Member => [false, false, false, false, true, false],
                Right::View => [false, false, true, true, true, true],
                Right::Change => [false, false, false, false, true, true],
                Right::Local => [false, false, false, false, false, true],
            };
            assert_eq!(callers.map(|caller| caller.may(right)), expected, "{method}");
        }
        for none in
            ["", "/", "/holdfast.v1.ClusterService", "/holdfast.v1.ClusterService/init", "//Init"]
        {
            assert_eq!(right_of(none), None, "{none}");
        }
    }

    /// I26: what a stolen worker is after.
    #[test]
    fn a_worker_changes_nothing_by_itself() {
        let worker = Caller::Worker(NodeId(7));
        for method in methods().iter().filter(|method| right_of(method) == Some(Right::Change)) {
            assert_eq!(refusal(worker, right_of(method).unwrap()).code, Code::Forbidden);
        }
        for forbidden in [
            "/holdfast.v1.ContainerService/Create",
            "/holdfast.v1.ContainerService/Exec",
            "/holdfast.v1.ContainerService/DecideTakeover",
            "/holdfast.v1.ClusterService/CreateToken",
            "/holdfast.v1.ClusterService/Backup",
            "/holdfast.internal.v1.PeerService/Seal",
            "/holdfast.internal.v1.RaftService/Vote",
            "/holdfast.internal.v1.LeaderService/Observe",
        ] {
            assert!(!worker.may(right_of(forbidden).unwrap()), "{forbidden}");
        }
    }
}

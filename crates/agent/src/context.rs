//! What all parts of one agent share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use holdfast_proto::internal;
use holdfast_reconcile::Gate;
use holdfast_storage::fsys::FreezeHelper;
use holdfast_types::{ByteSize, ContainerUid, Epoch, Incarnation, NodeId, NodeView, PeerView};
use tokio::sync::{Notify, watch};

use crate::agent::Parts;
use crate::config::AgentConfig;
use crate::counts::Counters;
use crate::gate::LeaseState;
use crate::guardian::Guardian;
use crate::holdings::Holdings;
use crate::leader::LeaderClient;
use crate::memory;
use crate::peers::Peers;
use crate::places::Places;
use crate::pool_watch::Fullness;
use crate::replicate::{LONG_MS, Limits, Shipments, Slots};
use crate::rotten::Rotten;
use crate::serve::Intake;
use crate::strangers::Starts;

/// Which stream of views is the one to follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Follow {
    term: u64,
    attempt: u64,
}

/// Shared by every task of an agent.
pub(crate) struct Context {
    pub(crate) config: AgentConfig,
    pub(crate) leader: LeaderClient,
    pub(crate) guardian: Guardian,
    pub(crate) holdings: Holdings,
    pub(crate) peers: Peers,
    pub(crate) shipments: Shipments,
    /// Places for what is shipped from here.
    pub(crate) slots: Slots,
    /// Places for what is received here.
    pub(crate) intake: Intake,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    pub(crate) starts: Starts,
    pub(crate) fullness: Fullness,
    pub(crate) rotten: Rotten,
    /// A named snapshot came: the cluster is to hear of it soon.
    pub(crate) kept_arrived: Notify,
    /// Whether no pool was made on this node yet.
    pub(crate) without_pool: AtomicBool,
    /// Whether no heartbeat leaves, because there is a pool and it cannot be opened.
    pub(crate) silent: AtomicBool,
    /// The cluster's words, once it has let this node go.
    pub(crate) removed: watch::Sender<Option<String>>,
    /// The machine's, if the kernel says.
    pub(crate) memory: Option<ByteSize>,
    parts: OnceLock<Arc<Parts>>,
    lease: watch::Sender<LeaseState>,
    view: watch::Sender<Option<Arc<NodeView>>>,
    capacity: watch::Sender<Option<internal::Capacity>>,
    follow: watch::Sender<Follow>,
}

impl Context {
    pub(crate) fn new(config: AgentConfig, hint: watch::Receiver<Option<String>>) -> Self {
        Self {
            leader: LeaderClient::new(&config.seeds, hint, config.dialers.members.clone()),
            guardian: Guardian::new(config.guardian_socket.clone()),
            holdings: Holdings::default(),
            peers: Peers::new(config.dialers.nodes.clone()),
            shipments: Shipments::default(),
            slots: Slots::new(config.transfers.sends, LONG_MS),
            intake: Intake::new(config.transfers.receives),
            limits: Limits::new(config.transfers),
            counters: Arc::default(),
            starts: Starts::default(),
            fullness: Fullness::default(),
            rotten: Rotten::default(),
            kept_arrived: Notify::new(),
            without_pool: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            removed: watch::Sender::new(None),
            memory: memory::total(),
            parts: OnceLock::new(),
            lease: watch::Sender::new(LeaseState::default()),
            view: watch::Sender::new(None),
            capacity: watch::Sender::new(None),
            follow: watch::Sender::new(Follow::default()),
            config,
        }
    }

    /// Storage, runtime and network, once they are open.
    pub(crate) fn parts(&self) -> Option<Arc<Parts>> {
        self.parts.get().cloned()
    }

    /// Opens the door to storage, runtime and network. Returns false if it is open already.
    pub(crate) fn set_parts(&self, parts: Parts) -> bool {
        self.without_pool.store(false, Ordering::Relaxed);
        let first = self.parts.set(Arc::new(parts)).is_ok();
        self.silent.store(false, Ordering::Relaxed);
        first
    }

    /// The newest view, of whatever age.
    pub(crate) fn view(&self) -> Option<Arc<NodeView>> {
        self.view.borrow().clone()
    }

    pub(crate) fn watch_view(&self) -> watch::Receiver<Option<Arc<NodeView>>> {
        self.view.subscribe()
    }

    /// Takes in a view. Views of one life come in order; one of an older life is dropped.
    pub(crate) fn set_view(&self, view: NodeView) {
        let members = view.peers.iter().filter(|peer| !peer.worker);
        let addresses = members.map(|peer| peer.address.clone());
        self.leader.learn(addresses);
        if view.incarnation == self.incarnation() {
            self.view.send_replace(Some(Arc::new(view)));
        }
    }

    /// Whether the guardian holds a live lease.
    pub(crate) fn is_leased(&self) -> bool {
        self.watch_lease().borrow().deadline_ns > holdfast_fence::boottime_ns()
    }

    pub(crate) fn watch_lease(&self) -> watch::Receiver<LeaseState> {
        self.lease.subscribe()
    }

    /// The present life; 0 between two.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.lease.borrow().incarnation
    }

    pub(crate) fn begin_life(&self, incarnation: Incarnation) {
        self.lease.send_replace(LeaseState { incarnation, ..LeaseState::default() });
    }

    pub(crate) fn end_life(&self) {
        self.lease.send_replace(LeaseState::default());
    }

    /// A grant carried this assignment revision.
    pub(crate) fn raise_revision(&self, granted: LeaseState) {
        self.lease.send_if_modified(|lease| {
            let higher = granted.assignment_revision > lease.assignment_revision;
            if higher {
                lease.assignment_revision = granted.assignment_revision;
            }
            higher
        });
    }

    /// The guardian holds a lease until then. Only the step from fenced to leased wakes others.
    pub(crate) fn leased(&self, deadline_ns: u64) {
        self.lease.send_if_modified(|lease| {
            let began = lease.deadline_ns == 0;
            lease.deadline_ns = deadline_ns;
            began
        });
    }

    /// A leader of that term granted: what an older one streams is over, even if its connection
    /// has not noticed.
    pub(crate) fn led_in(&self, term: u64) {
        self.follow.send_if_modified(|f| std::mem::replace(&mut f.term, term) != term);
    }

    /// The stream of views has missed something: ask for a new one.
    pub(crate) fn follow_anew(&self) {
        self.follow.send_modify(|f| f.attempt += 1);
    }

    /// Changes when the stream of views is to be begun anew.
    pub(crate) fn watch_follow(&self) -> watch::Receiver<Follow> {
        self.follow.subscribe()
    }

    /// The guardian holds none.
    pub(crate) fn fenced(&self) {
        self.lease.send_if_modified(|lease| {
            let ended = lease.deadline_ns != 0;
            lease.deadline_ns = 0;
            ended
        });
    }

    /// Whether protected containers may start now.
    pub(crate) fn gate(&self, view: &NodeView) -> Gate {
        self.lease.borrow().gate(view)
    }

    /// Whether a protected container may start now, under that epoch.
    pub(crate) fn may_start(&self, uid: ContainerUid, epoch: Epoch) -> bool {
        self.view().is_some_and(|view| {
            let mine = view.assigned.iter().any(|a| a.uid == uid && a.chain.epoch == epoch);
            mine && self.gate(&view) == Gate::Open
        })
    }

    pub(crate) fn capacity(&self) -> Option<internal::Capacity> {
        self.capacity.borrow().clone()
    }

    pub(crate) fn set_capacity(&self, capacity: internal::Capacity) {
        self.capacity.send_replace(Some(capacity));
    }

    /// Where a container's volume is mounted.
    pub(crate) fn places(&self, uid: ContainerUid) -> Places {
        Places::of(&self.config.data_dir.join("mounts"), uid)
    }

    pub(crate) fn freezer(&self) -> FreezeHelper {
        FreezeHelper::new(&self.config.freeze_binary, &[])
    }

    /// Another node, by the newest view.
    pub(crate) fn peer(&self, node: NodeId) -> Option<PeerView> {
        self.view()?.peers.iter().find(|peer| peer.node == node).cloned()
    }
}

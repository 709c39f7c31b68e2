//! The replicated state of a Holdfast cluster: [`apply()`] and the queries on [`State`].
//!
//! Pure, ordered and bit-identical on every node (I4): no clock, no randomness, no map order. Time
//! and ids come in with the entry. One file per replicated command, in `command/`, with its test.
//!
//! ```text
//! Entry ──▶ apply ──▶ dedupe by request id (I7) ──▶ command's own file ──▶ Response
//!                                                        │
//!                                                        └──▶ events, revisions
//! ```
//!
//! A [`State`] is made of maps that share structure ([`Map`]): its clone costs nothing, and one that
//! is held on to costs what has changed since. So snapshots, hashes and readers work on clones, and
//! `apply` waits for none of them. No entry looks at all containers or operations: what it would look
//! for is kept beside them ([`Containers`], [`Operations`], [`Addresses`]).

mod addresses;
mod answers;
mod apply;
mod command;
mod container;
mod containers;
mod entry;
mod event;
mod few;
mod image;
mod index;
mod kept;
mod lineage;
mod map;
mod node;
mod operation;
mod queue;
mod state;
mod table;
#[cfg(test)]
mod testing;
mod trust;
mod view;

pub use addresses::Addresses;
pub use apply::apply;
pub use command::{
    AddImage, AddToken, AdmitNode, CreateContainer, CreateSnapshot, DecideTakeover, Guarded,
    HoldTakeover, InitCluster, LetIn, MarkNodeLost, NewNode, Origin, RaiseLevel, RecordFloor,
    RecordReport, RecoverCluster, RegisterNode, RemoveImage, RemoveNode, RemoveSnapshot, Resize,
    RestoreCluster, RestoreSnapshot, SetAuthorities, SetDesired, SetLabels, SetReplicas, SetRole,
    SetRoles, SetSchedule, TakeOver,
};
pub use container::{Container, Copy, Hold, HoldCause};
pub use containers::{ContainerMut, Containers};
pub use entry::{Command, Entry, Outcome, Refusal, Response};
pub use event::{Compacted, Event};
pub use few::{FewMap, FewSet};
pub use image::Image;
pub use kept::{Kept, KeptState, Restore, ScheduleFailed, Taken};
pub use lineage::{Gap, Lineage, RestoredFrom};
pub use map::Map;
pub use node::{Evidence, MAX_VOTERS, Node, NodeLife, NodeRole};
pub use operation::{Operation, OperationKind, OperationState, Operations};
pub use queue::Queue;
pub use state::{Cluster, Diverged, State};
pub use table::Table;
pub use trust::{Hidden, Token, Trust, TrustedAuthority, Used, standing};

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

mod apply;
mod command;
mod container;
mod entry;
mod event;
mod image;
mod kept;
mod node;
mod operation;
mod state;
#[cfg(test)]
mod testing;
mod view;

pub use apply::apply;
pub use command::{
    AddImage, AdmitNode, CreateContainer, CreateSnapshot, DecideTakeover, HoldTakeover,
    InitCluster, MarkNodeLost, NewNode, Origin, RecordFloor, RecordReport, RegisterNode,
    RemoveImage, RemoveSnapshot, Resize, RestoreSnapshot, SetDesired, SetLabels, SetReplicas,
    SetRole, SetSchedule, TakeOver,
};
pub use container::{Container, Copy, Hold, HoldCause};
pub use entry::{Command, Entry, Outcome, Refusal, Response};
pub use event::Event;
pub use image::Image;
pub use kept::{Kept, KeptState, Restore, ScheduleFailed, Taken};
pub use node::{Evidence, Node, NodeLife, NodeRole};
pub use operation::{Operation, OperationKind, OperationState};
pub use state::{Cluster, Diverged, State};

//! Which node a call comes from.

use holdfast_types::{Code, NodeId};
use tonic::{Request, Status};

use crate::status_from;

/// The node that a call comes from, as its certificate says. Whoever listens puts it into the extensions
/// of each call of a node; what a message says of its sender is held against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender(pub NodeId);

impl Sender {
    /// The sender of that request.
    ///
    /// # Errors
    /// [`Code::Untrusted`] if nobody has established it.
    pub fn of<T>(request: &Request<T>) -> Result<NodeId, Status> {
        let sender = request.extensions().get::<Self>().map(|sender| sender.0);
        let unknown =
            "this is for nodes of the cluster alone, and the caller has not shown that it is one";
        sender.ok_or_else(|| status_from(Code::Untrusted, unknown, None))
    }
}

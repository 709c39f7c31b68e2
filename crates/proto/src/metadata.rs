//! What a call may carry beside its message.

/// On a call that reads: [`STALE`], to be answered by the node that is asked from what it has.
pub const READ_KEY: &str = "holdfast-read";

/// The value of [`READ_KEY`].
pub const STALE: &str = "stale";

/// On a call that changes something: a revision that the cluster had reached before the request was first
/// sent. What is remembered of requests no longer reaches back for ever; a retry that names this is
/// refused where a call without it might be done twice.
pub const SINCE_KEY: &str = "holdfast-since";

/// On an answer: the last entry that is in it.
pub const APPLIED_KEY: &str = "holdfast-applied";

/// On a stale answer: everything acknowledged more milliseconds ago than this is in it; or `unknown`.
pub const AGE_KEY: &str = "holdfast-age-ms";

/// On a stale answer: the node that answered.
pub const NODE_KEY: &str = "holdfast-node";

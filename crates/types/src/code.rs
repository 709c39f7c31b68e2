//! The stable codes of every refusal and failure (DESIGN section 9: each has a page in the docs).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($( $(#[$doc:meta])* $variant:ident = $text:literal, retry $retry:literal; )*) => {
        /// A stable error code such as `HF-POOL-FULL`. Codes are never renamed or reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code { $( $(#[$doc])* #[serde(rename = $text)] $variant, )* }

        impl Code {
            /// Every code, in order of declaration.
            pub const ALL: &'static [Code] = &[ $( Code::$variant, )* ];

            /// The code's text, as users and scripts see it.
            pub fn as_str(self) -> &'static str {
                match self { $( Code::$variant => $text, )* }
            }

            /// Whether the same request may succeed later without anything being changed.
            pub fn retryable(self) -> bool {
                match self { $( Code::$variant => $retry, )* }
            }
        }
    };
}

codes! {
    /// A value is malformed: a name, a number, an address.
    InvalidArgument = "HF-INVALID-ARGUMENT", retry false;
    /// A name that is no RFC 1123 label.
    InvalidName = "HF-INVALID-NAME", retry false;
    /// A size or limit that is zero, absurd or malformed.
    InvalidSize = "HF-INVALID-SIZE", retry false;
    /// The named object does not exist.
    NotFound = "HF-NOT-FOUND", retry false;
    /// The name is taken.
    AlreadyExists = "HF-ALREADY-EXISTS", retry false;
    /// The object is in a state that does not allow the request.
    WrongState = "HF-WRONG-STATE", retry false;
    /// The object is in use by another.
    InUse = "HF-IN-USE", retry false;
    /// The object is of another version than the request was made for.
    Conflict = "HF-CONFLICT", retry false;
    /// A retry came so late that nobody knows whether the request was done before.
    RequestExpired = "HF-REQUEST-EXPIRED", retry false;
    /// History that was asked for is kept no longer.
    Compacted = "HF-COMPACTED", retry false;
    /// No node satisfies the request; the message says why for each.
    NoPlacement = "HF-NO-PLACEMENT", retry false;
    /// A pool has passed its admission threshold, or the request would push it past.
    PoolFull = "HF-POOL-FULL", retry true;
    /// The pool cannot be opened: no reflink, no loop device, no direct I/O, missing directory.
    PoolUnusable = "HF-POOL-UNUSABLE", retry false;
    /// The thin pool has had nearly as many snapshots as its metadata can tell apart.
    PoolWorn = "HF-POOL-WORN", retry false;
    /// A copy's content is no longer what was verified when it came.
    CopyRotten = "HF-COPY-ROTTEN", retry false;
    /// The node has no pool yet.
    NoPool = "HF-NO-POOL", retry false;
    /// A thin pool's metadata must be checked or repaired before it is written again.
    PoolDamaged = "HF-POOL-DAMAGED", retry false;
    /// A volume group has not enough free extents for what was asked.
    GroupFull = "HF-GROUP-FULL", retry false;
    /// A device carries something, and nobody said that it may be destroyed.
    DeviceNotEmpty = "HF-DEVICE-NOT-EMPTY", retry false;
    /// A volume group lacks a device.
    DeviceMissing = "HF-DEVICE-MISSING", retry false;
    /// Two devices carry the same physical volume.
    DuplicateDevice = "HF-DUPLICATE-DEVICE", retry false;
    /// A pool operation failed in the kernel or a tool; the message has its words.
    PoolIo = "HF-POOL-IO", retry true;
    /// The node has as many transfers under way as it takes at a time.
    Busy = "HF-BUSY", retry true;
    /// No leader with a quorum behind it answered in time.
    NoQuorum = "HF-NO-QUORUM", retry true;
    /// This node does not lead; the answer names the leader if one is known.
    NotLeader = "HF-NOT-LEADER", retry true;
    /// The cluster was not initialised, or this node has not joined it.
    NotInitialized = "HF-NOT-INITIALIZED", retry false;
    /// A peer or data directory belongs to another cluster.
    WrongCluster = "HF-WRONG-CLUSTER", retry false;
    /// The cluster was recovered without this node: it has no vote there any more.
    Superseded = "HF-SUPERSEDED", retry false;
    /// A recovery of this node was begun and not finished.
    RecoveryUnfinished = "HF-RECOVERY-UNFINISHED", retry false;
    /// A node's version is too old for what its cluster says.
    VersionTooOld = "HF-VERSION-TOO-OLD", retry false;
    /// Not every node of the cluster understands this yet.
    FeatureLevel = "HF-FEATURE-LEVEL", retry false;
    /// The sender's epoch is older than one already known (I11).
    StaleEpoch = "HF-STALE-EPOCH", retry false;
    /// The node's incarnation was declared lost; it must register anew.
    NodeLost = "HF-NODE-LOST", retry false;
    /// The cluster has no node of that id any more: it was removed, or a recovery lost its admission.
    NodeRemoved = "HF-NODE-REMOVED", retry false;
    /// What was asked for would leave no majority of voters that answers.
    QuorumAtRisk = "HF-QUORUM-AT-RISK", retry false;
    /// The node is unknown to the cluster, or speaks with an old incarnation.
    StaleIncarnation = "HF-STALE-INCARNATION", retry false;
    /// There is no live lease, so protected containers may not run here.
    NoLease = "HF-NO-LEASE", retry true;
    /// The guardian is not there or refused.
    Guardian = "HF-GUARDIAN", retry true;
    /// The container's takeover is held: for a person's decision, or for room.
    Held = "HF-HELD", retry false;
    /// A snapshot stream failed verification; nothing of it was kept as a copy.
    StreamCorrupt = "HF-STREAM-CORRUPT", retry true;
    /// A delta was offered on a base that the receiver does not have (I19).
    WrongBase = "HF-WRONG-BASE", retry true;
    /// An archive is no image, or holds hostile paths or devices.
    BadImage = "HF-BAD-IMAGE", retry false;
    /// LXC or a container's init failed; the message has the log's last lines.
    Runtime = "HF-RUNTIME", retry true;
    /// A network object could not be made or changed.
    Network = "HF-NETWORK", retry true;
    /// The cluster's address range is used up.
    NoAddress = "HF-NO-ADDRESS", retry false;
    /// A needed program or package is not installed; the message names it.
    MissingTool = "HF-MISSING-TOOL", retry false;
    /// A needed program is older than the oldest that was tried.
    ToolTooOld = "HF-TOOL-TOO-OLD", retry false;
    /// The program must run as root.
    NotRoot = "HF-NOT-ROOT", retry false;
    /// The caller has not shown who it is, or what it has shown is not believed.
    Untrusted = "HF-UNTRUSTED", retry false;
    /// The caller is known, and may not do this.
    Forbidden = "HF-FORBIDDEN", retry false;
    /// An address or socket is already taken.
    AddressInUse = "HF-ADDRESS-IN-USE", retry false;
    /// A file of ours on disk is damaged; the message names it. Nothing was guessed.
    Corrupt = "HF-CORRUPT", retry false;
    /// The disk answered with an error, or is full.
    DiskIo = "HF-DISK-IO", retry false;
    /// A message, spec or entry is larger than its limit.
    TooLarge = "HF-TOO-LARGE", retry false;
    /// A container has as many named snapshots as it may have.
    TooManySnapshots = "HF-TOO-MANY-SNAPSHOTS", retry false;
    /// A configuration file or flag is wrong.
    Config = "HF-CONFIG", retry false;
    /// The peer or daemon did not answer.
    Unavailable = "HF-UNAVAILABLE", retry true;
    /// The deadline passed; the outcome is unknown until asked.
    Timeout = "HF-TIMEOUT", retry true;
    /// One of our own invariants does not hold. Always a bug: please report it.
    Internal = "HF-INTERNAL", retry false;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Code::ALL.iter().copied().find(|c| c.as_str() == s).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_unique_and_parses_back() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!(code.as_str().starts_with("HF-"));
        }
    }
}

//! Who a certificate is of: a URI in its subject alternative names.
//!
//! ```text
//! holdfast://<cluster>/member/<node id>      votes or has the log: holds the whole state
//! holdfast://<cluster>/worker/<node id>      runs and stores, and knows its own share
//! holdfast://<cluster>/user/<uuid>           a person or a program
//! ```

use std::fmt;
use std::str::FromStr;

use holdfast_types::{ClusterId, NodeId};
use uuid::Uuid;

use crate::TrustError;

const SCHEME: &str = "holdfast://";

/// Who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A node that has the log.
    Member(ClusterId, NodeId),
    /// A node that has not.
    Worker(ClusterId, NodeId),
    /// A person or a program, by the id that the state has given them: a name may be another's later.
    User(ClusterId, Uuid),
}

impl Principal {
    /// The cluster whose authority says so.
    pub fn cluster(&self) -> ClusterId {
        match *self {
            Self::Member(cluster, _) | Self::Worker(cluster, _) | Self::User(cluster, _) => cluster,
        }
    }

    /// The node, if it is one.
    pub fn node(&self) -> Option<NodeId> {
        match *self {
            Self::Member(_, node) | Self::Worker(_, node) => Some(node),
            Self::User(..) => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(cluster, node) => write!(f, "{SCHEME}{cluster}/member/{node}"),
            Self::Worker(cluster, node) => write!(f, "{SCHEME}{cluster}/worker/{node}"),
            Self::User(cluster, user) => write!(f, "{SCHEME}{cluster}/user/{user}"),
        }
    }
}

impl FromStr for Principal {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let principal = parse(text).ok_or(TrustError::NoCertificate("its name is malformed"))?;
        // One way to write each.
        match principal.to_string() == text {
            true => Ok(principal),
            false => Err(TrustError::NoCertificate("its name is malformed")),
        }
    }
}

fn parse(text: &str) -> Option<Principal> {
    let mut parts = text.strip_prefix(SCHEME)?.split('/');
    let cluster = parts.next()?.parse().ok()?;
    let (kind, id) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some(match kind {
        "member" => Principal::Member(cluster, id.parse().ok()?),
        "worker" => Principal::Worker(cluster, id.parse().ok()?),
        "user" => Principal::User(cluster, id.parse().ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_survives_its_text_and_nothing_else_is_one() {
        let (cluster, node) = (ClusterId::generate(), NodeId(7));
        let user = Uuid::from_u128(9);
        for principal in [
            Principal::Member(cluster, node),
            Principal::Worker(cluster, node),
            Principal::User(cluster, user),
        ] {
            assert_eq!(principal.to_string().parse(), Ok(principal));
            for bad in [format!("{principal}/"), format!("{principal}/x"), format!(" {principal}")]
            {
                assert!(bad.parse::<Principal>().is_err(), "{bad}");
            }
        }
        let leading_zero = format!("{SCHEME}{cluster}/member/07");
        assert!(leading_zero.parse::<Principal>().is_err(), "two texts would be one node");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = text.parse::<Principal>();
        }
    }
}

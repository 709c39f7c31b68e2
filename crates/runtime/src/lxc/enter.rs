//! How an `lxc-*` program gets below the guardian.

use std::ffi::OsString;

use holdfast_types::ContainerUid;

use crate::RuntimeError;

/// Gives the command that puts a program below the guardian: into its pid and mount namespaces
/// and into a cgroup of its ancestor (DESIGN section 5, rule 3). Asked again for every program,
/// because it changes whenever the guardian restarts.
pub trait Enter: Send + Sync {
    /// The program and arguments to place before an `lxc-*` command line of a protected
    /// container. `leaf` is the name of a cgroup directly below the ancestor, to be made if need
    /// be, that the program shall be in before it runs; the runtime removes it.
    ///
    /// Fails with [`RuntimeError::Guardian`] if nobody is there to be entered.
    fn prefix(&self, uid: ContainerUid, leaf: &str) -> Result<Vec<OsString>, RuntimeError>;
}

/// No guardian: protected containers run like pinned ones. For tests, and for a node alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unguarded;

impl Enter for Unguarded {
    fn prefix(&self, _uid: ContainerUid, _leaf: &str) -> Result<Vec<OsString>, RuntimeError> {
        Ok(Vec::new())
    }
}

//! Being the lab's client: an endpoint of its own on the fabric.

use std::fs::File;
use std::path::Path;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

use crate::LabError;
use crate::layout::Layout;

/// Runs something in a thread that lives in the client's network namespace; nothing comes back if the
/// namespace cannot be entered. What that thread starts lives there too.
pub fn in_client<T: Send + 'static>(
    layout: &Layout,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<Option<T>>, LabError> {
    let path = Path::new("/run/netns").join(layout.client());
    let netns = File::open(&path).map_err(LabError::io("cannot open", &path))?;
    let enter = move || setns(netns, CloneFlags::CLONE_NEWNET);
    std::thread::Builder::new()
        .name("client".into())
        .spawn(move || enter().is_ok().then(work))
        .map_err(LabError::io("cannot start a thread for", Path::new("the client")))
}

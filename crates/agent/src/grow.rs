//! Making a container's volume larger, and the filesystem on it. Every step may be repeated: after a
//! crash between any two the next look finds what is still too small.
//!
//! ```text
//! item and device ─▶ state of the volume ─▶ filesystem ─▶ the cluster is told
//! ```
//! A copy may be promoted that was taken between two of them; what it lacks is caught up with when
//! it is mounted.

use std::path::Path;

use holdfast_storage::{Error, Pool, VolumeState, fsys, round_size};
use holdfast_types::{AssignedView, ByteSize, ContainerSpec, VolumeUid};
use tracing::warn;

use crate::act;
use crate::error::AgentError;

/// Whether the live part is smaller than was asked for.
pub(crate) fn is_short(state: &VolumeState, spec: &ContainerSpec) -> bool {
    state.live.is_some() && round_size(spec.disk).is_ok_and(|wanted| state.size < wanted)
}

/// Grows the volume to what the spec says, and the filesystem with it: mounted if it is mounted.
/// The filesystem of a volume that was never mounted grows when it is. Returns the sizes reached.
pub(crate) fn grow(
    pool: &dyn Pool,
    view: &AssignedView,
    at: &Path,
) -> Result<Vec<ByteSize>, AgentError> {
    let volume = VolumeUid::from(view.uid);
    let wanted = round_size(view.spec.disk)?;
    if pool.volume(volume)?.state.size < wanted {
        pool.resize(volume, wanted)?;
    }
    let info = pool.volume(volume)?;
    match info.device {
        Some(device) if fsys::is_mounted(at)? => {
            fsys::grow_mounted(&device, at)?;
        }
        _ if act::is_ready(&info.state, view) => {
            let device = pool.activate(volume, view.chain.epoch)?;
            let grown = fsys::grow(&device);
            pool.deactivate(volume)?;
            grown?;
        }
        _ => {}
    }
    Ok(vec![info.state.size])
}

/// Grows the filesystem at `at` if it is smaller than its device: mounted, or, where the kernel does
/// not let us, at rest. What cannot grow is used as it is.
pub(crate) fn catch_up(device: &Path, at: &Path) -> Result<(), AgentError> {
    if fsys::fills_device(device)? {
        return Ok(());
    }
    let smaller = |error: &Error| {
        let at = at.display();
        warn!(%error, mountpoint = %at, "a filesystem stays smaller than its disk");
    };
    match fsys::grow_mounted(device, at) {
        Ok(_) => {}
        Err(Error::NotPermitted(_)) => {
            fsys::unmount(at, act::UNMOUNT_LIMIT)?;
            fsys::grow(device).unwrap_or_else(|error| smaller(&error));
            fsys::mount(device, at)?;
        }
        Err(error) => smaller(&error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, assigned};

    fn bench() -> Bench {
        let bench = Bench::new();
        bench.pool().set_role(bench.volume(), "ready").unwrap();
        bench
    }

    fn wants(mib: u64) -> AssignedView {
        let mut view = assigned();
        view.spec.disk = ByteSize::mib(mib);
        view
    }

    fn fills(bench: &Bench) -> bool {
        let device = bench.pool().volume(bench.volume()).unwrap().device.unwrap();
        fsys::fills_device(&device).unwrap()
    }

    /// Whether this machine lets a mounted filesystem grow; a container of CI may not.
    fn grown(bench: &Bench, view: &AssignedView) -> Option<Vec<ByteSize>> {
        match grow(bench.pool(), view, &bench.mountpoint) {
            Err(AgentError::Storage(Error::NotPermitted(_))) => None,
            other => Some(other.unwrap()),
        }
    }

    #[test]
    fn a_mounted_filesystem_grows_with_its_volume() {
        let bench = bench();
        let before = bench.pool().volume(bench.volume()).unwrap().state;
        assert!(is_short(&before, &wants(70).spec) && !is_short(&before, &wants(64).spec));
        let Some(sizes) = grown(&bench, &wants(70)) else { return };
        assert_eq!(sizes, [ByteSize::mib(72)], "rounded up");
        assert!(fills(&bench));
        assert_eq!(grown(&bench, &wants(70)), Some(sizes.clone()));
        assert_eq!(grown(&bench, &wants(64)), Some(sizes));
    }

    /// A crash after the volume had grown: asked again, the filesystem follows.
    #[test]
    fn what_a_crash_left_half_grown_is_finished() {
        let bench = bench();
        bench.pool().resize(bench.volume(), ByteSize::mib(128)).unwrap();
        assert!(!fills(&bench));
        if grown(&bench, &wants(128)).is_some() {
            assert!(fills(&bench));
        }
    }

    /// What was snapshotted in between, and promoted, catches up when it is mounted.
    #[test]
    fn a_copy_taken_half_grown_catches_up() {
        let bench = bench();
        bench.pool().resize(bench.volume(), ByteSize::mib(128)).unwrap();
        bench.unmount();
        let device = bench.mount();
        assert!(!fills(&bench));
        catch_up(&device, &bench.mountpoint).unwrap();
        assert!(fills(&bench));
    }

    #[test]
    fn a_volume_at_rest_grows_and_rests_again() {
        let bench = bench();
        bench.unmount();
        grow(bench.pool(), &wants(256), &bench.mountpoint).unwrap();
        assert_eq!(bench.pool().volume(bench.volume()).unwrap().device, None);
        bench.mount();
        assert!(fills(&bench));
    }
}

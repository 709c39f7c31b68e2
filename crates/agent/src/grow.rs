//! Making a container's volume larger, and the filesystem on it. Every step may be repeated: after a
//! crash between any two the next look finds what is still too small.
//!
//! ```text
//! item and device ─▶ state of the volume ─▶ filesystem ─▶ the cluster is told
//! ```
//! A copy may be promoted that was taken between two of them; what it lacks is caught up with when
//! it is mounted.

use std::path::Path;

use holdfast_storage::{Error, Pool, VolumeInfo, VolumeState, fsys, round_size};
use holdfast_types::{AssignedView, ByteSize, ContainerSpec, VolumeUid};
use tracing::warn;

use crate::act;
use crate::error::AgentError;
use crate::mounts;
use crate::places::Places;

/// Whether a member of the live part is smaller than was asked for, or has no filesystem yet.
pub(crate) fn is_short(state: &VolumeState, spec: &ContainerSpec) -> bool {
    let wanted = spec.sizes();
    let sizes = state.shape();
    let mut pairs = sizes.sizes().zip(&wanted);
    let small = pairs.any(|(size, wanted)| round_size(*wanted).is_ok_and(|w| size < w.bytes()));
    state.live.is_some() && (small || state.data.iter().any(|member| member.blank))
}

/// Makes a filesystem on each member that is still blank: once, for until the pool has heard of it
/// there is no snapshot, and nobody has mounted it.
pub(crate) fn fill(pool: &dyn Pool, info: &VolumeInfo) -> Result<(), AgentError> {
    let mut members = info.state.data.iter().zip(&info.data_devices);
    members.by_ref().filter(|(m, _)| m.blank).try_for_each(|(_, d)| fsys::mkfs_blank(d))?;
    pool.filled(info.state.uid)?;
    Ok(())
}

/// Grows the volume to what the spec says, and its filesystems with it: mounted if they are mounted.
/// The filesystems of a volume that was never mounted grow when it is. Returns the sizes reached.
pub(crate) fn grow(
    pool: &dyn Pool,
    view: &AssignedView,
    places: &Places,
) -> Result<Vec<ByteSize>, AgentError> {
    let volume = VolumeUid::from(view.uid);
    let present = pool.volume(volume)?.state.shape();
    for (member, (size, wanted)) in present.sizes().zip(view.spec.sizes()).enumerate() {
        let wanted = round_size(wanted)?;
        if size < wanted.bytes() {
            pool.resize_member(volume, member, wanted)?;
        }
    }
    let info = pool.volume(volume)?;
    let places = places.of_set(info.state.data.len());
    match fsys::mounted(places)?.is_empty() {
        false => {
            for (device, place) in mounts::devices(&info).iter().zip(places) {
                fsys::grow_mounted(device, place)?;
            }
        }
        true => {
            pool.activate(volume, view.chain.epoch)?;
            let grown = at_rest(pool, view);
            pool.deactivate(volume)?;
            grown?;
        }
    }
    Ok(info.state.shape().sizes().map(ByteSize).collect())
}

/// What is blank is filled, the rest grows.
fn at_rest(pool: &dyn Pool, view: &AssignedView) -> Result<(), AgentError> {
    let info = pool.volume(view.uid.into())?;
    let blank = info.state.data.iter().map(|member| member.blank);
    let blank: Vec<bool> = std::iter::once(false).chain(blank).collect();
    fill(pool, &info)?;
    if act::is_ready(&info.state, view) {
        let mut devices = mounts::devices(&info).into_iter().zip(blank);
        devices.by_ref().filter(|(_, blank)| !blank).try_for_each(|(d, _)| fsys::grow(&d))?;
    }
    Ok(())
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

    /// The sizes reached; none where the kernel lets no mounted filesystem grow, as for a container of
    /// CI without CAP_SYS_RESOURCE: there, and only there, the refusal says so.
    fn grown(bench: &Bench, view: &AssignedView) -> Option<Vec<ByteSize>> {
        let grown = grow(bench.pool(), view, &bench.places);
        if may_grow() {
            return Some(grown.unwrap());
        }
        assert!(matches!(grown, Err(AgentError::Storage(Error::NotPermitted(_)))), "{grown:?}");
        None
    }

    fn may_grow() -> bool {
        const CAP_SYS_RESOURCE: u32 = 24;
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        u64::from_str_radix(effective.trim(), 16).unwrap() >> CAP_SYS_RESOURCE & 1 == 1
    }

    #[test]
    fn a_mounted_filesystem_grows_with_its_volume() {
        let bench = bench();
        let before = bench.pool().volume(bench.volume()).unwrap().state;
        assert!(is_short(&before, &wants(70).spec) && !is_short(&before, &wants(64).spec));
        let Some(sizes) = grown(&bench, &wants(70)) else {
            assert!(!fills(&bench), "it grows when it is mounted anew");
            return;
        };
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
        assert_eq!(grown(&bench, &wants(128)).is_some(), fills(&bench));
    }

    /// What was snapshotted in between, and promoted, catches up when it is mounted.
    #[test]
    fn a_copy_taken_half_grown_catches_up() {
        let bench = bench();
        bench.pool().resize(bench.volume(), ByteSize::mib(128)).unwrap();
        bench.unmount();
        let device = bench.mount();
        assert!(!fills(&bench));
        catch_up(&device, bench.places.root()).unwrap();
        assert!(fills(&bench));
    }

    #[test]
    fn a_volume_at_rest_grows_and_rests_again() {
        let bench = bench();
        bench.unmount();
        grow(bench.pool(), &wants(256), &bench.places).unwrap();
        assert_eq!(bench.pool().volume(bench.volume()).unwrap().device, None);
        bench.mount();
        assert!(fills(&bench));
    }

    /// A crash in the middle: what is blank is made a filesystem of, once, and grows from then on.
    #[test]
    fn a_blank_member_gets_its_filesystem_once() {
        let bench = Bench::of_set();
        std::fs::write(bench.places.all()[1].join("kept"), "kept").unwrap();
        bench.unmount();
        let mut view = wants(64);
        let volumes = ["data=64MiB:/srv", "logs=32MiB:/var/log"];
        view.spec.volumes = volumes.map(|v| v.parse().unwrap()).into();
        bench.pool().set_role(bench.volume(), "ready").unwrap();
        assert!(is_short(&bench.pool().volume(bench.volume()).unwrap().state, &view.spec));
        let sizes = grow(bench.pool(), &view, &bench.places).unwrap();
        assert_eq!(sizes, [64, 64, 32].map(ByteSize::mib));
        bench.mount();
        let devices = mounts::devices(&bench.pool().volume(bench.volume()).unwrap());
        assert!(devices.iter().all(|device| fsys::fills_device(device).unwrap()));
        assert_eq!(std::fs::read(bench.places.all()[1].join("kept")).unwrap(), b"kept");
    }
}

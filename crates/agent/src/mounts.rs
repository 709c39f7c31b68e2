//! Mounting a container's volume with all its members, and the directories inside that data volumes
//! are mounted on.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use holdfast_runtime::ContainerMount;
use holdfast_runtime::image::ROOTFS_DIR;
use holdfast_storage::{Error, Member, Pool, Shape, VolumeInfo, fsys};
use holdfast_types::{AssignedView, ContainerSpec, DataVolume, MountPath, SnapshotId, VolumeUid};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use crate::act::{ROLE_READY, is_ready};
use crate::agent::Parts;
use crate::error::AgentError;
use crate::grow;
use crate::places::Places;

/// What the spec asks of the pool.
pub(crate) fn shape(spec: &ContainerSpec) -> Shape {
    let member = |v: &DataVolume| Member::new(v.name.clone(), v.size);
    Shape { root: spec.disk, data: spec.volumes.iter().map(member).collect() }
}

/// The devices of an active volume's members, the root's first.
pub(crate) fn devices(info: &VolumeInfo) -> Vec<PathBuf> {
    info.device.iter().chain(&info.data_devices).cloned().collect()
}

/// Mounts the volume; the first time, after each filesystem got its own identity and size.
pub(crate) fn mount(parts: &Parts, view: &AssignedView, places: &Places) -> Result<(), AgentError> {
    let (pool, volume) = (&*parts.pool, VolumeUid::from(view.uid));
    pool.activate(volume, view.chain.epoch)?;
    let info = pool.volume(volume)?;
    let places = places.of_set(info.state.data.len());
    if fsys::mounted(places)?.len() == places.len() {
        return Ok(());
    }
    let devices = devices(&info);
    // A copy may be of a time before it was mounted anywhere.
    let mounted_before = info.state.record.role == ROLE_READY;
    let fresh = !is_ready(&info.state, view)
        || !mounted_before && devices.first().is_some_and(|d| is_still(pool, view.image, d));
    if fresh {
        let blank = |at: usize| at > 0 && info.state.data[at - 1].blank;
        for (_, device) in devices.iter().enumerate().filter(|(at, _)| !blank(*at)) {
            // The check replays a journal that a clone's origin may have had: with one to replay a
            // filesystem takes no new identity.
            fsys::grow(device)?;
            fsys::new_uuid(device)?;
        }
    }
    grow::fill(pool, &info)?;
    // Before the first write, after which it is too late for all that.
    pool.set_role(volume, ROLE_READY)?;
    for (at, (device, place)) in devices.iter().zip(places).enumerate() {
        fsys::mount(device, place)?;
        if !fresh {
            grow::catch_up(device, place)?;
        }
        if at > 0 {
            // A data volume begins empty: e2fsck makes it anew if it ever needs it.
            let _ = std::fs::remove_dir(place.join("lost+found"));
        }
    }
    make_mount_points(&view.spec, places)
}

/// Whether the filesystem on `device` has the identity of the snapshot that the volume began as. Where
/// that cannot be read, nobody could take one for the other.
fn is_still(pool: &dyn Pool, origin: SnapshotId, device: &Path) -> bool {
    /// `s_uuid` of an ext4 superblock, which begins at 1024 (linux/fs/ext4/ext4.h).
    const UUID_AT: u64 = 1024 + 0x68;
    let (mut theirs, mut own) = ([0; 16], [0; 16]);
    let origin = pool.open_snapshot(origin.uuid);
    let read = origin.and_then(|mut snapshot| snapshot.read_at(UUID_AT, &mut theirs));
    let device = std::fs::File::open(device);
    read.is_ok()
        && device.is_ok_and(|d| d.read_exact_at(&mut own, UUID_AT).is_ok())
        && own == theirs
}

/// What is mounted in the container, whatever is above first.
pub(crate) fn in_container(spec: &ContainerSpec, places: &Places) -> Vec<ContainerMount> {
    let places = &places.of_set(spec.volumes.len())[1..];
    let mut mounts: Vec<_> = spec
        .volumes
        .iter()
        .zip(places)
        .map(|(volume, at)| ContainerMount { source: at.clone(), path: volume.path.clone() })
        .collect();
    mounts.sort_by_key(|mount| mount.path.parts().count());
    mounts
}

/// Makes the directory that each data volume is mounted on, in whatever will be there then: the root
/// filesystem, or the data volume above.
fn make_mount_points(spec: &ContainerSpec, places: &[PathBuf]) -> Result<(), AgentError> {
    for volume in &spec.volumes {
        let above = |(at, other): (usize, &DataVolume)| {
            Some((at, other.path.as_str().len(), volume.path.below(&other.path)?.to_owned()))
        };
        let others = spec.volumes.iter().enumerate().filter_map(above);
        let (root, path) = match others.max_by_key(|(_, depth, _)| *depth) {
            Some((at, _, rest)) => (places.get(at + 1).cloned(), rest),
            None => {
                let path = volume.path.as_str().trim_start_matches('/').to_owned();
                (places.first().map(|root| root.join(ROOTFS_DIR)), path)
            }
        };
        if let Some(root) = root {
            make_dirs(&root, &path).map_err(|errno| unusable(&volume.path, errno))?;
        }
    }
    Ok(())
}

/// Follows no link: what is in there is not ours, and we are root.
fn make_dirs(root: &Path, path: &str) -> Result<(), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: OwnedFd = openat(CWD, root, flags, Mode::empty())?;
    for part in path.split('/') {
        match mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        at = openat(&at, part, flags, Mode::empty())?;
    }
    Ok(())
}

fn unusable(path: &MountPath, errno: Errno) -> AgentError {
    let what = "making the directory for a volume, which a link or a file may be in the way of:";
    Error::Io { what, path: path.as_str().into(), source: errno.into() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::SnapshotUuid;

    fn spec(volumes: &[&str]) -> ContainerSpec {
        let volumes = volumes.iter().map(|v| v.parse().unwrap()).collect();
        ContainerSpec { volumes, ..ContainerSpec::default() }
    }

    /// A clone that was taken over before its first mount had the identity of its origin, and so two
    /// filesystems of one machine could not be told apart.
    #[test]
    fn a_copy_of_a_clone_that_was_never_mounted_kept_its_origins_identity() {
        let bench = crate::testing::Bench::new();
        bench.unmount();
        let (pool, uid) = (bench.pool(), bench.volume());
        let origin = pool.volume(uid).unwrap().state.next_snapshot(SnapshotUuid::generate());
        let origin = origin.unwrap();
        let taken = holdfast_types::TimestampMs(0);
        pool.snapshot(&origin, taken, &mut holdfast_storage::AlreadyQuiet).unwrap();
        let device = pool.activate(uid, holdfast_types::Epoch(1)).unwrap();
        assert!(is_still(pool, origin, &device));
        fsys::new_uuid(&device).unwrap();
        assert!(!is_still(pool, origin, &device));
        let elsewhere = SnapshotId { uuid: SnapshotUuid::generate(), ..origin };
        assert!(!is_still(pool, elsewhere, &device));
    }

    /// What a spec may ask for, a pool can make, and no more.
    #[test]
    fn specs_and_pools_agree_on_the_number_of_volumes() {
        let pool = crate::testing::snapshotted();
        let uid = VolumeUid(uuid::Uuid::from_u128(1));
        let made = |count: usize| {
            let volumes: Vec<_> = (0..count).map(|n| format!("v{n}=16MiB:/srv/v{n}")).collect();
            let mut spec = spec(&volumes.iter().map(String::as_str).collect::<Vec<_>>());
            spec.image = "busybox".parse().ok();
            spec.disk = holdfast_types::ByteSize::mib(16);
            let shape = shape(&spec);
            (spec.check().is_ok(), pool.create_set(uid, &shape, holdfast_types::Epoch(1)).is_ok())
        };
        assert_eq!(made(holdfast_types::MAX_VOLUMES + 1), (false, false));
        assert_eq!(made(holdfast_types::MAX_VOLUMES), (true, true));
    }

    #[test]
    fn what_is_above_is_mounted_first() {
        let spec = spec(&["db=1GiB:/srv/db", "data=1GiB:/srv", "log=1GiB:/var/log"]);
        let uid = holdfast_types::ContainerUid(uuid::Uuid::from_u128(1));
        let mounts = in_container(&spec, &Places::of(Path::new("/m"), uid));
        let paths: Vec<_> = mounts.iter().map(|m| m.path.as_str()).collect();
        assert_eq!(paths, ["/srv", "/srv/db", "/var/log"]);
        assert!(mounts[0].source.to_str().unwrap().ends_with("+2"));
    }

    #[test]
    fn directories_are_made_where_they_will_be_seen() {
        let dir = tempfile::tempdir().unwrap();
        let places: Vec<PathBuf> = ["root", "db", "data"].map(|n| dir.path().join(n)).into();
        places.iter().for_each(|place| std::fs::create_dir(place).unwrap());
        let rootfs = places[0].join(ROOTFS_DIR);
        std::fs::create_dir(&rootfs).unwrap();
        let spec = spec(&["db=1GiB:/srv/a/db", "data=1GiB:/srv"]);
        make_mount_points(&spec, &places).unwrap();
        make_mount_points(&spec, &places).unwrap();
        assert!(rootfs.join("srv").is_dir() && !rootfs.join("srv/a").exists());
        assert!(places[2].join("a/db").is_dir());
    }

    /// A container's own links lead nowhere on the host.
    #[test]
    fn no_link_is_followed_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let (root, victim) = (dir.path().join("root"), dir.path().join("victim"));
        std::fs::create_dir_all(root.join(ROOTFS_DIR)).unwrap();
        std::fs::create_dir(&victim).unwrap();
        std::os::unix::fs::symlink(&victim, root.join(ROOTFS_DIR).join("srv")).unwrap();
        let made = make_mount_points(&spec(&["data=1GiB:/srv/x"]), &[root]);
        assert!(made.is_err());
        assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
    }
}

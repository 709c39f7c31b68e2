//! One volume's directory: its files, its state, and the order in which they change.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use holdfast_types::{SnapshotUuid, VolumeUid};
use rustix::fs::ioctl_ficlone;

use super::slot::{Guard, Slot, StoredPartial};
use crate::catalog::VolumeState;
use crate::durable;
use crate::loopdev::{Backing, LoopDevice};
use crate::pool::{Outcome, VolumeInfo};
use crate::{Error, Result};

const KIND: &str = "volume";
const PART_KIND: &str = "partial";

pub(super) struct Volume {
    uid: VolumeUid,
    dir: PathBuf,
    slot: Mutex<Slot>,
    /// What the slot says, readable while a slow change holds it; `None` once removed.
    view: Mutex<Option<VolumeInfo>>,
}

impl Volume {
    /// Makes a volume in one step: nothing of it is seen before all of it is durable.
    pub(super) fn make(root: &Path, state: VolumeState, from: Option<&File>) -> Result<Self> {
        let volumes = root.join("volumes");
        let uid = state.uid;
        let (temp, dir) = (volumes.join(format!(".new-{uid}")), volumes.join(uid.to_string()));
        remove_dir(&temp)?;
        fs::create_dir(&temp).map_err(Error::io("making", &temp))?;
        if let Some(live) = &state.live {
            let path = temp.join(live_name(live.generation));
            let file = create(&path)?;
            if let Some(from) = from {
                ioctl_ficlone(&file, from).map_err(Error::io("cloning into", &path))?;
            }
            file.set_len(state.size.bytes()).map_err(Error::io("sizing", &path))?;
            file.sync_all().map_err(Error::io("syncing", &path))?;
        }
        durable::store(&temp.join("volume.json"), KIND, &state)?;
        fs::rename(&temp, &dir).map_err(Error::io("making", &dir))?;
        durable::sync_dir(&volumes)?;
        Ok(Self::new(uid, dir, Slot::new(state, None)))
    }

    /// Reads a volume, checks that its files are there, and removes what nothing names.
    pub(super) fn load(dir: &Path, uid: VolumeUid) -> Result<Self> {
        let manifest = dir.join("volume.json");
        let corrupt =
            |reason: &str| Error::Corrupt { path: manifest.clone(), reason: reason.into() };
        let state: VolumeState =
            durable::load(&manifest, KIND)?.ok_or_else(|| corrupt("it is missing"))?;
        if state.uid != uid {
            return Err(corrupt("it is another volume's"));
        }
        let partial = load_partial(dir);
        let slot = Slot::new(state, partial);
        let volume = Self::new(uid, dir.into(), slot);
        volume.check_files()?;
        Ok(volume)
    }

    fn new(uid: VolumeUid, dir: PathBuf, slot: Slot) -> Self {
        let view = Mutex::new(Some(slot.info()));
        Self { uid, dir, slot: Mutex::new(slot), view }
    }

    pub(super) fn uid(&self) -> VolumeUid {
        self.uid
    }

    pub(super) fn slot(&self) -> Result<Guard<'_>> {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.removed {
            true => Err(Error::NoVolume(self.uid)),
            false => Ok(Guard::new(slot, &self.view)),
        }
    }

    /// Never waits for a change in progress, which may be freezing a filesystem.
    pub(super) fn info(&self) -> Result<VolumeInfo> {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.clone().ok_or(Error::NoVolume(self.uid))
    }

    pub(super) fn snapshot_path(&self, uuid: SnapshotUuid) -> PathBuf {
        self.dir.join(format!("snap-{uuid}"))
    }

    pub(super) fn part_path(&self, uuid: SnapshotUuid) -> PathBuf {
        self.dir.join(format!("part-{uuid}"))
    }

    pub(super) fn live_path(&self, generation: u64) -> PathBuf {
        self.dir.join(live_name(generation))
    }

    /// Takes up the loop device that an earlier life of this process attached, if any.
    pub(super) fn adopt(&self, attached: &[(u32, Backing)]) -> Result<()> {
        let mut slot = self.slot()?;
        if let Some(live) = &slot.state.live {
            let path = self.live_path(live.generation);
            let file = File::open(&path).map_err(Error::io("opening", &path))?;
            let backing = Backing::of(&file, &path)?;
            let found = attached.iter().find(|(_, b)| *b == backing);
            slot.active = match found {
                Some((number, _)) => LoopDevice::adopt(*number)?,
                None => None,
            };
        }
        Ok(())
    }

    /// Makes `next` the volume's state: the commit point of every change.
    pub(super) fn commit(&self, slot: &mut Slot, next: VolumeState) -> Result<()> {
        durable::store(&self.dir.join("volume.json"), KIND, &next)?;
        slot.state = next;
        Ok(())
    }

    /// A change of the state alone.
    pub(super) fn change(
        &self,
        verb: impl FnOnce(&mut VolumeState) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let mut slot = self.slot()?;
        self.change_slot(&mut slot, verb)
    }

    pub(super) fn change_slot(
        &self,
        slot: &mut Slot,
        verb: impl FnOnce(&mut VolumeState) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let mut next = slot.state.clone();
        let outcome = verb(&mut next)?;
        if outcome == Outcome::Changed {
            self.commit(slot, next)?;
        }
        Ok(outcome)
    }

    /// Forgets an interrupted receive; nothing else may be writing it.
    pub(super) fn drop_partial(&self, slot: &mut Slot) -> Result<Outcome> {
        let Some(partial) = slot.partial.take() else { return Ok(Outcome::AlreadyThere) };
        durable::remove_file(&self.dir.join("part.json"))?;
        durable::remove_file(&self.part_path(partial.offer.snapshot.uuid))?;
        Ok(Outcome::Changed)
    }

    /// Durably notes how far a receive is.
    pub(super) fn store_partial(&self, partial: &StoredPartial) -> Result<()> {
        durable::store(&self.dir.join("part.json"), PART_KIND, partial)?;
        self.slot()?.partial = Some(partial.clone());
        Ok(())
    }

    /// The note is not needed after the commit; without its file it means nothing.
    pub(super) fn end_partial(&self, slot: &mut Slot) {
        slot.partial = None;
        if let Err(error) = durable::remove_file(&self.dir.join("part.json")) {
            tracing::debug!(%error, "a finished receive's note stays until the next one");
        }
    }

    /// Removes the volume: renamed out of sight first, in one step.
    pub(super) fn remove(&self, slot: &mut Slot) -> Result<()> {
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        let gone = parent.join(format!(".gone-{}", self.uid));
        remove_dir(&gone)?;
        fs::rename(&self.dir, &gone).map_err(Error::io("removing", &self.dir))?;
        slot.removed = true;
        durable::sync_dir(parent)?;
        remove_dir(&gone)
    }

    fn check_files(&self) -> Result<()> {
        let mut slot = self.slot()?;
        let mut named: Vec<String> = Vec::new();
        named.extend(slot.state.live.as_ref().map(|live| live_name(live.generation)));
        named.extend(slot.state.snapshots.iter().map(|s| format!("snap-{}", s.id.uuid)));
        for name in &named {
            let path = self.dir.join(name);
            if !path.is_file() {
                return Err(Error::Corrupt { path, reason: "it is missing".into() });
            }
        }
        if let Some(partial) = &slot.partial {
            let name = format!("part-{}", partial.offer.snapshot.uuid);
            if self.dir.join(&name).is_file() {
                named.extend([name, "part.json".into()]);
            } else {
                slot.partial = None;
            }
        }
        for entry in fs::read_dir(&self.dir).map_err(Error::io("listing", &self.dir))? {
            let entry = entry.map_err(Error::io("listing", &self.dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = ["live-", "snap-", "part-", "part."].iter().any(|p| name.starts_with(p));
            if (ours || name.ends_with(".tmp")) && !named.contains(&name) {
                durable::remove_file(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A note that cannot be read is as good as none: the receive begins anew.
fn load_partial(dir: &Path) -> Option<StoredPartial> {
    durable::load(&dir.join("part.json"), PART_KIND).ok().flatten()
}

fn live_name(generation: u64) -> String {
    format!("live-{generation}")
}

/// A new empty file in place of whatever an interrupted attempt left.
pub(super) fn create(path: &Path) -> Result<File> {
    durable::remove_file(path)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    file.map_err(Error::io("making", path))
}

/// Removes a directory that may not be there.
pub(super) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path)(e)),
        _ => Ok(()),
    }
}

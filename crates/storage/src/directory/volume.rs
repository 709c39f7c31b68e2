//! One volume's directory: its items, its state, and the order in which they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_types::{SnapshotUuid, VolumeUid};

use super::blocks::Blocks;
use super::inner::{Guard, Inner, StoredPartial};
use crate::catalog::VolumeState;
use crate::durable;
use crate::members::Shape;
use crate::pool::{Outcome, VolumeInfo};
use crate::{Error, Result};

const KIND: &str = "volume";
const PART_KIND: &str = "partial";

pub(super) struct Volume<B: Blocks> {
    pub(super) blocks: Arc<B>,
    uid: VolumeUid,
    dir: PathBuf,
    inner: Mutex<Inner<B>>,
    /// What `inner` says, readable while a slow change holds it; `None` once removed.
    view: Mutex<Option<VolumeInfo>>,
}

impl<B: Blocks> Volume<B> {
    /// Makes a volume in one step: nothing of it is seen before all of it is durable.
    pub(super) fn make(
        blocks: &Arc<B>,
        root: &Path,
        state: VolumeState,
        from: &[PathBuf],
    ) -> Result<Self> {
        let volumes = root.join("volumes");
        let uid = state.uid;
        let (temp, dir) = (volumes.join(format!(".new-{uid}")), volumes.join(uid.to_string()));
        remove_with_items(&**blocks, &temp)?;
        fs::create_dir(&temp).map_err(Error::io("making", &temp))?;
        if let Some(live) = &state.live {
            let items = set(&temp.join(live_name(live.generation)), state.data.len());
            begin(&**blocks, from, &items, &state.shape())?;
            items.iter().try_for_each(|item| blocks.sync(item))?;
        }
        durable::store(&temp.join("volume.json"), KIND, &state)?;
        fs::rename(&temp, &dir).map_err(Error::io("making", &dir))?;
        durable::sync_dir(&volumes)?;
        Ok(Self::new(blocks, uid, dir, Inner::new(state, None)))
    }

    /// Reads a volume, checks that its items are there, and removes what its state does not name.
    pub(super) fn load(blocks: &Arc<B>, dir: &Path, uid: VolumeUid) -> Result<Self> {
        let manifest = dir.join("volume.json");
        let corrupt =
            |reason: &str| Error::Corrupt { path: manifest.clone(), reason: reason.into() };
        let state: VolumeState =
            durable::load(&manifest, KIND)?.ok_or_else(|| corrupt("it is missing"))?;
        if state.uid != uid {
            return Err(corrupt("it is another volume's"));
        }
        let partial = load_partial(dir);
        let volume = Self::new(blocks, uid, dir.into(), Inner::new(state, partial));
        volume.check_items()?;
        Ok(volume)
    }

    fn new(blocks: &Arc<B>, uid: VolumeUid, dir: PathBuf, inner: Inner<B>) -> Self {
        let view = Mutex::new(Some(inner.info()));
        Self { blocks: blocks.clone(), uid, dir, inner: Mutex::new(inner), view }
    }

    /// The hashes of its content (see [`super::scrub`]).
    pub(super) fn hashes_path(&self) -> PathBuf {
        self.dir.join("hashes")
    }

    pub(super) fn uid(&self) -> VolumeUid {
        self.uid
    }

    pub(super) fn lock(&self) -> Result<Guard<'_, B>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.removed {
            true => Err(Error::NoVolume(self.uid)),
            false => Ok(Guard::new(inner, &self.view)),
        }
    }

    /// Never waits for a change in progress, which may be freezing a filesystem.
    pub(super) fn info(&self) -> Result<VolumeInfo> {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.clone().ok_or(Error::NoVolume(self.uid))
    }

    /// The items of a snapshot that has so many data members.
    pub(super) fn snapshot_items(&self, uuid: SnapshotUuid, data: usize) -> Vec<PathBuf> {
        set(&self.dir.join(format!("snap-{uuid}")), data)
    }

    pub(super) fn part_items(&self, uuid: SnapshotUuid, data: usize) -> Vec<PathBuf> {
        set(&self.dir.join(format!("part-{uuid}")), data)
    }

    /// The second names of a snapshot that is being replaced by itself.
    pub(super) fn old_items(&self, uuid: SnapshotUuid, data: usize) -> Vec<PathBuf> {
        set(&self.dir.join(format!("part-{uuid}-old")), data)
    }

    /// The items of the state's live part.
    pub(super) fn live_items(&self, state: &VolumeState) -> Result<Vec<PathBuf>> {
        let live = self.dir.join(live_name(state.live()?.generation));
        Ok(set(&live, state.data.len()))
    }

    /// Takes up the devices that an earlier life of this process attached, if any.
    pub(super) fn adopt(&self, attached: &B::Attached) -> Result<()> {
        let mut inner = self.lock()?;
        if inner.state.live.is_some() {
            for (member, item) in self.live_items(&inner.state)?.iter().enumerate() {
                if let Some(device) = self.blocks.adopt(item, attached)? {
                    inner.active.insert(member, device);
                }
            }
        }
        Ok(())
    }

    /// Makes `next` the volume's state: the commit point of every change.
    pub(super) fn commit(&self, inner: &mut Inner<B>, next: VolumeState) -> Result<()> {
        durable::store(&self.dir.join("volume.json"), KIND, &next)?;
        inner.state = next;
        Ok(())
    }

    /// A change of the state alone.
    pub(super) fn change(
        &self,
        verb: impl FnOnce(&mut VolumeState) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let mut inner = self.lock()?;
        self.change_locked(&mut inner, verb)
    }

    pub(super) fn change_locked(
        &self,
        inner: &mut Inner<B>,
        verb: impl FnOnce(&mut VolumeState) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let mut next = inner.state.clone();
        let outcome = verb(&mut next)?;
        if outcome == Outcome::Changed {
            self.commit(inner, next)?;
        }
        Ok(outcome)
    }

    /// Forgets an interrupted receive; nothing else may be writing it.
    pub(super) fn drop_partial(&self, inner: &mut Inner<B>) -> Result<Outcome> {
        let Some(partial) = inner.partial.take() else { return Ok(Outcome::AlreadyThere) };
        durable::remove_file(&self.dir.join("part.json"))?;
        let items = self.part_items(partial.offer.snapshot.uuid, partial.offer.data.len());
        items.iter().try_for_each(|item| self.blocks.remove(item))?;
        Ok(Outcome::Changed)
    }

    /// Durably notes how far a receive is.
    pub(super) fn store_partial(&self, partial: &StoredPartial) -> Result<()> {
        durable::store(&self.dir.join("part.json"), PART_KIND, partial)?;
        self.lock()?.partial = Some(partial.clone());
        Ok(())
    }

    /// The note is not needed after the commit; without its file it means nothing.
    pub(super) fn end_partial(&self, inner: &mut Inner<B>) {
        inner.partial = None;
        if let Err(error) = durable::remove_file(&self.dir.join("part.json")) {
            tracing::debug!(%error, "a finished receive's note stays until the next one");
        }
    }

    /// Removes the volume: renamed out of sight first, in one step.
    pub(super) fn remove(&self, inner: &mut Inner<B>) -> Result<()> {
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        let gone = parent.join(format!(".gone-{}", self.uid));
        remove_with_items(&*self.blocks, &gone)?;
        fs::rename(&self.dir, &gone).map_err(Error::io("removing", &self.dir))?;
        inner.removed = true;
        durable::sync_dir(parent)?;
        remove_with_items(&*self.blocks, &gone)
    }

    fn check_items(&self) -> Result<()> {
        let mut inner = self.lock()?;
        let mut named: Vec<PathBuf> = Vec::new();
        if inner.state.live.is_some() {
            named.extend(self.live_items(&inner.state)?);
        }
        let snapshots = inner.state.snapshots.iter();
        named.extend(snapshots.flat_map(|s| self.snapshot_items(s.id.uuid, s.data.len())));
        if let Some(path) = named.iter().find(|path| !path.is_file()) {
            return Err(Error::Corrupt { path: path.clone(), reason: "it is missing".into() });
        }
        if let Some(partial) = &inner.partial {
            let items = self.part_items(partial.offer.snapshot.uuid, partial.offer.data.len());
            // Some may have got their name already when the receive was about to end.
            if items.iter().all(|path| path.is_file()) {
                named.extend(items.into_iter().chain([self.dir.join("part.json")]));
            } else {
                inner.partial = None;
            }
        }
        for entry in fs::read_dir(&self.dir).map_err(Error::io("listing", &self.dir))? {
            let entry = entry.map_err(Error::io("listing", &self.dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if named.contains(&entry.path()) {
                continue;
            }
            if is_item(&entry.path()) {
                self.blocks.remove(&entry.path())?;
            } else if name == "part.json" || name.ends_with(".tmp") {
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

/// The names of a set whose root has that one: data member *m* has `+m` behind it.
pub(super) fn set(root: &Path, data: usize) -> Vec<PathBuf> {
    let member = |m: usize| {
        let mut name = root.as_os_str().to_owned();
        name.push(format!("+{m}"));
        PathBuf::from(name)
    };
    std::iter::once(root.to_owned()).chain((1..=data).map(member)).collect()
}

/// Makes the items of a set: each a clone of its counterpart in `from`, or empty where there is none.
pub(super) fn begin<B: Blocks>(
    blocks: &B,
    from: &[PathBuf],
    items: &[PathBuf],
    shape: &Shape,
) -> Result<()> {
    for (member, (item, size)) in items.iter().zip(shape.sizes()).enumerate() {
        match from.get(member) {
            Some(from) => blocks.clone_item(from, item, size)?,
            None => blocks.create(item, size)?,
        }
    }
    Ok(())
}

fn live_name(generation: u64) -> String {
    format!("live-{generation}")
}

/// Whether a file of a volume's directory is the name of an item.
pub(crate) fn is_item(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let begins = ["live-", "snap-", "part-"].iter().any(|prefix| name.starts_with(prefix));
    // A driver may write names as `durable` does, beside them first.
    begins && !name.ends_with(".tmp")
}

/// Removes a volume's directory, which may not be there, with the items that it names.
fn remove_with_items<B: Blocks>(blocks: &B, dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("listing", dir))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io("listing", dir))?.path();
        if is_item(&path) {
            blocks.remove(&path)?;
        }
    }
    remove_dir(dir)
}

/// Removes a directory that may not be there.
pub(super) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path)(e)),
        _ => Ok(()),
    }
}

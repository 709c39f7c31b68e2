//! Looking whether a replica is still what it was when it came.
//!
//! `hashes` holds an entry for each block of 4 MiB: BLAKE3 of its content, cut to 24 bytes, and 8
//! bytes that vouch for the entry, its place and its *life*. The life that counts is in the volume's
//! state ([`ScrubState`](crate::catalog::ScrubState)), with the snapshot that the entries are of. A
//! look writes its entries first and commits then: they are true of what was read, so a crash between
//! does no harm. A delta that goes on from that snapshot strikes the entries of what it wrote to
//! before it is committed; anything else begins a new life, in which no entry counts.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_types::{SnapshotUuid, VolumeUid};

use super::DirectoryPool;
use super::blocks::{Blocks, ReadAt};
use super::inner::Looking;
use super::volume::Volume;
use crate::catalog::{HASH_BLOCK, Touched};
use crate::members::{Shape, locate, start};
use crate::pool::{Rot, Scrubbed};
use crate::{Error, Result};

const HASH: usize = 24;
const ENTRY: usize = 32;

/// What is looked at, as it was when the look began.
struct Look {
    snapshot: SnapshotUuid,
    first: u64,
    end: u64,
    /// It reaches the end of the volume.
    whole: bool,
    shape: Shape,
    /// The life of the hashes to compare with, if there are any of this snapshot.
    life: Option<u64>,
}

pub(super) fn look<B: Blocks>(
    pool: &DirectoryPool<B>,
    uid: VolumeUid,
    blocks: u32,
    meanwhile: impl FnOnce(),
) -> Result<Scrubbed> {
    let volume = pool.get(uid)?;
    let Some(look) = begin(&volume, blocks)? else { return Ok(Scrubbed::default()) };
    let looked = look.carry_out(pool, &volume, meanwhile);
    if looked.is_err() {
        volume.lock()?.looking = None;
    }
    looked
}

#[cfg(test)]
impl<B: Blocks> DirectoryPool<B> {
    /// A look between whose reading and whose end something happens.
    pub(crate) fn look_while(
        &self,
        uid: VolumeUid,
        blocks: u32,
        meanwhile: impl FnOnce(),
    ) -> Result<Scrubbed> {
        look(self, uid, blocks, meanwhile)
    }
}

impl Look {
    fn carry_out<B: Blocks>(
        &self,
        pool: &DirectoryPool<B>,
        volume: &Volume<B>,
        meanwhile: impl FnOnce(),
    ) -> Result<Scrubbed> {
        let held = pool.open_held(self.snapshot)?;
        let (member, _) = locate(self.first * HASH_BLOCK);
        let item = held.items.get(member).ok_or(Error::NoSnapshot(self.snapshot))?;
        let mut reader = pool.blocks.reader(item)?;
        let path = volume.hashes_path();
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let file = options.open(&path).map_err(Error::io("opening", &path))?;
        let (scrubbed, hashes) = read(self, &mut *reader, &file, &path)?;
        if scrubbed.rot.is_some_and(|rot| rot.unreadable) {
            pool.blocks.answers()?;
        }
        meanwhile();
        end(volume, self, &scrubbed, &hashes, (&file, &path))?;
        Ok(scrubbed)
    }
}

/// Says what to look at, and that a look is under way.
fn begin<B: Blocks>(volume: &Volume<B>, blocks: u32) -> Result<Option<Look>> {
    let mut inner = volume.lock()?;
    if inner.state.live.is_some() {
        return Ok(None);
    }
    let Some(newest) = inner.state.newest() else { return Ok(None) };
    if inner.looking.is_some() {
        return Err(Error::InUse(format!("the scrub of volume {}", volume.uid())));
    }
    let (snapshot, shape) = (newest.id.uuid, newest.shape());
    let scrub = &inner.state.scrub;
    let ours = scrub.of == Some(snapshot);
    let first = if ours { scrub.next } else { 0 };
    let (first, end, whole) = next_of(&shape, first, u64::from(blocks.max(1)));
    let life = ours.then_some(scrub.life);
    inner.looking = Some(Looking { lineage: vec![snapshot], touched: Touched::default() });
    Ok(Some(Look { snapshot, first, end, whole, shape, life }))
}

/// The blocks to look at next, from `first` on, all of one member; and whether they are the last.
fn next_of(shape: &Shape, first: u64, most: u64) -> (u64, u64, bool) {
    let members = shape.sizes().enumerate().map(|(member, size)| {
        let begin = start(member) / HASH_BLOCK;
        (begin, begin + size.div_ceil(HASH_BLOCK))
    });
    let members: Vec<_> = members.collect();
    let last = members.last().map_or(0, |member| member.1);
    let found = members.iter().find(|member| first < member.1).or(members.first());
    let (begin, end) = found.copied().unwrap_or_default();
    let first = if first < last { first.max(begin) } else { begin };
    let end = end.min(first + most);
    (first, end, end == last)
}

/// Reads and compares. Returns the hash of each block, up to the first that has rotted.
fn read(
    look: &Look,
    reader: &mut dyn ReadAt,
    file: &File,
    path: &Path,
) -> Result<(Scrubbed, Vec<[u8; HASH]>)> {
    let mut scrubbed = Scrubbed { whole: look.whole, ..Scrubbed::default() };
    let mut hashes = Vec::new();
    let mut buffer = vec![0; usize::try_from(HASH_BLOCK).unwrap_or(0)];
    reader.forget_cached();
    for block in look.first..look.end {
        let (member, offset) = locate(block * HASH_BLOCK);
        let size = look.shape.sizes().nth(member).unwrap_or(0);
        let len = HASH_BLOCK.min(size.saturating_sub(offset));
        let content = &mut buffer[..usize::try_from(len).unwrap_or(0)];
        let known = match look.life {
            Some(life) => stored(file, path, block, life)?,
            None => None,
        };
        let hash = hash_of(reader, offset, content)?;
        scrubbed.read += len;
        scrubbed.compared += if known.is_some() { len } else { 0 };
        match hash {
            Some(hash) if known.is_none_or(|known| known == hash) => hashes.push(hash),
            _ => {
                let unreadable = hash.is_none();
                let offset = block * HASH_BLOCK;
                scrubbed.rot = Some(Rot { snapshot: look.snapshot, offset, unreadable });
                return Ok((scrubbed, hashes));
            }
        }
    }
    Ok((scrubbed, hashes))
}

/// `None` if the disk does not return it.
fn hash_of(reader: &mut dyn ReadAt, offset: u64, content: &mut [u8]) -> Result<Option<[u8; HASH]>> {
    match reader.read_at(offset, content) {
        Ok(()) => {}
        Err(Error::Io { source, .. }) if is_medium_error(&source) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut hash = [0; HASH];
    hash.copy_from_slice(&blake3::hash(content).as_bytes()[..HASH]);
    Ok(Some(hash))
}

/// What a disk that has lost a block answers with (`EIO`, `EBADMSG` from integrity checks,
/// `ENODATA` from critical medium errors).
fn is_medium_error(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let lost = [Errno::IO, Errno::BADMSG, Errno::NODATA];
    error.raw_os_error().is_some_and(|code| lost.iter().any(|e| e.raw_os_error() == code))
}

/// Writes down what was found, unless the volume has become another meanwhile.
fn end<B: Blocks>(
    volume: &Volume<B>,
    look: &Look,
    scrubbed: &Scrubbed,
    hashes: &[[u8; HASH]],
    (file, path): (&File, &Path),
) -> Result<()> {
    let mut inner = volume.lock()?;
    let Some(Looking { lineage, touched }) = inner.looking.take() else { return Ok(()) };
    let mut next = inner.state.clone();
    if scrubbed.rot.is_some() {
        // A live part that has begun meanwhile does not make what it began as any better.
        next.rot(&lineage);
        return volume.commit(&mut inner, next);
    }
    let newest = next.newest().map(|s| s.id.uuid).filter(|uuid| lineage.contains(uuid));
    if newest.is_none() || next.live.is_some() {
        return Ok(());
    }
    if next.scrub.of != newest {
        next.scrub.begin_anew(newest);
    }
    // Without room nothing is noted, and what was noted before goes on being compared with.
    let noted = if volume.blocks.has_room_for_notes()? { hashes } else { &[] };
    for (block, hash) in (look.first..).zip(noted).filter(|(block, _)| !touched.contains(*block)) {
        let entry = entry(block, hash, next.scrub.life);
        file.write_all_at(&entry, block * ENTRY as u64).map_err(Error::io("writing", path))?;
    }
    file.sync_data().map_err(Error::io("syncing", path))?;
    next.scrub.next = if look.whole { 0 } else { look.end };
    volume.commit(&mut inner, next)
}

/// Durably takes away the hashes of blocks that are about to be others.
pub(super) fn strike(path: &Path, touched: &Touched) -> Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(Error::io("opening", path))?,
    };
    let end = file.metadata().map_err(Error::io("reading", path))?.len();
    for block in touched.blocks().take_while(|block| block * (ENTRY as u64) < end) {
        let at = block * ENTRY as u64;
        file.write_all_at(&[0; ENTRY], at).map_err(Error::io("writing", path))?;
    }
    file.sync_data().map_err(Error::io("syncing", path))
}

fn entry(block: u64, hash: &[u8; HASH], life: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..HASH].copy_from_slice(hash);
    entry[HASH..].copy_from_slice(&vouch(block, hash, life));
    entry
}

fn vouch(block: u64, hash: &[u8], life: u64) -> [u8; ENTRY - HASH] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&block.to_le_bytes()).update(&life.to_le_bytes()).update(hash);
    let mut vouch = [0; ENTRY - HASH];
    vouch.copy_from_slice(&hasher.finalize().as_bytes()[..ENTRY - HASH]);
    vouch
}

/// The hash of a block, if its entry is whole and of that life: a damaged list of hashes is no
/// damaged copy.
fn stored(file: &File, path: &Path, block: u64, life: u64) -> Result<Option<[u8; HASH]>> {
    let mut entry = [0; ENTRY];
    match file.read_exact_at(&mut entry, block * ENTRY as u64) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(Error::io("reading", path)(e)),
    }
    let (hash, vouched) = entry.split_at(HASH);
    let mut whole = [0; HASH];
    whole.copy_from_slice(hash);
    Ok((vouch(block, hash, life) == vouched).then_some(whole))
}

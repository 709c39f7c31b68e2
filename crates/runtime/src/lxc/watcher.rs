//! Notices at once, and at no cost while nothing happens, that containers begin and end.
//!
//! One thread, one inotify descriptor: it watches the directories that hold the containers' groups
//! for new and removed ones, and each group's `cgroup.events`, which the kernel marks as modified
//! whenever `populated` changes (cgroups(7)). A container runs while one of its groups is
//! populated; the changes of that are the events. A group that is removed before it was ever seen
//! populated counts as an end: its container may have lived that shortly.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use holdfast_types::ContainerUid;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{
    CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch,
};
use rustix::io::Errno;

use super::driver::uid_of_group;
use super::groups::read_events;
use super::io_error;
use crate::{RunEvent, RuntimeError, Watching};

type Sink = Box<dyn Fn(RunEvent) + Send>;

/// A running watch; dropping it ends the thread.
pub(super) struct Watcher {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watching for Watcher {}

impl Watcher {
    /// Watches the groups in these directories.
    pub(super) fn start(dirs: [PathBuf; 2], sink: Sink) -> Result<Self, RuntimeError> {
        let error = || io_error("watch", &dirs[0]);
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let inotify = inotify.map_err(|e| error()(e.into()))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| error()(e.into()))?;
        let stop = Arc::new(stop);
        let mut state = State {
            inotify,
            sink,
            parents: BTreeMap::new(),
            files: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        for dir in &dirs {
            let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
            let wd = add_watch(&state.inotify, dir.as_path(), flags);
            let wd = wd.map_err(|e| io_error("watch", dir)(e.into()))?;
            state.parents.insert(wd, dir.clone());
        }
        // What runs already is known before this returns; only what changes later is told.
        state.scan();
        let stopping = Arc::clone(&stop);
        let run = move || state.run(&stopping);
        let thread = thread::Builder::new().name("runtime-watch".into()).spawn(run);
        Ok(Self { stop, thread: Some(thread.map_err(error())?) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        let from_inside = |t: &JoinHandle<()>| t.thread().id() == thread::current().id();
        if let Some(thread) = self.thread.take().filter(|t| !from_inside(t)) {
            let _ = thread.join();
        }
    }
}

struct State {
    inotify: OwnedFd,
    sink: Sink,
    /// Watched directories by watch descriptor.
    parents: BTreeMap<i32, PathBuf>,
    /// Watched groups by watch descriptor.
    files: BTreeMap<i32, (ContainerUid, PathBuf)>,
    known: BTreeMap<ContainerUid, Known>,
}

#[derive(Default)]
struct Known {
    groups: BTreeMap<PathBuf, i32>,
    running: bool,
    ever_ran: bool,
}

/// What a batch of inotify events said.
#[derive(Default)]
struct Batch {
    created: BTreeSet<PathBuf>,
    deleted: BTreeSet<PathBuf>,
    touched: BTreeSet<ContainerUid>,
    lost_some: bool,
}

impl State {
    fn run(mut self, stop: &OwnedFd) {
        loop {
            let mut fds =
                [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => (),
                Err(error) => {
                    return tracing::error!(%error, "the watch for ending containers broke");
                }
            }
            if !fds[1].revents().is_empty() {
                return;
            }
            let batch = self.read();
            self.handle(batch);
        }
    }

    /// Learns of every group that is there, without telling anybody.
    fn scan(&mut self) {
        for group in self.groups_on_disk() {
            if let Some(uid) = self.add(&group) {
                self.known.entry(uid).or_default().running |= is_populated(&group);
            }
        }
        for known in self.known.values_mut() {
            known.ever_ran = known.running;
        }
    }

    fn groups_on_disk(&self) -> Vec<PathBuf> {
        let children = self.parents.values().filter_map(|dir| std::fs::read_dir(dir).ok());
        let entries = children.flat_map(|entries| entries.flatten());
        let dirs = entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|e| e.path()).collect()
    }

    fn read(&self) -> Batch {
        let mut batch = Batch::default();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        // Ends with EAGAIN.
        while let Ok(event) = reader.next() {
            let flags = event.events();
            batch.lost_some |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
            if let Some((uid, _)) = self.files.get(&event.wd()) {
                batch.touched.insert(*uid);
            }
            let name = event.file_name().and_then(|name| name.to_str().ok());
            let (Some(parent), Some(name)) = (self.parents.get(&event.wd()), name) else {
                continue;
            };
            let group = parent.join(name);
            if flags.contains(ReadFlags::CREATE) {
                batch.deleted.remove(&group);
                batch.created.insert(group);
            } else if flags.contains(ReadFlags::DELETE) {
                batch.created.remove(&group);
                batch.deleted.insert(group);
            }
        }
        batch
    }

    fn handle(&mut self, batch: Batch) {
        let mut touched = batch.touched;
        for group in batch.deleted {
            touched.extend(self.remove(&group));
        }
        let mut created = batch.created;
        if batch.lost_some {
            touched.extend(self.known.keys());
            created.extend(self.groups_on_disk());
        }
        for group in created {
            // One that was removed and made again has a new file to watch.
            self.remove(&group);
            touched.extend(self.add(&group));
        }
        touched.into_iter().for_each(|uid| self.evaluate(uid));
    }

    /// Tells what changed about a container.
    fn evaluate(&mut self, uid: ContainerUid) {
        let running = self.parents.values().any(|dir| is_running(dir, uid));
        // Unknown are those whose groups were made and removed within one batch.
        let known = self.known.entry(uid).or_default();
        let was = std::mem::replace(&mut known.running, running);
        let unseen_end = known.groups.is_empty() && !known.ever_ran;
        known.ever_ran |= running;
        if known.groups.is_empty() && !running {
            self.known.remove(&uid);
        }
        match (was, running) {
            (false, true) => (self.sink)(RunEvent::Running(uid)),
            (true, false) => (self.sink)(RunEvent::Exited(uid)),
            (false, false) if unseen_end => (self.sink)(RunEvent::Exited(uid)),
            _ => (),
        }
    }

    fn add(&mut self, group: &Path) -> Option<ContainerUid> {
        let uid = group.file_name().and_then(|name| name.to_str()).and_then(uid_of_group)?;
        let file = group.join("cgroup.events");
        // It may be gone again; its removal is an event of its own.
        if let Ok(wd) = add_watch(&self.inotify, &file, WatchFlags::MODIFY) {
            self.files.insert(wd, (uid, group.to_owned()));
            self.known.entry(uid).or_default().groups.insert(group.to_owned(), wd);
        }
        Some(uid)
    }

    fn remove(&mut self, group: &Path) -> Option<ContainerUid> {
        let uid = group.file_name().and_then(|name| name.to_str()).and_then(uid_of_group)?;
        if let Some(wd) = self.known.get_mut(&uid).and_then(|known| known.groups.remove(group)) {
            self.files.remove(&wd);
            let _ = remove_watch(&self.inotify, wd);
        }
        Some(uid)
    }
}

/// Whether a container runs below this directory. LXC's monitor moves from its group to the pivot,
/// which may have been made since: looked at by name, and in an order that cannot miss it.
fn is_running(dir: &Path, uid: ContainerUid) -> bool {
    let names = ["", ".monitor", ".pivot"].map(|suffix| format!("{uid}{suffix}"));
    names.iter().any(|name| is_populated(&dir.join(name)))
}

/// A group that cannot be read is not there any more.
fn is_populated(group: &Path) -> bool {
    read_events(group).is_ok_and(|events| events.populated)
}

//! An in-memory [`Runtime`]: a table of what runs, with faults on demand.
//!
//! Clones share one table, so a test that "restarts the daemon" keeps a clone and hands it to the
//! next one: its containers are there to be adopted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use holdfast_types::{ContainerUid, Protection};

use crate::{
    Changed, ExecChild, ExecOutput, ExecRequest, ExecSession, ExecStatus, RunEvent, Runtime,
    RuntimeError, StartRequest, Started, Status, Stopped, TermSize, Usage, Watching,
};

type Sink = Box<dyn Fn(RunEvent) + Send>;

/// The fake. Cheap to clone; clones share their containers.
#[derive(Clone, Default)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<ContainerUid, Entry>,
    starts: Vec<StartRequest>,
    refuse_start: BTreeSet<ContainerUid>,
    hung: bool,
    entered: BTreeSet<ContainerUid>,
    next_pid: u32,
    sinks: Vec<Weak<Mutex<Sink>>>,
}

struct Entry {
    protection: Protection,
    frozen: bool,
    init_pid: u32,
}

struct Guard(#[allow(dead_code, reason = "held so that the watch lives")] Arc<Mutex<Sink>>);

impl Watching for Guard {}

struct Ended(ExecStatus);

impl ExecChild for Ended {
    fn wait(&mut self, _timeout: Duration) -> Result<Option<ExecStatus>, RuntimeError> {
        Ok(Some(self.0))
    }

    fn kill(&mut self) {}

    fn resize(&mut self, _size: TermSize) -> Result<(), RuntimeError> {
        Ok(())
    }
}

impl FakeRuntime {
    /// An empty node.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every start that was carried out, in order.
    pub fn starts(&self) -> Vec<StartRequest> {
        self.lock().starts.clone()
    }

    /// Lets the init of a container end by itself.
    pub fn exit(&self, uid: ContainerUid) {
        let gone = self.lock().running.remove(&uid).is_some();
        if gone {
            self.tell(RunEvent::Exited(uid));
        }
    }

    /// Kills everything protected, as the guardian does.
    pub fn kill_protected(&self) {
        let mut gone = Vec::new();
        self.lock().running.retain(|uid, entry| {
            let keep = entry.protection == Protection::Pinned;
            if !keep {
                gone.push(*uid);
            }
            keep
        });
        gone.into_iter().for_each(|uid| self.tell(RunEvent::Exited(uid)));
    }

    /// Lets starts of a container fail (its init ends at once), or not any more.
    pub fn refuse_start(&self, uid: ContainerUid, refuse: bool) {
        let mut state = self.lock();
        if refuse {
            state.refuse_start.insert(uid)
        } else {
            state.refuse_start.remove(&uid)
        };
    }

    /// Lets every call that runs a program time out, as against a frozen tree.
    pub fn hang(&self, hung: bool) {
        self.lock().hung = hung;
    }

    /// Leaves a start behind that is not over, as a daemon does that dies in one.
    pub fn enter(&self, uid: ContainerUid) {
        self.lock().entered.insert(uid);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answering(&self, what: &'static str) -> Result<MutexGuard<'_, State>, RuntimeError> {
        let state = self.lock();
        if state.hung {
            let last_lines = "the fake hangs".to_owned();
            return Err(RuntimeError::Timeout { what, after_ms: 0, last_lines });
        }
        Ok(state)
    }

    fn tell(&self, event: RunEvent) {
        let sinks: Vec<_> = self.lock().sinks.iter().filter_map(Weak::upgrade).collect();
        for sink in sinks {
            sink.lock().unwrap_or_else(PoisonError::into_inner)(event);
        }
    }

    fn set_frozen(&self, uid: ContainerUid, frozen: bool) -> Result<Changed, RuntimeError> {
        let mut state = self.lock();
        let entry = state.running.get_mut(&uid).ok_or(RuntimeError::NotRunning(uid))?;
        let changed = entry.frozen != frozen;
        entry.frozen = frozen;
        Ok(if changed { Changed::Yes } else { Changed::No })
    }

    fn remove(&self, uid: ContainerUid, how: Stopped) -> Stopped {
        if self.lock().running.remove(&uid).is_none() {
            return Stopped::NotRunning;
        }
        self.tell(RunEvent::Exited(uid));
        how
    }
}

impl Runtime for FakeRuntime {
    fn start(&self, request: &StartRequest) -> Result<Started, RuntimeError> {
        let uid = request.uid;
        let init_pid = {
            let mut state = self.answering("lxc-start")?;
            if let Some(entry) = state.running.get(&uid) {
                return Ok(Started::AlreadyRunning { init_pid: entry.init_pid });
            }
            if state.refuse_start.contains(&uid) {
                let last_lines = "the fake was told to fail".to_owned();
                return Err(RuntimeError::StartFailed { uid, last_lines });
            }
            state.next_pid += 1;
            let init_pid = 1000 + state.next_pid;
            let entry = Entry { protection: request.protection, frozen: false, init_pid };
            state.running.insert(uid, entry);
            state.starts.push(request.clone());
            init_pid
        };
        self.tell(RunEvent::Running(uid));
        Ok(Started::Started { init_pid })
    }

    fn stop(&self, uid: ContainerUid, _grace: Duration) -> Result<Stopped, RuntimeError> {
        drop(self.answering("lxc-stop")?);
        Ok(self.remove(uid, Stopped::Clean))
    }

    fn kill(&self, uid: ContainerUid) -> Result<Stopped, RuntimeError> {
        self.lock().entered.remove(&uid);
        Ok(self.remove(uid, Stopped::Killed))
    }

    fn status(&self, uid: ContainerUid) -> Result<Status, RuntimeError> {
        Ok(self.lock().running.get(&uid).map_or(Status::Stopped, status_of))
    }

    fn list(&self) -> Result<BTreeMap<ContainerUid, Status>, RuntimeError> {
        Ok(self.lock().running.iter().map(|(uid, entry)| (*uid, status_of(entry))).collect())
    }

    fn entered(&self) -> Result<BTreeSet<ContainerUid>, RuntimeError> {
        Ok(self.lock().entered.clone())
    }

    fn usage(&self, uid: ContainerUid) -> Result<Usage, RuntimeError> {
        match self.lock().running.contains_key(&uid) {
            true => Ok(Usage { memory_bytes: Some(1 << 20), cpu_us: Some(0), pids: Some(1) }),
            false => Err(RuntimeError::NotRunning(uid)),
        }
    }

    fn freeze(&self, uid: ContainerUid) -> Result<Changed, RuntimeError> {
        self.set_frozen(uid, true)
    }

    fn unfreeze(&self, uid: ContainerUid) -> Result<Changed, RuntimeError> {
        self.set_frozen(uid, false)
    }

    /// Echoes the command line.
    fn exec(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
        _deadline: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        if !self.answering("lxc-attach")?.running.contains_key(&uid) {
            return Err(RuntimeError::NotRunning(uid));
        }
        let stdout = format!("{}\n", request.command.join(" ")).into_bytes();
        let status = ExecStatus::Exited(0);
        Ok(ExecOutput { status, stdout, stderr: Vec::new(), truncated: false })
    }

    /// Echoes the command line, and has ended already.
    fn exec_piped(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let output = self.exec(uid, request, Duration::ZERO)?;
        let error = |source| RuntimeError::Io { what: "make", path: "pipe".into(), source };
        let (near, mut far) = std::io::pipe().map_err(error)?;
        far.write_all(&output.stdout).map_err(error)?;
        let child = Box::new(Ended(output.status));
        Ok(ExecSession { stdin: None, stdout: Some(near.into()), stderr: None, child })
    }

    fn console_tail(&self, uid: ContainerUid, max_bytes: u64) -> Result<Vec<u8>, RuntimeError> {
        let mut text = format!("console of {uid}\n").into_bytes();
        let excess = text.len().saturating_sub(usize::try_from(max_bytes).unwrap_or(usize::MAX));
        Ok(text.split_off(excess))
    }

    fn forget(&self, uid: ContainerUid) -> Result<Changed, RuntimeError> {
        match self.lock().running.contains_key(&uid) {
            true => Err(RuntimeError::StillRunning(uid)),
            false => Ok(Changed::No),
        }
    }

    fn watch(&self, sink: Sink) -> Result<Box<dyn Watching>, RuntimeError> {
        let sink = Arc::new(Mutex::new(sink));
        let mut state = self.lock();
        state.sinks.retain(|s| s.strong_count() > 0);
        state.sinks.push(Arc::downgrade(&sink));
        Ok(Box::new(Guard(sink)))
    }
}

fn status_of(entry: &Entry) -> Status {
    Status::Running { protection: entry.protection, frozen: entry.frozen }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn request(uid: ContainerUid) -> StartRequest {
        StartRequest {
            uid,
            hostname: "web".parse().unwrap(),
            protection: Protection::Protected,
            rootfs: "/nowhere".into(),
            mounts: Vec::new(),
            limits: Default::default(),
            command: Vec::new(),
            env: BTreeMap::new(),
            network: None,
        }
    }

    #[test]
    fn a_clone_adopts_what_runs_and_sees_it_end() {
        let uid = ContainerUid::generate();
        let first = FakeRuntime::new();
        assert!(matches!(first.start(&request(uid)), Ok(Started::Started { .. })));
        let second = first.clone();
        drop(first);
        let (tx, rx) = mpsc::channel();
        let watching = second.watch(Box::new(move |e| tx.send(e).unwrap())).unwrap();
        assert!(matches!(second.start(&request(uid)), Ok(Started::AlreadyRunning { .. })));
        assert_eq!(second.freeze(uid).unwrap(), Changed::Yes);
        assert_eq!(second.freeze(uid).unwrap(), Changed::No);
        second.kill_protected();
        assert_eq!(rx.recv().unwrap(), RunEvent::Exited(uid));
        assert_eq!(second.status(uid).unwrap(), Status::Stopped);
        drop(watching);
        assert!(rx.recv().is_err());
    }
}

//! Freezing the filesystems of a volume for the instant of a snapshot, by a process of its own.
//!
//! ```text
//! parent                         helper
//!   spawn ───────────────────────▶ open, syncfs, FIFREEZE all, suspend the devices to hold
//!   ◀──────────────── "frozen" ──  wait for stdin to end, at most `limit`
//!   (clone)
//!   close stdin ─────────────────▶ resume them, FITHAW all
//!   ◀───── "thawed" | "expired" ─  exit
//! ```
//! The end of stdin is what the helper waits for, so a parent that dies, however, thaws. A parent
//! that gives up on a helper stuck in the kernel only closes stdin and never kills it: the helper
//! thaws whatever it has frozen as soon as it can.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::{Error, Outcome, Quiesce, Result, wait};

/// How long a filesystem may take to write out what is dirty and freeze.
const FREEZE_TIME: Duration = Duration::from_secs(30);
/// How long thawing may take.
const THAW_TIME: Duration = Duration::from_secs(5);

/// How to start the helper: `<program> <args…> freeze|thaw …`, which must end up in
/// [`helper_main`](super::helper_main). The binary `holdfast-freeze` is one such program.
#[derive(Debug, Clone)]
pub struct FreezeHelper {
    program: PathBuf,
    args: Vec<OsString>,
}

impl FreezeHelper {
    /// A program that hands what follows `args` to `helper_main`.
    pub fn new(program: impl Into<PathBuf>, args: &[&str]) -> Self {
        Self { program: program.into(), args: args.iter().map(OsString::from).collect() }
    }

    /// A window for one snapshot of what is mounted at `mountpoints`, all of it; it closes by itself
    /// after `limit`, and then the snapshot fails.
    pub fn window(&self, mountpoints: &[impl AsRef<Path>], limit: Duration) -> FreezeWindow {
        FreezeWindow {
            helper: self.clone(),
            mountpoints: mountpoints.iter().map(|at| at.as_ref().to_owned()).collect(),
            limit,
            hold: Vec::new(),
            running: None,
            pause: None,
        }
    }

    /// Thaws what a crash left frozen. The calling process cannot hang by it.
    pub fn thaw(&self, mountpoint: &Path) -> Result<Outcome> {
        self.let_go(&[mountpoint.to_owned()], &[])
    }

    fn let_go(&self, mountpoints: &[PathBuf], held: &[String]) -> Result<Outcome> {
        let mut command = self.command("thaw");
        command.arg(mountpoints.len().to_string()).args(mountpoints).args(held);
        let said = wait::run(&mut command, THAW_TIME)?;
        Ok(if said.starts_with("thawed") { Outcome::Changed } else { Outcome::AlreadyThere })
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        // Out of the parent's process group: a ^C must not end it with the filesystem frozen.
        command.args(&self.args).arg(verb).process_group(0);
        command
    }
}

/// One freeze and thaw, to be given to [`Pool::snapshot`](crate::Pool::snapshot).
#[derive(Debug)]
pub struct FreezeWindow {
    helper: FreezeHelper,
    mountpoints: Vec<PathBuf>,
    limit: Duration,
    hold: Vec<String>,
    running: Option<Running>,
    pause: Option<Duration>,
}

#[derive(Debug)]
struct Running {
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl FreezeWindow {
    /// How long writers were held up, once thawed.
    pub fn pause(&self) -> Option<Duration> {
        self.pause
    }

    fn name(&self) -> String {
        self.mountpoints.first().map_or_else(String::new, |at| at.display().to_string())
    }

    fn spawn(&self) -> Result<Running> {
        let mut command = self.helper.command("freeze");
        command.arg(self.limit.as_millis().to_string());
        command.arg(self.mountpoints.len().to_string()).args(&self.mountpoints).args(&self.hold);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                Error::MissingTool(self.helper.program.display().to_string())
            }
            _ => Error::io("starting", &self.helper.program)(source),
        })?;
        match child.stdin.take() {
            Some(stdin) => Ok(Running { stdin, said: listen(child) }),
            None => Err(Error::Timeout("the freeze helper".into())),
        }
    }
}

impl Quiesce for FreezeWindow {
    fn freeze(&mut self, hold: &[&str]) -> Result<()> {
        self.hold = hold.iter().map(|&name| name.to_owned()).collect();
        let running = self.spawn()?;
        match running.said.recv_timeout(FREEZE_TIME).as_deref() {
            Ok("frozen") => {
                self.running = Some(running);
                Ok(())
            }
            Ok(error) => Err(Error::Tool { tool: "freeze".into(), stderr: error.to_owned() }),
            Err(_) => Err(Error::Timeout(format!("{} to freeze", self.name()))),
        }
    }

    fn thaw(&mut self) -> Result<()> {
        let Some(Running { stdin, said }) = self.running.take() else { return Ok(()) };
        drop(stdin);
        let answer = said.recv_timeout(THAW_TIME);
        let (word, micros) = match &answer {
            Ok(line) => line.split_once(' ').unwrap_or((line, "")),
            Err(_) => ("", ""),
        };
        self.pause = micros.parse().ok().map(Duration::from_micros);
        match word {
            "thawed" => Ok(()),
            "expired" => Err(Error::Timeout(format!("the snapshot of {}", self.name()))),
            _ => {
                // The helper died or is stuck: another one thaws, and the snapshot is not used.
                self.helper.let_go(&self.mountpoints, &self.hold)?;
                Err(Error::Timeout("the freeze helper".into()))
            }
        }
    }
}

/// Reads what the helper says, and reaps it, on a thread: it may be stuck in the kernel.
fn listen(mut child: Child) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        for line in lines.map_while(std::result::Result::ok).take(4) {
            // The window may have been dropped; the helper is reaped all the same.
            let _ = sender.send(line);
        }
        let _ = child.wait();
    });
    receiver
}

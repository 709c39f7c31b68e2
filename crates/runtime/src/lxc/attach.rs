//! Programs inside a running container, by `lxc-attach`.
//!
//! They are unprivileged as the container is, and are charged to it; attaching with more rights is
//! not offered (DESIGN section 5, rule 3). `lxc-attach` itself exits with the program's status, or
//! 128 plus the signal that ended it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use holdfast_types::{ContainerUid, Protection};

use super::conf::{INNER_PATH, env_name_ok};
use super::driver::LxcRuntime;
use super::io_error;
use super::terminal::Terminal;
use crate::process::{self, kill_tree};
use crate::{
    ExecChild, ExecOutput, ExecRequest, ExecSession, ExecStatus, RuntimeError, Status, TermSize,
};

impl LxcRuntime {
    pub(super) fn attach_captured(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
        deadline: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let command = self.attach_command(uid, request, &[])?;
        let done = process::run(command, "lxc-attach", deadline, ExecOutput::LIMIT_BYTES)?;
        let (stdout, stderr, truncated) = (done.stdout, done.stderr, done.truncated);
        Ok(ExecOutput { status: status_of(done.status), stdout, stderr, truncated })
    }

    pub(super) fn attach_piped(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        match request.terminal {
            Some(size) => self.attach_terminal(uid, request, size),
            None => self.attach_pipes(uid, request),
        }
    }

    fn attach_pipes(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let mut command = self.attach_command(uid, request, &[])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(&mut command)?;
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        let child = Box::new(Attached { child, ended: None, terminal: None });
        Ok(ExecSession { stdin, stdout, stderr, child })
    }

    /// `setsid --ctty` gives the helper the terminal as its own, so that it hears of new sizes.
    fn attach_terminal(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
        size: TermSize,
    ) -> Result<ExecSession, RuntimeError> {
        let error = || io_error("make a terminal", "/dev/ptmx");
        let terminal = Terminal::open(size).map_err(error())?;
        let before = ["/usr/bin/setsid", "--ctty", "--wait"].map(OsString::from);
        let mut command = self.attach_command(uid, request, &before)?;
        let far_end = || terminal.far_end().map(Stdio::from).map_err(error());
        command.stdin(far_end()?).stdout(far_end()?).stderr(far_end()?);
        let stdin = Some(terminal.near_end().map_err(error())?);
        let stdout = Some(terminal.near_end().map_err(error())?);
        let child = process::spawn(&mut command)?;
        let child = Box::new(Attached { child, ended: None, terminal: Some(terminal) });
        Ok(ExecSession { stdin, stdout, stderr: None, child })
    }

    fn attach_command(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
        before: &[OsString],
    ) -> Result<Command, RuntimeError> {
        let protection = self.attachable(uid)?;
        check(request)?;
        let mut command = self.lxc_command("lxc-attach", protection, uid, before)?;
        command.arg("--clear-env");
        let mut set = |name: &str, value: &str| {
            command.arg("-v").arg(format!("{name}={value}"));
        };
        set("PATH", INNER_PATH);
        set("HOME", "/root");
        if request.terminal.is_some() {
            set("TERM", "xterm-256color");
        }
        request.env.iter().for_each(|(name, value)| set(name, value));
        command.arg("--").args(&request.command);
        Ok(command)
    }

    /// Refuses at once what would only wait for its deadline.
    fn attachable(&self, uid: ContainerUid) -> Result<Protection, RuntimeError> {
        match self.running(uid)? {
            None | Some((_, Status::Stopped)) => Err(RuntimeError::NotRunning(uid)),
            Some((_, Status::Running { frozen: true, .. })) => Err(RuntimeError::Frozen(uid)),
            Some((_, Status::Running { protection, .. })) => Ok(protection),
        }
    }
}

fn check(request: &ExecRequest) -> Result<(), RuntimeError> {
    let invalid = |what, why| Err(RuntimeError::Invalid { what, why });
    if request.command.is_empty() {
        return invalid("the command", "it is empty");
    }
    let values = request.env.values().chain(&request.command);
    if values.into_iter().any(|text| text.contains('\0')) {
        return invalid("the command or environment", "it holds a NUL character");
    }
    if !request.env.keys().all(|name| env_name_ok(name)) {
        return invalid("an environment name", "it is empty or holds '=', quotes or white space");
    }
    Ok(())
}

struct Attached {
    child: Child,
    ended: Option<ExecStatus>,
    terminal: Option<Terminal>,
}

impl ExecChild for Attached {
    fn wait(&mut self, timeout: Duration) -> Result<Option<ExecStatus>, RuntimeError> {
        if self.ended.is_none() {
            let ended = process::wait_plain(&mut self.child, Instant::now() + timeout);
            self.ended = ended.map_err(io_error("wait for", "lxc-attach"))?.map(status_of);
        }
        Ok(self.ended)
    }

    fn kill(&mut self) {
        if self.ended.is_none() {
            kill_tree(&mut self.child);
        }
    }

    fn resize(&mut self, size: TermSize) -> Result<(), RuntimeError> {
        match &self.terminal {
            Some(terminal) => terminal.resize(size).map_err(io_error("resize", "terminal")),
            None => Ok(()),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.kill();
    }
}

fn status_of(status: ExitStatus) -> ExecStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExecStatus::Exited(code),
        (None, signal) => ExecStatus::Signaled(signal.unwrap_or(0)),
    }
}

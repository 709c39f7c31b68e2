//! Programs that a puppet runs: on this very machine.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_runtime::{ExecChild, ExecRequest, ExecSession, ExecStatus, RuntimeError, TermSize};

/// Runs it with pipes.
pub(crate) fn run(request: &ExecRequest) -> ExecSession {
    let mut command = Command::new(&request.command[0]);
    command.args(&request.command[1..]).envs(&request.env);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    ExecSession {
        stdin: child.stdin.take().map(OwnedFd::from),
        stdout: child.stdout.take().map(OwnedFd::from),
        stderr: child.stderr.take().map(OwnedFd::from),
        child: Box::new(Program(child)),
    }
}

struct Program(Child);

impl ExecChild for Program {
    fn wait(&mut self, timeout: Duration) -> Result<Option<ExecStatus>, RuntimeError> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Ok(Some(status.code().map_or(ExecStatus::Signaled(9), ExecStatus::Exited)));
            }
            if begun.elapsed() > timeout {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(&mut self) {
        drop(self.0.kill());
    }

    fn resize(&mut self, _: TermSize) -> Result<(), RuntimeError> {
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

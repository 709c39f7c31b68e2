//! A program that is part of a cluster: started, killed, started again. It ends with this one.

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// The program.
pub(crate) struct Process {
    /// What is run: a program and its arguments.
    command: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts it. Whatever it says goes to `log`.
    pub(crate) fn start(command: Vec<OsString>, log: PathBuf) -> Result<Self> {
        let mut process = Self { command, log, child: None };
        process.again()?;
        Ok(process)
    }

    /// Starts it, if it does not run.
    pub(crate) fn again(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.command);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("setpriv: apt-get install util-linux")?);
        Ok(())
    }

    /// Its process id, if it runs.
    pub(crate) fn pid(&mut self) -> Result<u32> {
        let child = self.child.as_mut().context("it was killed")?;
        if let Some(status) = child.try_wait()? {
            bail!("it has ended ({status}): see {}", self.log.display());
        }
        Ok(child.id())
    }

    /// SIGKILL, and returns once it is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends with this process at the latest.
        drop(self.kill());
    }
}

/// A port that nobody listens on. Taken and given back: nothing else asks for it in between.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Thousands of connections, here and in what is started here.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, connecting says so later.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap_or_default();
}

/// Processor time that a process has used, in seconds (`proc(5)`, fields 14 and 15 of `stat`).
pub(crate) fn processor_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("a process's stat")?.1;
    let field = |n: usize| rest.split_whitespace().nth(n).and_then(|t| t.parse::<u64>().ok());
    let ticks = field(11).context("utime")? + field(12).context("stime")?;
    let out = Command::new("getconf").arg("CLK_TCK").output().context("getconf")?;
    let per_s: f64 = String::from_utf8(out.stdout)?.trim().parse()?;
    Ok(ticks as f64 / per_s)
}

/// Memory of a process that is not shared or swapped, in MiB.
pub(crate) fn memory_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("VmRSS")?;
    let kib = line.split_whitespace().nth(1).and_then(|t| t.parse::<f64>().ok());
    Ok(kib.context("VmRSS in KiB")? / 1024.0)
}

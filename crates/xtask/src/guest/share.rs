//! The directory that guest and host have in common, by virtiofs: it carries the command in, and
//! its exit status out (QEMU's own says nothing: a power-off and a crash are alike to it).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Where Debian 12's qemu-system-common has it.
const SERVER: &str = "/usr/lib/qemu/virtiofsd";
const SERVER_STARTS: Duration = Duration::from_secs(10);

/// The directory of the share in which a suite leaves logs when it fails.
pub(super) const LOGS: &str = "logs";

/// A directory being served.
pub(crate) struct Share {
    server: Child,
    socket: PathBuf,
    /// Within the share: the files `command` and `status`.
    control: TempDir,
}

impl Share {
    /// Serves `dir`, or else an empty one in `scratch`, to a guest that is to run `command`.
    pub(crate) fn serve(dir: Option<&Path>, scratch: &Path, command: &[String]) -> Result<Self> {
        let dir = match dir {
            Some(dir) => dir.canonicalize().with_context(|| dir.display().to_string())?,
            None => {
                let own = scratch.join("share");
                // It is there if the guest is started again.
                fs::create_dir_all(&own)?;
                own
            }
        };
        let control = tempfile::Builder::new().prefix(".guest-").tempdir_in(&dir)?;
        fs::write(control.path().join("command"), encode(command))?;
        let socket = scratch.join("virtiofs.sock");
        // That of a boot before would be taken for the new one.
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let log = fs::File::create(scratch.join("virtiofs.log"))?;
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", SERVER, "-o", "sandbox=chroot", "-o"])
            .arg(format!("source={}", dir.display()))
            .arg(format!("--socket-path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context(SERVER)?;
        let mut share = Self { server, socket, control };
        share.wait_until_served(scratch)?;
        Ok(share)
    }

    fn wait_until_served(&mut self, scratch: &Path) -> Result<()> {
        let until = Instant::now() + SERVER_STARTS;
        while !self.socket.exists() {
            if self.server.try_wait()?.is_some() || Instant::now() > until {
                let log = fs::read_to_string(scratch.join("virtiofs.log")).unwrap_or_default();
                bail!("{SERVER} does not serve: {}", log.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where QEMU finds the server.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The control directory's name within the share.
    pub(crate) fn control(&self) -> String {
        self.control.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The command's exit status; none if it has not ended.
    pub(crate) fn status(&self) -> Result<Option<i32>> {
        match fs::read_to_string(self.control.path().join("status")) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => Ok(Some(text.trim().parse().context("the command's status")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("the command's status"),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // It ends by itself when QEMU lets go of it: then there is nothing to kill.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Brings what a suite has left in its share's [`LOGS`] to where it stays. Returns whether there was any.
pub(super) fn keep_logs(share: &Path, to: &Path) -> Result<bool> {
    let Ok(logs) = fs::read_dir(share.join(LOGS)) else { return Ok(false) };
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| to.display().to_string())?;
    }
    fs::create_dir(to).with_context(|| to.display().to_string())?;
    for log in logs {
        let log = log.context("reading the share")?;
        fs::copy(log.path(), to.join(log.file_name()))
            .with_context(|| log.path().display().to_string())?;
    }
    Ok(true)
}

/// What bash's `mapfile -d ''` reads: each argument ends in a zero byte.
fn encode(command: &[String]) -> Vec<u8> {
    command.iter().flat_map(|argument| argument.bytes().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_stay_apart() {
        let command = ["sh", "-c", "a 'b'\nc", ""].map(str::to_owned);
        assert_eq!(encode(&command), b"sh\0-c\0a 'b'\nc\0\0");
    }

    /// A share goes with its run: a failure in it could not be looked into.
    #[test]
    fn the_logs_of_a_failed_run_outlive_its_share() {
        let (share, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = cache.path().join("logs");
        assert!(!keep_logs(share.path(), &kept).unwrap() && !kept.exists());
        fs::create_dir(share.path().join(LOGS)).unwrap();
        fs::write(share.path().join("logs/n1-holdfastd.log"), "said").unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("of the run before"), "").unwrap();
        assert!(keep_logs(share.path(), &kept).unwrap());
        assert_eq!(fs::read_to_string(kept.join("n1-holdfastd.log")).unwrap(), "said");
        assert!(!kept.join("of the run before").exists());
    }
}

//! Starting a container.
//!
//! `lxc-start -d` returns when init was executed; the monitor that it leaves behind is the
//! container's parent. Init may still end in the very next moment, so a start counts only when
//! init has run for [`SETTLE`]. Whatever fails, nothing is left behind but the logs.

use std::fs;
use std::io;
use std::time::Duration;

use super::driver::{LxcRuntime, SIDES, init_pid};
use super::{conf, init, io_error, logs, reach};
use crate::process::{self, last_lines};
use crate::{RuntimeError, StartRequest, Started, Status};

/// How long init has to run for a start to count.
const SETTLE: Duration = Duration::from_millis(50);

/// Longest that an ending monitor or a left-over of a former start is waited for.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(5);

impl LxcRuntime {
    pub(super) fn start_container(&self, request: &StartRequest) -> Result<Started, RuntimeError> {
        let uid = request.uid;
        if let Some((groups, Status::Running { .. })) = self.running(uid)? {
            if let Some(init_pid) = init_pid(&groups) {
                return Ok(Started::AlreadyRunning { init_pid });
            }
            // Only its monitor is left, and about to end.
            if !groups.wait_empty(LEFTOVER_TIMEOUT)? {
                let init_pid = init_pid(&groups).ok_or(RuntimeError::StillRunning(uid))?;
                return Ok(Started::AlreadyRunning { init_pid });
            }
        }
        let program = request.command.first().map_or(init::DEFAULT_INIT, String::as_str);
        init::check_program(&request.rootfs, program)?;
        if request.command.iter().any(|arg| arg.contains('\0')) {
            let why = "it holds a NUL character";
            return Err(RuntimeError::Invalid { what: "the command", why });
        }
        if self.groups(request.protection, uid).side_is_frozen() {
            return Err(RuntimeError::Frozen(uid));
        }
        for protection in SIDES {
            self.groups(protection, uid).remove()?;
        }
        self.write_config(request)?;
        self.run_start(request).inspect_err(|_| {
            // The first failure is the one to report.
            if let Err(error) = self.kill_container(uid) {
                tracing::warn!(container = %uid, %error, "clearing up after a failed start");
            }
        })
    }

    fn run_start(&self, request: &StartRequest) -> Result<Started, RuntimeError> {
        let (uid, protection) = (request.uid, request.protection);
        let log = logs::begin(&self.config.log_dir, uid)?;
        let mut command = self.lxc_command("lxc-start", protection, uid, &[])?;
        command.arg("-o").arg(&log).args(["-l", "WARN", "-d", "--"]).args(&request.command);
        let failed = |said: &[u8]| {
            let last_lines = logs::explain(&self.config.log_dir, uid, said);
            RuntimeError::StartFailed { uid, last_lines }
        };
        let done = process::run(command, "lxc-start", self.config.start_timeout, 16 << 10);
        let done = done.map_err(|error| match error {
            RuntimeError::Timeout { what, after_ms, .. } => {
                let last_lines = last_lines(&fs::read(&log).unwrap_or_default());
                RuntimeError::Timeout { what, after_ms, last_lines }
            }
            other => other,
        })?;
        if !done.status.success() {
            return Err(failed(&done.stderr));
        }
        let groups = self.groups(protection, uid);
        if !groups.wait_payload_empty(SETTLE)?
            && let Some(init_pid) = init_pid(&groups)
        {
            return Ok(Started::Started { init_pid });
        }
        // The monitor still writes down init's last words.
        groups.wait_empty(LEFTOVER_TIMEOUT)?;
        Err(failed(b"init ended at once"))
    }

    /// Written beside and renamed, so that LXC never reads half a configuration.
    fn write_config(&self, request: &StartRequest) -> Result<(), RuntimeError> {
        let console = logs::console(&self.config.log_dir, request.uid);
        let node = conf::Node {
            hierarchies: &self.hierarchies,
            idmap_base: self.config.idmap_base,
            console: &console,
            console_bytes: self.config.console_bytes,
            apparmor: apparmor_enabled(),
        };
        if let Some(base) = self.config.idmap_base {
            request.mounts.iter().try_for_each(|mount| reach::let_through(&mount.source, base))?;
        }
        let groups = self.groups(request.protection, request.uid);
        let text = conf::render(&node, &groups, request)?;
        let dir = self.state_dir(request.uid);
        let (file, temporary) = (dir.join("config"), dir.join("config.new"));
        let write = || -> io::Result<()> {
            fs::create_dir_all(&dir)?;
            fs::write(&temporary, text)?;
            fs::rename(&temporary, &file)
        };
        write().map_err(io_error("write", &file))
    }
}

/// Whether the kernel confines by AppArmor: then LXC needs `apparmor_parser`, and no container starts
/// without it.
pub fn apparmor_enabled() -> bool {
    let text = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    text.is_ok_and(|text| text.trim() == "Y")
}

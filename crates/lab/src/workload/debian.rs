//! A real Debian 12 with systemd, and the same web server in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::rootfs::{APPEND, busybox};
use crate::LabError;
use crate::plumbing::tool;

/// Serves as `busybox_rootfs`'s init does.
const UNIT: &str = "\
[Unit]
Description=Records
After=network.target
[Service]
ExecStartPre=-/bin/rmdir /data/lock
ExecStart=/usr/local/bin/busybox httpd -f -p 80 -h /www
Restart=always
[Install]
WantedBy=multi-user.target
";

/// Makes it under `dir` with mmdebstrap, which takes some seconds and Debian's mirror; the path of
/// the archive comes back.
pub fn debian_rootfs(dir: &Path) -> Result<PathBuf, LabError> {
    let extra = dir.join("extra");
    lay_out(&extra)?;
    let archive = dir.join("debian12.tar");
    let (extra, target) = (extra.display().to_string(), archive.display().to_string());
    tool::run(&[
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--include=systemd,systemd-sysv,dbus",
        &format!("--customize-hook=copy-in {extra}/usr {extra}/www {extra}/data {extra}/etc /"),
        "--customize-hook=ln -s /data/chain \"$1\"/www/chain",
        "--customize-hook=ln -s /dev/null \"$1\"/etc/systemd/system/sys-kernel-debug.mount",
        // A container gets its devices from LXC; an image holds none.
        "--customize-hook=rm -rf \"$1\"/dev/*",
        "bookworm",
        &target,
    ])?;
    Ok(archive)
}

/// The files that are added to Debian's own.
fn lay_out(extra: &Path) -> Result<(), LabError> {
    let program = busybox()?;
    let binary = fs::read(&program).map_err(LabError::io("cannot read", &program))?;
    // With busybox's own shell: Debian's has no fractions in its sleep.
    let append = APPEND.replace("#!/bin/sh", "#!/usr/local/bin/busybox sh");
    put(&extra.join("usr/local/bin/busybox"), &binary, 0o755)?;
    put(&extra.join("www/cgi-bin/append"), append.as_bytes(), 0o755)?;
    put(&extra.join("etc/systemd/system/records.service"), UNIT.as_bytes(), 0o644)?;
    put(&extra.join("data/chain"), b"", 0o644)?;
    let wants = extra.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).map_err(LabError::io("cannot make", &wants))?;
    let enabled = wants.join("records.service");
    symlink("../records.service", &enabled).map_err(LabError::io("cannot make", &enabled))
}

fn put(path: &Path, content: &[u8], mode: u32) -> Result<(), LabError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(LabError::io("cannot make", parent))?;
    }
    fs::write(path, content).map_err(LabError::io("cannot write", path))?;
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).map_err(LabError::io("cannot change", path))
}

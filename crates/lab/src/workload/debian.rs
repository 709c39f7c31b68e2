//! A real Debian 12 with systemd, and the same web server in it.

use std::fs;
use std::path::Path;

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
pub fn debian_rootfs(dir: &Path) -> Result<std::path::PathBuf, LabError> {
    let extra = dir.join("extra");
    let write = |path: &str, text: &[u8], mode: u32| -> Result<(), LabError> {
        let path = extra.join(path);
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(LabError::io("cannot make", parent))?;
        fs::write(&path, text).map_err(LabError::io("cannot write", &path))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&path, mode).map_err(LabError::io("cannot change", &path))
    };
    let program = busybox()?;
    let binary = fs::read(&program).map_err(LabError::io("cannot read", &program))?;
    write("usr/local/bin/busybox", &binary, 0o755)?;
    // The same script, with busybox's own shell and tools.
    write(
        "www/cgi-bin/append",
        APPEND.replace("#!/bin/sh", "#!/usr/local/bin/busybox sh").as_bytes(),
        0o755,
    )?;
    write("etc/systemd/system/records.service", UNIT.as_bytes(), 0o644)?;
    write("data/chain", b"", 0o644)?;
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
        "--customize-hook=systemctl --root=\"$1\" enable records.service",
        "bookworm",
        &target,
    ])?;
    Ok(archive)
}

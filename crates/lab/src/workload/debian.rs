//! A real Debian 12 with systemd, and the same web server in it.

use std::fs;
use std::path::Path;

use super::rootfs::{APPEND, Tar, busybox};
use crate::plumbing::cgroup::Hierarchies;
use crate::plumbing::tool;
use crate::{Lab, LabError};

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

/// Where the lab keeps what is being made, and which of its cgroups makes it.
const PLACE: &str = "image";

/// The package's program. Not among [`check_machine`](crate::check_machine)'s: only this needs it.
pub fn check_mmdebstrap() -> Result<(), LabError> {
    tool::check_program("mmdebstrap", "mmdebstrap")
}

/// The root filesystem as an uncompressed tar archive, which takes mmdebstrap some seconds and
/// Debian's mirror. All that it needs meanwhile is the lab's, and goes down with it at the latest:
/// files, processes, and mounts, which are in a namespace of their own.
pub fn debian_rootfs(lab: &Lab) -> Result<Vec<u8>, LabError> {
    let layout = lab.layout();
    let (dir, cgroup) = (layout.dir().join(PLACE), layout.node_cgroup(PLACE));
    let hierarchies = Hierarchies::discover()?;
    fs::create_dir_all(&dir).map_err(LabError::io("cannot make", &dir))?;
    hierarchies.make(&cgroup)?;
    let archive = build(&lab.record()?.programs.lab, &dir, &cgroup);
    fs::remove_dir_all(&dir).map_err(LabError::io("cannot remove", &dir))?;
    hierarchies.remove(&cgroup)?;
    archive
}

fn build(lab_program: &Path, dir: &Path, cgroup: &str) -> Result<Vec<u8>, LabError> {
    let (extra, archive) = (dir.join("extra.tar"), dir.join("debian12.tar"));
    fs::write(&extra, additions()?).map_err(LabError::io("cannot write", &extra))?;
    let lab_program = lab_program.display().to_string();
    let in_cgroup = ["node-exec", "--cgroup", cgroup, "--oom-score-adj", "0", "--"];
    let in_dir = format!("TMPDIR={}", dir.display());
    let mut words = vec![lab_program.as_str()];
    words.extend(in_cgroup);
    words.extend(["unshare", "--mount", "--propagation", "private", "env", &in_dir]);
    let add = format!("--customize-hook=tar-in {} /", extra.display());
    let target = archive.display().to_string();
    words.extend([
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--include=systemd,systemd-sysv,dbus",
        // They are this machine's: a container's name and resolver are its own.
        "--customize-hook=rm -f \"$1\"/etc/hostname \"$1\"/etc/resolv.conf",
        &add,
        "bookworm",
        &target,
    ]);
    tool::run(&words)?;
    fs::read(&archive).map_err(LabError::io("cannot read", &archive))
}

/// What is added to Debian's own files, as an archive.
fn additions() -> Result<Vec<u8>, LabError> {
    let program = busybox()?;
    let binary = fs::read(&program).map_err(LabError::io("cannot read", &program))?;
    pack(&binary).map_err(LabError::io("cannot pack", &program))
}

fn pack(busybox: &[u8]) -> std::io::Result<Vec<u8>> {
    const UNITS: &str = "etc/systemd/system";
    // With busybox's own shell: Debian's has no fractions in its sleep.
    let append = APPEND.replace("#!/bin/sh", "#!/usr/local/bin/busybox sh");
    let mut tar = Tar::default();
    for dir in ["data", "www", "www/cgi-bin"] {
        tar.directory(dir, 0o755)?;
    }
    tar.file("usr/local/bin/busybox", 0o755, busybox)?;
    tar.file("www/cgi-bin/append", 0o755, append.as_bytes())?;
    tar.file("data/chain", 0o644, b"")?;
    tar.link("www/chain", "/data/chain")?;
    tar.file(&format!("{UNITS}/records.service"), 0o644, UNIT.as_bytes())?;
    tar.link(&format!("{UNITS}/multi-user.target.wants/records.service"), "../records.service")?;
    // Only the machine may mount it; systemd would call itself degraded.
    tar.link(&format!("{UNITS}/sys-kernel-debug.mount"), "/dev/null")?;
    tar.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_additions_bring_an_enabled_server() {
        let bytes = pack(b"ELF").unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut links = std::collections::BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.header().uid().unwrap(), 0);
            let link = entry.link_name().unwrap().map(|to| to.display().to_string());
            links.insert(entry.path().unwrap().display().to_string(), link.unwrap_or_default());
        }
        let unit = "etc/systemd/system/records.service";
        let wanted = "etc/systemd/system/multi-user.target.wants/records.service";
        assert!(links.contains_key(unit) && links.contains_key("usr/local/bin/busybox"));
        assert_eq!(links[wanted], "../records.service");
        assert_eq!(links["etc/systemd/system/sys-kernel-debug.mount"], "/dev/null");
    }
}

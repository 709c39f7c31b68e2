//! What others use: `rsync` to a daemon on loopback, and `btrfs send | btrfs receive`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::rig::{require, run};

/// A daemon that serves one directory. Ends when dropped.
pub(crate) struct Rsync {
    daemon: Child,
    port: u16,
}

impl Rsync {
    pub(crate) fn serve(dir: &Path, served: &Path) -> Result<Self> {
        require("rsync", "rsync")?;
        fs::create_dir_all(served)?;
        // Taken and given back: nothing else on this machine asks for it in between.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.join("rsyncd.conf");
        let text = format!(
            "pid file = {0}/rsyncd.pid\nlog file = {0}/rsyncd.log\nuse chroot = no\nuid = root\n\
             gid = root\n[target]\npath = {1}\nread only = no\n",
            dir.display(),
            served.display()
        );
        fs::write(&config, text)?;
        let daemon = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--config={}", config.display()))
            .stdin(Stdio::null())
            .spawn()?;
        let rsync = Self { daemon, port };
        for _ in 0..500 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(rsync);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        bail!("the rsync daemon does not answer")
    }

    /// Sends a file to the name `to`, synced at the end.
    pub(crate) fn send(&self, args: &[&str], from: &Path, to: &str) -> Result<()> {
        let from = from.to_str().context("a path of text")?;
        let to = format!("rsync://127.0.0.1:{}/target/{to}", self.port);
        let mut all = vec!["--fsync"];
        all.extend(args);
        all.extend([from, &to]);
        run("rsync", &all)
    }
}

impl Drop for Rsync {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A btrfs in a file of its own, with a snapshot to send.
pub(crate) struct Btrfs {
    mountpoint: PathBuf,
}

impl Btrfs {
    /// With a copy of `content`; an error if this machine cannot have one.
    pub(crate) fn new(dir: &Path, content: &Path, bytes: u64) -> Result<Self> {
        require("mkfs.btrfs", "btrfs-progs")?;
        let (image, mountpoint) = (dir.join("btrfs.img"), dir.join("btrfs.mnt"));
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path of text");
        let (image, at) = (text(&image)?, text(&mountpoint)?);
        fs::create_dir_all(&mountpoint)?;
        fs::File::create(&image)?.set_len(bytes * 2 + (4 << 30))?;
        run("mkfs.btrfs", &["-q", "-f", &image])?;
        let losetup = ["--find", "--show", "--direct-io=on", "--sector-size", "4096", &image];
        let out = Command::new("losetup").args(losetup).output()?;
        let device = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        if !out.status.success() {
            bail!("losetup: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        let btrfs = Self { mountpoint };
        let mounted = run("mount", &["-t", "btrfs", "-o", "noatime", &device, &at]);
        // It goes with its mount, or now.
        run("losetup", &["-d", &device])?;
        mounted?;
        run("btrfs", &["-q", "subvolume", "create", &format!("{at}/live")])?;
        let from = text(content)?;
        run("cp", &["--sparse=never", &from, &format!("{at}/live/disk")])?;
        run(
            "btrfs",
            &["-q", "subvolume", "snapshot", "-r", &format!("{at}/live"), &format!("{at}/sent")],
        )?;
        fs::create_dir_all(format!("{at}/in"))?;
        run("sync", &["-f", &at])?;
        Ok(btrfs)
    }

    pub(crate) fn copy(&self) -> Result<()> {
        let at = self.mountpoint.display();
        let pipe = format!(
            "set -o pipefail; btrfs -q send {at}/sent | btrfs -q receive {at}/in && sync -f {at}"
        );
        run("bash", &["-c", &pipe])
    }

    pub(crate) fn forget(&self) -> Result<()> {
        let at = self.mountpoint.display();
        run("btrfs", &["-q", "subvolume", "delete", "-C", &format!("{at}/in/sent")])?;
        run("btrfs", &["-q", "subvolume", "sync", &format!("{at}")])?;
        run("fstrim", &[&format!("{at}")])
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mountpoint).status();
        let _ = fs::remove_file(self.mountpoint.with_file_name("btrfs.img"));
    }
}

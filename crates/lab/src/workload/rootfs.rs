//! The small root filesystem: Debian's busybox, its links, and three scripts.

use std::fs;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::LabError;
use crate::plumbing::tool;

/// Keeps a web server running. With `NOISE_BYTES_PER_S` set it also rewrites a file at that rate,
/// for benchmarks of replication.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin:/sbin
trap 'exit 0' TERM INT PWR
rmdir /data/lock 2>/dev/null
if [ -n "$NOISE_BYTES_PER_S" ]; then
    /bin/noise "$NOISE_BYTES_PER_S" &
fi
while :; do
    httpd -f -p 80 -h /www &
    wait $!
    sleep 0.1
done
"#;

/// Appends one record under a lock, and answers with it. No sync: see the module above. Debian's
/// busybox has no flock; a lock that a crash left behind goes when init starts.
pub(super) const APPEND: &str = r#"#!/bin/sh
while ! mkdir /data/lock 2>/dev/null; do sleep 0.005; done
last=$(tail -n 1 /data/chain 2>/dev/null)
set -- $last
if [ $# -eq 4 ]; then n=$(($1 + 1)) prev=$4; else n=1 prev=0; fi
text="$n $prev $(date +%s)"
set -- $(printf '%s' "$text" | sha256sum)
printf '%s %s\n' "$text" "$1" >>/data/chain
rmdir /data/lock
printf 'Content-Type: text/plain\r\n\r\n%s %s\n' "$text" "$1"
"#;

/// Rewrites 16 MiB round and round, a quarter of the rate four times a second.
const NOISE: &str = r#"#!/bin/sh
piece=$(($1 / 4096 / 4)) at=0
while :; do
    dd if=/dev/urandom of=/data/noise bs=4096 count=$piece seek=$at conv=notrunc 2>/dev/null
    at=$(((at + piece) % 4096))
    sleep 0.25
done
"#;

const DIRS: [(&str, u32); 16] = [
    ("bin", 0o755),
    ("sbin", 0o755),
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("etc", 0o755),
    ("root", 0o700),
    ("var", 0o755),
    ("var/log", 0o755),
    ("mnt", 0o755),
    ("usr", 0o755),
    ("data", 0o755),
    ("www", 0o755),
    ("www/cgi-bin", 0o755),
];

/// The root filesystem as an uncompressed tar archive.
pub fn busybox_rootfs() -> Result<Vec<u8>, LabError> {
    let program = busybox()?;
    let binary = fs::read(&program).map_err(LabError::io("cannot read", &program))?;
    let applets = tool::run(&["busybox", "--list"])?;
    pack(&binary, applets.lines()).map_err(LabError::io("cannot pack", &program))
}

pub(super) fn busybox() -> Result<PathBuf, LabError> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    let found = places.into_iter().find(|p| p.is_file());
    let missing = LabError::MissingTool { program: "busybox", package: "busybox-static" };
    found.map(Path::to_owned).ok_or(missing)
}

fn pack<'a>(binary: &[u8], applets: impl Iterator<Item = &'a str>) -> std::io::Result<Vec<u8>> {
    let mut tar = Tar::default();
    for (dir, mode) in DIRS {
        tar.directory(dir, mode)?;
    }
    tar.file("bin/busybox", 0o755, binary)?;
    for applet in applets.filter(|a| !["busybox", "init"].contains(a)) {
        tar.link(&format!("bin/{applet}"), "busybox")?;
    }
    tar.file("sbin/init", 0o755, INIT.as_bytes())?;
    tar.file("bin/noise", 0o755, NOISE.as_bytes())?;
    tar.file("www/cgi-bin/append", 0o755, APPEND.as_bytes())?;
    tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    tar.file("etc/group", 0o644, b"root:x:0:\n")?;
    tar.file("data/chain", 0o644, b"")?;
    tar.link("www/chain", "/data/chain")?;
    tar.finish()
}

/// An archive of root's files, with modes that owe nothing to this process.
pub(super) struct Tar(Builder<Vec<u8>>);

impl Default for Tar {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Tar {
    pub(super) fn directory(&mut self, path: &str, mode: u32) -> std::io::Result<()> {
        self.0.append_data(&mut header(EntryType::Directory, mode, 0), path, std::io::empty())
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> std::io::Result<()> {
        self.0.append_data(&mut header(EntryType::Regular, mode, content.len()), path, content)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> std::io::Result<()> {
        self.0.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)
    }

    pub(super) fn finish(self) -> std::io::Result<Vec<u8>> {
        self.0.into_inner()
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size as u64);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_an_init_and_a_server() {
        let bytes = pack(b"ELF", ["sh", "httpd", "init"].into_iter()).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let paths: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        for wanted in ["sbin/init", "bin/sh", "bin/httpd", "www/cgi-bin/append", "www/chain"] {
            assert!(paths.iter().any(|p| p == wanted), "{wanted} of {paths:?}");
        }
        assert!(!paths.iter().any(|p| p == "bin/init"));
    }
}

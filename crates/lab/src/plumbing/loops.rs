//! The loop devices that belong to a node: backed by a file under its directory, or by a file on
//! a filesystem on such a device.
//!
//! A machine that loses power loses them; here the kernel is shared, so they must be seen to go.
//! Paths do not find the inner ones (their files are in the node's mount namespace), so they are
//! found by the device that holds the backing file.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::tool;
use crate::LabError;
use crate::wait::wait_until;

#[derive(Debug, Deserialize)]
struct Listing {
    loopdevices: Vec<Loop>,
}

/// One loop device, as `losetup --json` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Loop {
    name: String,
    #[serde(rename = "back-maj:min")]
    backing_device: Option<String>,
    #[serde(rename = "back-file")]
    backing_file: Option<String>,
    #[serde(rename = "maj:min")]
    device: String,
}

/// The names of the loop devices of this directory, innermost first.
fn below(dir: &Path) -> Result<Vec<String>, LabError> {
    let columns = "NAME,MAJ:MIN,BACK-MAJ:MIN,BACK-FILE";
    let text = tool::run(&["losetup", "--json", "-O", columns])?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let listing: Listing = serde_json::from_str(&text)
        .map_err(|e| LabError::Tool { command: "losetup --json".into(), message: e.to_string() })?;
    Ok(owned(&listing.loopdevices, dir))
}

fn owned(all: &[Loop], dir: &Path) -> Vec<String> {
    let mut layers: Vec<&Loop> = Vec::new();
    let mut devices = BTreeSet::new();
    loop {
        let next: Vec<_> = all
            .iter()
            .filter(|l| !layers.contains(l))
            .filter(|l| {
                let inner = l.backing_device.as_ref().is_some_and(|d| devices.contains(d.trim()));
                let file = l.backing_file.as_deref().unwrap_or_default();
                inner || Path::new(file.trim_end_matches(" (deleted)")).starts_with(dir)
            })
            .collect();
        if next.is_empty() {
            return layers.iter().rev().map(|l| l.name.clone()).collect();
        }
        devices.extend(next.iter().map(|l| l.device.trim().to_owned()));
        layers.extend(next);
    }
}

/// Detaches the directory's loop devices and waits until the kernel has let go of all of them.
/// Nothing may use them any more. A filesystem that was frozen when its node lost power holds its
/// device for ever: it is thawed, which on a real machine the power cut does.
pub(crate) fn release(dir: &Path, limit: Duration) -> Result<(), LabError> {
    let mut rounds = 0_u32;
    wait_until(&format!("the release of loop devices below {}", dir.display()), limit, || {
        let left = below(dir)?;
        rounds += 1;
        for device in &left {
            // Busy or already gone: the next round sees which.
            let _ = tool::run(&["losetup", "-d", device]);
            if rounds.is_multiple_of(100) {
                thaw(device);
            }
        }
        Ok(left.is_empty())
    })
}

/// Mounts the device where nobody else sees it, thaws the filesystem and lets go.
pub(super) fn thaw(device: &str) {
    let script = "mount \"$1\" /mnt && fsfreeze --unfreeze /mnt";
    let _ = tool::run(&["unshare", "--mount", "sh", "-c", script, "thaw", device]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u32, on: &str, file: &str) -> Loop {
        Loop {
            name: format!("/dev/loop{n}"),
            backing_device: Some(on.into()),
            backing_file: Some(file.into()),
            device: format!("  7:{n}"),
        }
    }

    #[test]
    fn volumes_inside_a_pool_are_found_by_the_device_under_them() {
        let all = [
            device(0, "254:0", "/var/lib/holdfast-lab/n1/pool.img"),
            device(1, "  7:0", "/volumes/a"),
            device(2, "254:0", "/var/lib/holdfast-lab/n10/pool.img"),
            device(3, "  7:2", "/volumes/a"),
        ];
        let found = owned(&all, Path::new("/var/lib/holdfast-lab/n1"));
        assert_eq!(found, ["/dev/loop1", "/dev/loop0"], "the inner one goes first");
    }
}

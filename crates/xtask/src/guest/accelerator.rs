//! KVM where it really works, else QEMU's translator. Some machines have a /dev/kvm under which a
//! guest aborts or hangs, so it is tried, with a time limit, once a boot of this machine.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::image::Image;
use super::qemu::Machine;

/// Under KVM the guest is up in less than a second.
const PROBE: Duration = Duration::from_secs(8);

/// How the guest's processors are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => &["-accel", "tcg,thread=multi,tb-size=128"],
        }
    }
}

/// What this machine can do.
pub(crate) fn choose(image: &Image, scratch: &Path) -> Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let known = image.cache().join("kvm");
    let works = match fs::read_to_string(&known).ok().as_deref().and_then(|k| k.strip_prefix(&boot))
    {
        Some(answer) => answer == "works",
        None => {
            let works = probe(image, scratch)?;
            let answer = if works { "works" } else { "does not work" };
            eprintln!("guest: KVM {answer} here");
            fs::write(&known, format!("{boot}{answer}"))?;
            works
        }
    };
    Ok(if works { Accelerator::Kvm } else { Accelerator::Tcg })
}

/// Whether a guest comes up, and down again, within the limit.
fn probe(image: &Image, scratch: &Path) -> Result<bool> {
    let console = scratch.join("probe.log");
    let accelerator = Accelerator::Kvm;
    let machine =
        Machine { image, accelerator, memory_mib: 256, console: &console, disks: &[], share: None };
    let mut qemu = machine
        .command()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("qemu-system-x86")?;
    let ended = ends_within(&mut qemu, PROBE)?;
    Ok(ended && fs::read_to_string(&console).is_ok_and(|said| said.contains("guest: up")))
}

/// Whether it ended by itself, with success; it has ended in any case.
fn ends_within(child: &mut Child, limit: Duration) -> Result<bool> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_hangs_is_ended_and_does_not_count() {
        let limit = Duration::from_millis(200);
        let mut hangs = Command::new("sleep").arg("1000").spawn().expect("sleep");
        assert!(!ends_within(&mut hangs, limit).expect("ended"));
        assert!(hangs.try_wait().expect("status").is_some());
        let mut good = Command::new("true").spawn().expect("true");
        assert!(ends_within(&mut good, Duration::from_secs(10)).expect("ended"));
    }
}

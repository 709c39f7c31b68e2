//! `cargo xtask guest -- conformance|powercut|consensus|pool|takeover|cycles|CMD…`: runs a suite or a
//! command in a Debian guest under QEMU, where device-mapper, LVM, LXC and a pure cgroup v2 are real, and
//! pulling the plug loses all that the guest had not given to its disks; with `--volatile` also, at
//! random, what was not flushed there (QEMU itself keeps it).
//!
//! The guest is built by `deploy/guest/build` and boots `deploy/guest/init`, which runs the command
//! in the share and powers off. Disks come and go with the run unless they are named; killing QEMU
//! in the midst of it (`--cut`) is the power cut, and the next run on the same disks the boot after.

mod accelerator;
mod consensus;
mod disk;
mod image;
mod pool;
mod qemu;
mod share;
mod suites;
mod takeover;
mod watch;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};

use self::disk::{Dice, Disk, Volatile};
use self::image::Image;
use self::qemu::Machine;
use self::share::Share;
use self::watch::{End, Watch};

/// Under QEMU's translator a guest is up in 6 s, in half a minute where much else runs.
const UP: Duration = Duration::from_secs(120);
const BOOTS: usize = 3;

/// What to run in the guest, and on what.
#[derive(clap::Args)]
pub(crate) struct Guest {
    /// A directory of this machine, which the guest has as /share, its working directory; a
    /// temporary one by default. It carries programs in and results out.
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// An empty throw-away disk of so many MiB: /dev/nvme0n2 in the guest, the next one n3.
    #[arg(long = "disk", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    disks_mib: Vec<u64>,
    /// A disk that stays: a raw image file, after the throw-away disks.
    #[arg(long = "disk-file", value_name = "FILE")]
    disk_files: Vec<PathBuf>,
    /// Let the disks have a volatile cache: when the power is cut, what was not flushed is lost or
    /// not, block by block. They are then /dev/vda, vdb and so on.
    #[arg(long)]
    volatile: bool,
    /// The seed of what is left to chance.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Cut the power as soon as the command prints this. That then counts as success.
    #[arg(long, value_name = "TEXT")]
    cut: Option<String>,
    /// Give up after so many seconds. Without KVM all is some 20 times slower than outside.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    deadline: u64,
    /// Memory in MiB.
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    memory: u64,
    /// `conformance` (the storage suite on the lvm driver; or those of its tests that are named),
    /// `powercut` (power cuts in the life of a volume and its replica), `consensus` (power cuts of three
    /// nodes that write), `pool` (the life of a pool, by
    /// the operator's commands), `takeover` (the lab on LVM pools loses a node), `cycles` (what a
    /// snapshot costs without LVM's commands, and with them), or a command and its arguments. Its
    /// standard input is empty.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Guest {
    /// Fails unless the command succeeded, or the power was cut as asked. After a failure the
    /// console's log stays, and the error says where.
    pub(crate) fn run(mut self, root: &Path) -> Result<()> {
        let suite = suites::find(root, &self.command)?;
        let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let seed = self.seed.unwrap_or(now);
        let mut dice = Dice::new(seed);
        let mut cuts = vec![self.cut.take().map(|text| (text, Duration::ZERO, None))];
        if let Some(suite) = &suite {
            let mut late = |ms: u64| Duration::from_millis(dice.below(ms.max(1)));
            let planned = suite.cuts.iter();
            let planned = planned.map(|cut| Some((cut.text.clone(), late(cut.late_ms), cut.only)));
            cuts.splice(..0, planned.collect::<Vec<_>>());
            self.share = Some(suite.share.path().to_owned());
            self.volatile |= suite.volatile;
            self.disks_mib.splice(..0, suite.disks_mib.iter().copied());
            self.command.clone_from(&suite.command);
            self.deadline = self.deadline.max(suite.deadline);
            self.memory = self.memory.max(suite.memory_mib);
        }
        if self.volatile {
            eprintln!("guest: what the disks lose is up to --seed {seed}");
        }
        let image = Image::build(root)?;
        let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(image.cache())?;
        let console = scratch.path().join("console.log");
        let disks = self.disks(scratch.path())?;
        let mut boots = cuts.iter().map(|cut| {
            if let (Some((text, late, _)), true) = (cut, suite.is_some()) {
                eprintln!("the power will be cut {} ms after {text:?}", late.as_millis());
            }
            let only = cut.as_ref().and_then(|(_, _, only)| *only);
            let cut = cut.as_ref().map(|(text, late, _)| (text.as_str(), *late));
            let boot = || self.boot(&image, scratch.path(), &disks, cut, &console);
            let ended = until_up(&console, boot)?;
            for (at, disk) in disks.iter().enumerate() {
                let loses = ended == End::Cut && only.is_none_or(|only| only == at);
                let at_stake = disk.settle(loses.then_some(&mut dice))?;
                if loses && at_stake > 0 {
                    eprintln!("guest: {at_stake} blocks were not flushed");
                }
            }
            Ok(())
        });
        let Some(Err(error)) = boots.find(Result::is_err) else { return Ok(()) };
        let logs = image.cache().join(share::LOGS);
        let error = match &suite {
            Some(suite) if share::keep_logs(suite.share.path(), &logs)? => {
                anyhow!("{error:#} (the nodes' logs: {})", logs.display())
            }
            _ => error,
        };
        if !console.exists() {
            return Err(error);
        }
        eprintln!("guest: the end of its console:\n{}", last_lines(&console));
        let kept = image.cache().join("console.log");
        fs::rename(&console, &kept).context("keeping the console's log")?;
        bail!("{error:#} (the console's log: {})", kept.display())
    }

    fn boot(
        &self,
        image: &Image,
        scratch: &Path,
        disks: &[Disk],
        cut: Option<(&str, Duration)>,
        console: &Path,
    ) -> Result<End> {
        let share = Share::serve(self.share.as_deref(), scratch, &self.command)?;
        let machine = Machine {
            image,
            accelerator: accelerator::choose(image, scratch)?,
            memory_mib: self.memory,
            console,
            disks,
            share: Some(&share),
        };
        let qemu = machine.command().stdout(Stdio::piped()).spawn().context("qemu-system-x86")?;
        let deadline = Duration::from_secs(self.deadline);
        let end = Watch { cut, comes_up: UP, deadline }.follow(qemu)?;
        match (end, share.status()?) {
            (End::Cut | End::Down, _) => Ok(end),
            (End::Late, _) => bail!("not done after {} s", self.deadline),
            (End::Off, None) => bail!("the guest went down before the command ended"),
            (End::Off, Some(0)) => match cut {
                None => Ok(End::Off),
                Some((text, _)) => bail!("the command ended and never printed {text:?}"),
            },
            (End::Off, Some(status)) => bail!("the command ended with status {status}"),
        }
    }

    /// The image file of each disk, made if it is a throw-away one.
    fn disks(&self, scratch: &Path) -> Result<Vec<Disk>> {
        let mut disks = Vec::new();
        let disk = |path: PathBuf, at: usize| match self.volatile {
            true => {
                let socket = scratch.join(format!("disk-{at}.sock"));
                Volatile::serve(&path, socket).map(Disk::Volatile)
            }
            false => Ok(Disk::File(path)),
        };
        for (at, mib) in self.disks_mib.iter().enumerate() {
            let path = scratch.join(format!("disk-{at}.raw"));
            File::create(&path)?.set_len(mib << 20).context("making a disk")?;
            disks.push(disk(path, at)?);
        }
        for path in &self.disk_files {
            let path = path.canonicalize().with_context(|| path.display().to_string())?;
            disks.push(disk(path, disks.len())?);
        }
        Ok(disks)
    }
}

/// Boots, and again while the guest does not come up: under QEMU's translator one boot of very many
/// stands still, and nothing of the command has run by then.
fn until_up(console: &Path, boot: impl Fn() -> Result<End>) -> Result<End> {
    for _ in 0..BOOTS {
        let end = boot()?;
        if end != End::Down {
            return Ok(end);
        }
        eprintln!("guest: not up after {} s; its console:\n{}", UP.as_secs(), last_lines(console));
    }
    bail!("the guest did not come up in {BOOTS} boots")
}

/// Of a console's log.
fn last_lines(log: &Path) -> String {
    const LINES: usize = 40;
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.trim().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What a run of `until_up` came to, and how many boots it took, if the first `down` stand still.
    fn booted(down: usize) -> (Option<End>, usize) {
        let boots = Cell::new(0);
        let boot = || {
            boots.set(boots.get() + 1);
            Ok(if boots.get() > down { End::Off } else { End::Down })
        };
        (until_up(Path::new("/nonexistent"), boot).ok(), boots.get())
    }

    #[test]
    fn a_guest_that_does_not_come_up_is_started_again_but_not_for_ever() {
        assert_eq!(booted(0), (Some(End::Off), 1));
        assert_eq!(booted(BOOTS - 1), (Some(End::Off), BOOTS));
        assert_eq!(booted(BOOTS), (None, BOOTS));
    }
}

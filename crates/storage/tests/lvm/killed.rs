//! Processes that are killed in the midst of a transfer, and of reading the pool's metadata.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_storage::conformance::Rig;
use holdfast_storage::conformance::killed::{Cuts, Mortal, die, receivers_die, senders_die};
use holdfast_storage::lvm::LvmPool;

use crate::rig::{LvmRig, Stubs, disks, options};

/// The group and the order, for the process that is to die.
const VICTIM: &str = "HOLDFAST_TEST_VICTIM";
/// Each opens the pool twice, which takes LVM seconds where all is emulated.
const CUTS: Cuts = Cuts { frames: 2, moments: 2 };

impl Mortal for LvmRig {
    fn close(&mut self) {
        self.pool = None;
    }

    fn victim(&self, order: &Path) -> Command {
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--ignored", "--exact", "killed::victim", "--nocapture"]);
        victim.env(VICTIM, format!("{} {}", self.options.vg, order.display()));
        victim
    }

    fn check_nothing_left(&self, items: usize) {
        let mut named: Vec<PathBuf> = Vec::new();
        for volume in fs::read_dir(self.options.mountpoint.join("volumes")).unwrap() {
            let dir = fs::read_dir(volume.unwrap().path()).unwrap();
            named.extend(dir.map(|entry| entry.unwrap().path()));
        }
        named.retain(|path| path.extension().is_none() && !path.ends_with("hashes"));
        assert_eq!(named.len(), items, "{named:?}");
        assert_eq!(self.thin_ids().len(), items, "thin devices that nothing names");
        let listed = Command::new("dmsetup").arg("ls").output().unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap();
        assert!(!listed.contains("-view-"), "{listed}");
        let scratch = fs::read_dir(self.options.mountpoint.join("scratch")).unwrap();
        assert_eq!(scratch.count(), 0);
    }
}

/// Started by the tests below.
#[test]
#[ignore = "the process that the tests below kill"]
fn victim() {
    let Ok(victim) = std::env::var(VICTIM) else { return };
    let (vg, order) = victim.split_once(' ').unwrap();
    die(&LvmPool::open(&options(vg)).unwrap(), Path::new(order));
}

#[test]
fn killed_receivers_leave_nothing_half() {
    let disks = disks();
    receivers_die(&LvmRig::new(&disks[0]), &mut LvmRig::new(&disks[1]), CUTS);
}

#[test]
fn killed_senders_leave_nothing() {
    senders_die(&mut LvmRig::new(&disks()[0]), CUTS);
}

/// One that dies while it has the metadata snapshot: nothing could be compared any more.
#[test]
fn a_metadata_snapshot_is_released_after_its_holders_death() {
    let mut rig = LvmRig::new(&disks()[0]);
    let stubs = Stubs::new(&[("thin_ls", "kill -9 $PPID; sleep 1")]);
    rig.close();
    let mut victim = rig.victim(Path::new("/nowhere"));
    let status = victim.env("PATH", stubs.path()).output().unwrap().status;
    assert_eq!(status.signal(), Some(9));
    assert!(!rig.message("reserve_metadata_snap"), "it is not held");
    rig.reopen();
    rig.pool().comparable().unwrap();
    assert!(rig.message("reserve_metadata_snap"), "it is held still");
    assert!(rig.message("release_metadata_snap"));
}

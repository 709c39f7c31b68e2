//! Processes that are killed in the midst of a transfer.

use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::conformance::killed::{Cuts, Mortal, die, receivers_die, senders_die};
use crate::loopdev::{Backing, LoopDevice};

/// The pool's directory, its cluster and the order, for the process that is to die.
const VICTIM: &str = "HOLDFAST_TEST_VICTIM";

impl Mortal for XfsRig {
    fn close(&mut self) {
        self.pool = None;
    }

    fn victim(&self, order: &Path) -> Command {
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--ignored", "--exact", "xfs::tests::killed::victim", "--nocapture"]);
        let (dir, cluster) = (self.options.dir.display(), self.options.cluster);
        victim.env(VICTIM, format!("{dir} {cluster} {}", order.display()));
        victim
    }

    fn check_nothing_left(&self, items: usize) {
        let mut named = Vec::new();
        for volume in fs::read_dir(self.root().join("volumes")).unwrap() {
            let dir = fs::read_dir(volume.unwrap().path()).unwrap();
            named.extend(dir.map(|entry| entry.unwrap().path()));
        }
        let meta = |path: &PathBuf| path.extension().is_some() || path.ends_with("hashes");
        named.retain(|path| !meta(path));
        assert_eq!(named.len(), items, "{named:?}");
        let of = |path: &PathBuf| Backing::of(&fs::File::open(path).unwrap(), path).unwrap();
        let devices = self.pool().volumes().iter().filter(|v| v.device.is_some()).count();
        let attached = LoopDevice::attached().unwrap();
        let ours = |path: &&PathBuf| attached.iter().any(|(_, backing)| *backing == of(path));
        assert!(named.iter().filter(ours).count() <= 2 * devices, "a loop device stays");
        assert_eq!(fs::read_dir(self.root().join("scratch")).unwrap().count(), 0);
    }
}

/// Started by the tests below.
#[test]
#[ignore = "the process that the tests below kill"]
fn victim() {
    let Ok(victim) = std::env::var(VICTIM) else { return };
    let [dir, cluster, order] = victim.split(' ').collect::<Vec<_>>()[..] else { panic!() };
    let options = XfsOptions {
        dir: dir.into(),
        cluster: cluster.parse().unwrap(),
        threshold_percent: 90,
        loop_backed: Some(LoopBacked {
            size: ByteSize::gib(1),
            mountpoint: Path::new(dir).join("mnt"),
        }),
        patience: Duration::from_secs(5),
    };
    die(&XfsPool::open(&options).unwrap(), Path::new(order));
}

const CUTS: Cuts = Cuts { frames: 8, moments: 12 };

#[test]
fn killed_receivers_leave_nothing_half() {
    receivers_die(&XfsRig::new(), &mut XfsRig::new(), CUTS);
}

#[test]
fn killed_senders_leave_nothing() {
    senders_die(&mut XfsRig::new(), CUTS);
}

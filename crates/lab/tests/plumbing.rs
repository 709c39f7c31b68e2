//! The lab's own parts, on real namespaces, with stand-ins for Holdfast's programs. Root only.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_lab::{Lab, LabError, Part, PartStatus, Power, Programs, ScopedLab, UpOptions};
use holdfast_lab::{Layout, wait_until};
use holdfast_types::{ByteSize, Code};

const LIMIT: Duration = Duration::from_secs(20);

/// A daemon that makes what a real one leaves in the kernel: a pool on a loop device, a volume in
/// it on another, and an orphan.
const DAEMON: &str = r#"#!/bin/sh -e
conf="$2"
pool=$(sed -n 's/^path = "\(.*pool\)"/\1/p' "$conf")
echo "started $(hostname) $(ls /sys/class/net | tr '\n' ' ')$(ls -d /sys/fs/cgroup/*)"
if [ ! -e "$pool/img" ]; then truncate -s 400M "$pool/img"; mkfs.xfs -q "$pool/img"; fi
if ! mountpoint -q "$pool/m"; then
  mkdir -p "$pool/m"; mount -o loop "$pool/img" "$pool/m"
  if [ ! -e "$pool/m/vol" ]; then truncate -s 32M "$pool/m/vol"; mkfs.ext4 -q "$pool/m/vol"; fi
  mkdir -p "$pool/v"; losetup -f "$pool/m/vol"
  mount "$(losetup -n -O NAME -j "$pool/m/vol" | head -1 | tr -d ' ')" "$pool/v"
fi
(sleep 1000 &)
echo ready >>"$pool/ready"
exec sleep 1000
"#;

const GUARDIAN: &str = "#!/bin/sh\nexec sleep 1000\n";

struct Rig {
    lab: ScopedLab,
    _bin: tempfile::TempDir,
}

fn rig(name: &str, voters: usize) -> Rig {
    let bin = tempfile::tempdir().unwrap();
    for (program, text) in [("holdfastd", DAEMON), ("holdfast-guardian", GUARDIAN)] {
        let path = bin.path().join(program);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let programs = Programs {
        lab: env!("CARGO_BIN_EXE_holdfast-lab").into(),
        daemon: bin.path().join("holdfastd"),
        guardian: bin.path().join("holdfast-guardian"),
    };
    let options = UpOptions {
        voters,
        pool_size: ByteSize::gib(1),
        replace: true,
        ..UpOptions::new(name, programs)
    };
    Rig { lab: ScopedLab::up(&options).unwrap(), _bin: bin }
}

fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn ping(from: &str, to: &str) -> bool {
    let words = ["netns", "exec", from, "ping", "-c1", "-W1", "-q", to];
    Command::new("ip").args(words).output().unwrap().status.success()
}

/// Whether it answers before long: a link that came up just now takes a moment.
fn reaches(from: &str, to: &str) -> bool {
    wait_until("an echo", LIMIT, || Ok(ping(from, to))).is_ok()
}

fn wait_ready(layout: &Layout, node: &str, times: usize) {
    let file = layout.node_dir(node).join("pool/ready");
    wait_until("the stand-in daemon", LIMIT, || {
        Ok(fs::read_to_string(&file).is_ok_and(|t| t.lines().count() >= times))
    })
    .unwrap();
}

/// What is left of a lab in the machine, one line each.
fn traces(layout: &Layout) -> Vec<String> {
    let name = layout.cgroup();
    let mut left = vec![
        sh(&format!("find /sys/fs/cgroup -maxdepth 2 -name {name}")),
        sh(&format!("ls /run/netns 2>/dev/null | grep -F {}", layout.netns_prefix())),
        sh(&format!("losetup -n -O BACK-FILE | grep -F {}/", layout.dir().display())),
        sh(&format!("grep -F {}/ /proc/self/mountinfo", layout.dir().display())),
        sh(&format!("pgrep -f [/]run/{name}/")),
    ];
    let files = [layout.dir().to_owned(), layout.run_dir(), layout.lock_file()];
    left.extend(files.iter().filter(|f| f.exists()).map(|f| f.display().to_string()));
    left.retain(|line| !line.is_empty());
    left
}

#[test]
fn a_lab_goes_up_and_down_and_leaves_nothing() {
    let layout = Layout::new("t-plumb", None).unwrap();
    {
        let Rig { lab, _bin } = rig("t-plumb", 3);
        for node in ["n1", "n2", "n3"] {
            wait_ready(&layout, node, 1);
        }
        let log = fs::read_to_string(layout.node_dir("n2").join("holdfastd.log")).unwrap();
        assert!(log.contains("started n2 "), "own host name: {log}");
        assert!(log.contains("eth0") && !log.contains("ifb"), "own sysfs: {log}");
        assert!(log.contains("/sys/fs/cgroup/"), "cgroups are bound back: {log}");
        assert!(reaches(&layout.netns("n1"), "10.88.0.2"));
        assert!(reaches(&layout.client(), "10.88.0.3"));
        let status = lab.status().unwrap();
        assert!(status.iter().all(|s| matches!(s.guardian, PartStatus::Running { .. })));
        let again = UpOptions { replace: false, ..UpOptions::new("t-plumb", programs_of(&lab)) };
        assert_eq!(Lab::up(&again).unwrap_err().code(), Code::AlreadyExists);
        assert!(lab.record().is_ok(), "a refused `up` changes nothing");
    }
    assert_eq!(traces(&layout), Vec::<String>::new());
    Lab::down("t-plumb", None).expect("down is idempotent");
    assert_eq!(traces(&layout), Vec::<String>::new());
}

fn programs_of(lab: &Lab) -> Programs {
    lab.record().unwrap().programs
}

/// The lab's power cut: everything of the node ends, its disk stays, its peers hear nothing.
#[test]
fn a_power_cut_ends_the_node_and_its_disk_survives() {
    let Rig { lab, _bin } = rig("t-power", 1);
    let layout = lab.layout().clone();
    wait_ready(&layout, "n1", 1);
    let before = lab.pid("n1", Part::Daemon).unwrap();
    let mark = layout.node_dir("n1").join("mark");
    sh(&format!(
        "nsenter -m -t {before} sh -c 'echo kept > {}/pool/v/mark; sync'",
        layout.node_dir("n1").display()
    ));
    lab.kill("n1").unwrap();
    assert!(!ping(&layout.client(), "10.88.0.1"));
    assert!(matches!(lab.record().unwrap().nodes[0].power, Power::Off { .. }));
    assert_eq!(lab.kill("n1").unwrap_err().code(), Code::WrongState);
    lab.power_on("n1").unwrap();
    wait_ready(&layout, "n1", 2);
    let after = lab.pid("n1", Part::Daemon).unwrap();
    assert_ne!(before, after);
    let kept =
        sh(&format!("nsenter -m -t {after} cat {}/pool/v/mark", layout.node_dir("n1").display()));
    assert_eq!(kept, "kept");
    assert!(reaches(&layout.client(), "10.88.0.1"));
    assert!(!mark.exists());
}

/// A filesystem that was frozen when the power went must not keep its loop device for ever.
#[test]
fn a_node_killed_in_the_middle_of_a_freeze_can_come_back() {
    let Rig { lab, _bin } = rig("t-freeze", 1);
    let layout = lab.layout().clone();
    wait_ready(&layout, "n1", 1);
    let pid = lab.pid("n1", Part::Daemon).unwrap();
    let volume = layout.node_dir("n1").join("pool/v");
    sh(&format!("nsenter -m -t {pid} fsfreeze --freeze {}", volume.display()));
    lab.kill("n1").unwrap();
    lab.power_on("n1").unwrap();
    wait_ready(&layout, "n1", 2);
}

/// DESIGN section 5, rule 3: the last resort kills the lab's node, never the machine.
#[test]
fn a_node_dies_with_its_fuse() {
    let Rig { lab, _bin } = rig("t-fuse", 1);
    let scope = "/sys/fs/cgroup/*/holdfast-t-fuse/n1/init.scope /sys/fs/cgroup/holdfast-t-fuse/n1/init.scope";
    sh(&format!(
        "for p in $(cat $(ls -d {scope} 2>/dev/null | sed 's|$|/cgroup.procs|') | sort -u); do \
         grep -qz node-fuse /proc/$p/cmdline && kill -9 $p; done"
    ));
    let gone = |lab: &Lab| lab.status().unwrap()[0].daemon == PartStatus::Down;
    wait_until("the node's death", LIMIT, || Ok(gone(&lab))).unwrap();
    lab.kill("n1").unwrap();
    lab.power_on("n1").unwrap();
    assert!(!gone(&lab));
}

#[test]
fn parts_are_paused_and_restarted() {
    let Rig { lab, _bin } = rig("t-parts", 1);
    let daemon = |lab: &Lab| lab.status().unwrap()[0].daemon;
    lab.pause("n1", Part::Daemon).unwrap();
    wait_until("the pause", LIMIT, || Ok(matches!(daemon(&lab), PartStatus::Paused { .. })))
        .unwrap();
    lab.resume("n1", Part::Daemon).unwrap();
    wait_until("the end of it", LIMIT, || Ok(matches!(daemon(&lab), PartStatus::Running { .. })))
        .unwrap();
    let before = lab.pid("n1", Part::Guardian).unwrap();
    lab.crash("n1", Part::Guardian).unwrap();
    wait_until("the restart", LIMIT, || {
        Ok(lab.pid("n1", Part::Guardian).is_ok_and(|pid| pid != before))
    })
    .unwrap();
    assert!(matches!(lab.pause("n7", Part::Daemon), Err(LabError::NoNode { .. })));
}

#[test]
fn links_are_cut_one_way_both_ways_and_healed() {
    let Rig { lab, _bin } = rig("t-links", 3);
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|n| lab.layout().netns(n));
    lab.cut("n1").unwrap();
    assert!(!ping(&n2, "10.88.0.1"));
    lab.heal("n1").unwrap();
    assert!(reaches(&n2, "10.88.0.1"));
    lab.cut_from("n2", "n1").unwrap();
    assert!(!ping(&n1, "10.88.0.2"));
    assert!(reaches(&n1, "10.88.0.3") && reaches(&n3, "10.88.0.2"), "the others do not notice");
    lab.heal("n2").unwrap();
    assert!(reaches(&n1, "10.88.0.2"));
}

/// Two that do not hear each other, and a third that hears both.
#[test]
fn a_partition_is_partial_and_replaces_the_one_before() {
    let Rig { lab, _bin } = rig("t-partial", 3);
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|n| lab.layout().netns(n));
    let both = |a: &str, b: &str| [(a.into(), b.into()), (b.into(), a.into())].into();
    lab.partition(both("n1", "n2")).unwrap();
    assert!(!ping(&n1, "10.88.0.2") && !ping(&n2, "10.88.0.1"));
    assert!(reaches(&n1, "10.88.0.3") && reaches(&n2, "10.88.0.3"));
    assert!(reaches(&lab.layout().client(), "10.88.0.1"), "clients reach all of them");
    lab.partition(both("n1", "n3")).unwrap();
    assert!(!ping(&n3, "10.88.0.1") && reaches(&n1, "10.88.0.2"));
    assert_eq!(lab.partition(both("n1", "n9")).unwrap_err().code(), Code::NotFound);
    lab.partition([].into()).unwrap();
    assert!(reaches(&n3, "10.88.0.1"));
}

#[test]
fn two_labs_stand_side_by_side() {
    let (a, b) = (rig("t-side", 1), rig("t-side-b", 1));
    assert!(reaches(&a.lab.layout().client(), "10.88.0.1"));
    drop(a);
    assert!(reaches(&b.lab.layout().client(), "10.88.0.1"), "the other lab still stands");
    assert!(b.lab.pid("n1", Part::Daemon).is_ok());
}

#[test]
fn a_directory_with_other_peoples_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), "x").unwrap();
    let none = PathBuf::from("/nonexistent");
    let programs = Programs { lab: none.clone(), daemon: none.clone(), guardian: none };
    let options =
        UpOptions { dir: Some(dir.path().to_owned()), ..UpOptions::new("t-foreign", programs) };
    assert_eq!(Lab::up(&options).unwrap_err().code(), Code::InUse);
    Lab::down("t-foreign", Some(dir.path().to_owned())).unwrap();
    assert!(Path::new(&dir.path().join("precious")).exists());
}

//! A process in uninterruptible sleep cannot be frozen: it is killed, and nobody else (rule 3).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::{BUDGET_NS, Node, in_ms, sleep_until, wait_for};

/// A small filesystem in a file, thawed and unmounted at the end.
struct Filesystem {
    point: PathBuf,
    _dir: tempfile::TempDir,
}

impl Filesystem {
    fn make() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (image, point) = (dir.path().join("image"), dir.path().join("mnt"));
        fs::File::create(&image).and_then(|file| file.set_len(16 << 20)).expect("an image");
        fs::create_dir(&point).expect("a mount point");
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point));
        Self { point, _dir: dir }
    }

    fn freeze(&self) {
        run(Command::new("fsfreeze").arg("-f").arg(&self.point));
    }

    fn thaw(&self) {
        run(Command::new("fsfreeze").arg("-u").arg(&self.point));
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        let quietly = |command: &mut Command| {
            let _ = command.arg(&self.point).stderr(Stdio::null()).status();
        };
        quietly(Command::new("fsfreeze").arg("-u"));
        quietly(Command::new("umount").arg("-l"));
    }
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status().expect("ran");
    assert!(status.success(), "{command:?}");
}

/// I8: within the budget it has SIGKILL pending, so it never returns to user mode; its neighbour is
/// only paused.
#[test]
fn what_cannot_be_frozen_is_killed_and_nothing_else() {
    let mut node;
    // Mounted before the guardian starts: the host's root may not be shared. Thawed before the
    // node is torn down: it is declared after it.
    let filesystem = Filesystem::make();
    node = Node::start();
    let stuck = node.dir.path().join("stuck");
    let mut command = node.enter("stuck", "sh");
    let script = "echo $$ >\"$1\"; echo x >\"$0/file\"; echo y >\"$1\"";
    command.args(["-c", script]).arg(&filesystem.point).arg(&stuck);
    filesystem.freeze();
    node.launch(command);
    let neighbour = node.writer("neighbour");
    let deadline_ns = in_ms(1_000);
    node.client().thaw(in_ms(0), deadline_ns).expect("thawed");
    wait_for("it has begun to write", || fs::read(&stuck).is_ok_and(|text| !text.is_empty()));
    neighbour.wait_running();
    neighbour.assert_stopped_before(deadline_ns + BUDGET_NS);
    sleep_until(deadline_ns + BUDGET_NS);

    let fence = node.status().last_fence.expect("a fence");
    assert!(fence.killed_ns.is_some() && fence.frozen_ns.is_none(), "{fence:?}");
    assert!(fence.complete_ns.is_some_and(|at_ns| at_ns < deadline_ns + BUDGET_NS), "{fence:?}");
    let populated = |child: &str| {
        let text = fs::read_to_string(node.ancestor.0.join(child).join("cgroup.events"));
        text.is_ok_and(|text| text.contains("populated 1"))
    };
    assert!(populated("stuck"), "still in uninterruptible sleep");
    filesystem.thaw();
    wait_for("it dies as soon as it can", || !populated("stuck"));
    assert_ne!(fs::read_to_string(&stuck).expect("read"), "y\n", "it never ran on");
    assert!(populated("neighbour"));
    node.client().thaw(in_ms(0), in_ms(5_000)).expect("thawed");
    neighbour.wait_running();
}

//! Whether a process can still run user code: it is *stopped* when it is dead, or SIGKILL is
//! pending for it (it never returns to user mode). Frozen is judged by its cgroup.

use std::fs;
use std::path::Path;

/// SIGKILL's bit in the masks of proc_pid_status(5).
const SIGKILL_BIT: u64 = 1 << (9 - 1);
/// The task has begun to exit (include/linux/sched.h).
const PF_EXITING: u64 = 0x4;

/// Whether some task of the process may run user code.
pub(super) fn process_runs(pid: &str) -> bool {
    let dir = Path::new("/proc").join(pid);
    match task_runs(&dir) {
        // A process whose first thread has ended shows as a zombie while others go on.
        Some(Seen::Zombie) => threads_run(&dir),
        Some(Seen::Runs) => true,
        Some(Seen::Stopped) | None => false,
    }
}

fn threads_run(dir: &Path) -> bool {
    let threads = fs::read_dir(dir.join("task")).into_iter().flatten().flatten();
    threads.into_iter().any(|t| task_runs(&t.path()) == Some(Seen::Runs))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Runs,
    Stopped,
    Zombie,
}

fn task_runs(dir: &Path) -> Option<Seen> {
    let status = fs::read_to_string(dir.join("status")).ok()?;
    match judge_status(&status) {
        Seen::Runs => {
            let stat = fs::read_to_string(dir.join("stat")).ok()?;
            Some(if is_exiting(&stat) { Seen::Stopped } else { Seen::Runs })
        }
        other => Some(other),
    }
}

fn judge_status(status: &str) -> Seen {
    for line in status.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "State" if value.starts_with('Z') => return Seen::Zombie,
            "State" if value.starts_with('X') => return Seen::Stopped,
            "SigPnd" | "ShdPnd" if has_sigkill(value) => return Seen::Stopped,
            _ => {}
        }
    }
    Seen::Runs
}

fn has_sigkill(mask: &str) -> bool {
    u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & SIGKILL_BIT != 0)
}

/// Field 9 of proc_pid_stat(5), counted from behind the name, which may hold anything.
fn is_exiting(stat: &str) -> bool {
    let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6));
    flags.and_then(|f| f.parse::<u64>().ok()).is_some_and(|flags| flags & PF_EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, own: u64, shared: u64) -> String {
        format!(
            "Name:\tx\nState:\t{state}\nThreads:\t1\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n"
        )
    }

    #[test]
    fn a_pending_sigkill_is_as_good_as_dead() {
        assert_eq!(judge_status(&status("D (disk sleep)", 0x100, 0)), Seen::Stopped);
        assert_eq!(judge_status(&status("D (disk sleep)", 0, 0x100)), Seen::Stopped);
        assert_eq!(judge_status(&status("D (disk sleep)", 0x4000, 0)), Seen::Runs);
    }

    #[test]
    fn a_stopped_or_sleeping_task_may_run_again() {
        for state in ["R (running)", "S (sleeping)", "T (stopped)", "t (tracing stop)"] {
            assert_eq!(judge_status(&status(state, 0, 0)), Seen::Runs, "{state}");
        }
        assert_eq!(judge_status(&status("Z (zombie)", 0, 0)), Seen::Zombie);
        assert_eq!(judge_status(&status("X (dead)", 0, 0)), Seen::Stopped);
    }

    #[test]
    fn an_exiting_task_is_known_by_its_flags() {
        assert!(is_exiting("7 (a) b) R 1 7 7 0 -1 4194308 0 0"));
        assert!(!is_exiting("7 (a) b) R 1 7 7 0 -1 4194304 0 0"));
    }

    #[test]
    fn this_process_runs_and_none_does_not() {
        assert!(process_runs(&std::process::id().to_string()));
        assert!(!process_runs("999999999"));
    }
}

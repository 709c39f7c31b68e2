//! Waiting for a condition with a deadline, and running programs under one.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// What is kept of what a program prints: enough for its last words.
pub(crate) const KEEP: usize = 4096;

/// Asks `done` until it says yes or `limit` has passed; whether it said yes.
pub(crate) fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Runs a program to its end without input; killed at the deadline. Returns what it printed.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<String> {
    run_accepting(command, limit, &[0])
}

/// The same, for a program whose success has more than one exit status.
pub(crate) fn run_accepting(
    command: &mut Command,
    limit: Duration,
    good: &[i32],
) -> Result<String> {
    run_keeping(command, limit, good, KEEP)
}

/// The same, for one that prints more than a few lines: up to `keep` bytes, the last ones.
pub(crate) fn run_keeping(
    command: &mut Command,
    limit: Duration,
    good: &[i32],
    keep: usize,
) -> Result<String> {
    let tool = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::MissingTool(tool.clone()),
        _ => Error::Io { what: "starting", path: tool.clone().into(), source },
    })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let out = std::thread::spawn(move || tail(out, keep));
    let err = std::thread::spawn(move || tail(err, KEEP));
    let mut status = None;
    until(limit, || {
        status = child.try_wait().transpose();
        status.is_some()
    });
    let Some(status) = status else {
        // It may be stuck in the kernel: it is told to die, and reaped if it does.
        let _ = child.kill();
        let _ = child.try_wait();
        return Err(Error::Timeout(tool));
    };
    let status = status.map_err(Error::io("waiting for", &tool))?;
    let out = out.join().unwrap_or_default();
    let stderr = err.join().unwrap_or_default();
    match status.code().is_some_and(|code| good.contains(&code)) {
        true => Ok(out),
        false => Err(Error::Tool { tool, stderr: format!("{status}: {}", stderr.trim()) }),
    }
}

/// Runs a program that tells how far it is, a line at a time; killed at the deadline, if it still
/// tells then.
pub(crate) fn run_telling(
    command: &mut Command,
    limit: Duration,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let deadline = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::MissingTool(tool.clone()),
        _ => Error::Io { what: "starting", path: tool.clone().into(), source },
    })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let err = std::thread::spawn(move || tail(err, KEEP));
    for line in out.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(|l| l.ok())) {
        tell(&line);
        if Instant::now() > deadline {
            let _ = child.kill();
        }
    }
    let status = child.wait().map_err(Error::io("waiting for", &tool))?;
    let stderr = err.join().unwrap_or_default();
    match status.success() {
        true => Ok(()),
        false => Err(Error::Tool { tool, stderr: format!("{status}: {}", stderr.trim()) }),
    }
}

/// The last bytes of a pipe.
pub(crate) fn tail(pipe: Option<impl Read>, keep: usize) -> String {
    let mut kept = Vec::new();
    let mut buf = [0; KEEP];
    if let Some(mut pipe) = pipe {
        while let Ok(n @ 1..) = pipe.read(&mut buf) {
            kept.extend_from_slice(&buf[..n]);
            let surplus = kept.len().saturating_sub(keep);
            kept.drain(..surplus);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_program_answers_fails_is_missing_or_runs_out_of_time() {
        assert_eq!(run(Command::new("echo").arg("hi"), LIMIT).unwrap(), "hi\n");
        assert!(matches!(run(&mut Command::new("false"), LIMIT), Err(Error::Tool { .. })));
        let missing = run(&mut Command::new("holdfast-no-such-program"), LIMIT);
        assert!(matches!(missing, Err(Error::MissingTool(_))));
        let slow = run(Command::new("sleep").arg("60"), Duration::from_millis(20));
        assert!(matches!(slow, Err(Error::Timeout(_))));
    }
}

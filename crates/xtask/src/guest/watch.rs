//! Follows a guest: passes its output on, and cuts its power when that is due.

use std::io::{Read, Write};
use std::process::Child;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// When a guest is killed.
pub(crate) struct Watch<'a> {
    /// So long after it has printed this.
    pub(crate) cut: Option<(&'a str, Duration)>,
    /// After so long, if it has not printed anything.
    pub(crate) comes_up: Duration,
    /// After so long.
    pub(crate) deadline: Duration,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Off,
    /// It printed what was waited for, and was killed.
    Cut,
    /// It never came up, and was killed.
    Down,
    /// It was not done by the deadline, and was killed.
    Late,
}

impl Watch<'_> {
    /// Follows the process, whose standard output is piped, until it has ended.
    pub(crate) fn follow(&self, mut guest: Child) -> Result<End> {
        let output = guest.stdout.take().context("no output to follow")?;
        let (send, receive) = mpsc::sync_channel(16);
        let reader = std::thread::spawn(move || forward(output, &send));
        let begun = Instant::now();
        let mut limit = self.comes_up.min(self.deadline);
        let mut seen = Vec::new();
        let mut cut = self.cut;
        let mut due = None;
        let end = loop {
            if due.is_some_and(|due| Instant::now() >= due) {
                break End::Cut;
            }
            let until = due.unwrap_or(begun + limit);
            match receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => {
                    limit = self.deadline;
                    std::io::stdout().write_all(&bytes)?;
                    std::io::stdout().flush()?;
                    let heard =
                        |(text, _): &mut (&str, _)| found(&mut seen, &bytes, text.as_bytes());
                    if let Some((_, late)) = cut.take_if(heard) {
                        due = Some(Instant::now() + late);
                    }
                }
                Err(RecvTimeoutError::Timeout) if due.is_some() => {}
                Err(RecvTimeoutError::Timeout) if limit < self.deadline => break End::Down,
                Err(RecvTimeoutError::Timeout) => break End::Late,
                Err(RecvTimeoutError::Disconnected) => break End::Off,
            }
        };
        if end != End::Off {
            guest.kill().context("killing QEMU")?;
        }
        guest.wait()?;
        drop(receive);
        let _ = reader.join();
        Ok(end)
    }
}

/// Until there is no more, or nobody who listens.
fn forward(mut output: impl Read, send: &mpsc::SyncSender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer) {
        if send.send(buffer[..length].to_vec()).is_err() {
            break;
        }
    }
}

/// Whether `text` has come by now, in however many pieces; `seen` keeps what may be its beginning.
fn found(seen: &mut Vec<u8>, more: &[u8], text: &[u8]) -> bool {
    seen.extend_from_slice(more);
    if text.is_empty() || seen.windows(text.len()).any(|window| window == text) {
        return true;
    }
    seen.drain(..seen.len().saturating_sub(text.len() - 1));
    false
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn follow(script: &str, cut: Option<&str>, deadline: Duration) -> End {
        follow_late(script, cut.map(|text| (text, Duration::ZERO)), deadline)
    }

    fn follow_late(script: &str, cut: Option<(&str, Duration)>, deadline: Duration) -> End {
        let guest = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn();
        Watch { cut, comes_up: deadline, deadline }.follow(guest.expect("sh")).expect("followed")
    }

    #[test]
    fn the_power_is_cut_at_the_word_and_not_before() {
        let long = Duration::from_secs(30);
        assert_eq!(follow("echo one; exec sleep 1000", Some("one"), long), End::Cut);
        assert_eq!(follow("echo one", Some("two"), long), End::Off);
        assert_eq!(follow("exec sleep 1000", None, Duration::from_millis(100)), End::Late);
        let late = Duration::from_millis(300);
        let begun = Instant::now();
        assert_eq!(follow_late("echo one; exec sleep 1000", Some(("one", late)), long), End::Cut);
        assert!(begun.elapsed() >= late);
    }

    #[test]
    fn a_guest_that_is_silent_did_not_come_up() {
        let begin = |script: &str| {
            let guest = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn();
            let (comes_up, deadline) = (Duration::from_secs(2), Duration::from_secs(3));
            Watch { cut: None, comes_up, deadline }.follow(guest.expect("sh")).expect("followed")
        };
        assert_eq!(begin("exec sleep 1000"), End::Down);
        assert_eq!(begin("echo one; exec sleep 1000"), End::Late);
    }

    #[test]
    fn a_word_that_comes_in_pieces_is_found() {
        let mut seen = Vec::new();
        assert!(!found(&mut seen, b"abc CU", b"CUT"));
        assert!(seen.len() < 3);
        assert!(found(&mut seen, b"T", b"CUT"));
    }
}

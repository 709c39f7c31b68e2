//! The client that keeps asking one address, from the client's network namespace.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::chain::Record;
use super::ledger::Acked;
use crate::LabError;
use crate::client::in_client;
use crate::clock::{BootInstant, wall_ms};
use crate::layout::Layout;
use crate::pace::Pace;

/// Between the beginnings of two requests.
const PERIOD: Duration = Duration::from_millis(20);
const CONNECT_LIMIT: Duration = Duration::from_millis(100);
const READ_LIMIT: Duration = Duration::from_millis(300);
/// The whole chain of a long run is some megabytes.
const FETCH_LIMIT: Duration = Duration::from_secs(20);
const MAX_ANSWER: u64 = 64 << 20;

/// A running client. It stops when dropped.
#[derive(Debug)]
pub struct Probe {
    acked: Arc<Mutex<Vec<Acked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<()>>>,
}

impl Probe {
    /// Begins to ask this container address of the lab.
    pub fn start(layout: &Layout, address: Ipv4Addr, pace: Pace) -> Result<Self, LabError> {
        let (acked, stop) = <(Arc<Mutex<Vec<Acked>>>, Arc<AtomicBool>)>::default();
        let (log, ending) = (Arc::clone(&acked), Arc::clone(&stop));
        let thread = in_client(layout, move || {
            while !ending.load(Ordering::Relaxed) {
                let begin = Instant::now();
                if let Some(answer) = ask(address, pace) {
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                }
                std::thread::sleep(pace.of(PERIOD).saturating_sub(begin.elapsed()));
            }
        })?;
        Ok(Self { acked, stop, thread: Some(thread) })
    }

    /// Everything answered so far, in order.
    pub fn acked(&self) -> Vec<Acked> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first answer to a request that was sent after this instant.
    pub fn first_after(&self, instant: BootInstant) -> Option<Acked> {
        let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.iter().find(|a| a.sent > instant).cloned()
    }

    /// The last answer that was whole before this instant.
    pub fn last_before(&self, instant: BootInstant) -> Option<Acked> {
        let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.iter().rev().find(|a| a.acked < instant).cloned()
    }

    /// Stops asking; everything answered comes back.
    pub fn finish(mut self) -> Vec<Acked> {
        self.end();
        self.acked()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end();
    }
}

/// The text of the container's whole chain, as its web server has it.
pub fn fetch_chain(layout: &Layout, address: Ipv4Addr, pace: Pace) -> Result<String, LabError> {
    let limits = Limits { connect: pace.of(CONNECT_LIMIT), whole: pace.of(FETCH_LIMIT) };
    let thread = in_client(layout, move || get(address, "/chain", limits))?;
    let answer = thread.join().ok().flatten().and_then(Result::ok);
    answer.ok_or_else(|| LabError::Deadline {
        what: format!("the chain of {address}"),
        seconds: limits.whole.as_secs(),
    })
}

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connect: Duration,
    whole: Duration,
}

fn ask(address: Ipv4Addr, pace: Pace) -> Option<Acked> {
    let limits = Limits { connect: pace.of(CONNECT_LIMIT), whole: pace.of(READ_LIMIT) };
    let sent = BootInstant::now();
    let body = get(address, "/cgi-bin/append", limits).ok()?;
    let record = Record::parse(body.strip_suffix('\n')?)?;
    Some(Acked { record, sent, acked: BootInstant::now(), acked_wall_ms: wall_ms() })
}

/// One HTTP/1.0 request; the body of a 200.
fn get(address: Ipv4Addr, path: &str, limits: Limits) -> std::io::Result<String> {
    let fail = |why: &str| std::io::Error::other(why.to_owned());
    let end = Instant::now() + limits.whole;
    let server = SocketAddr::from((address, 80));
    let mut stream = TcpStream::connect_timeout(&server, limits.connect)?;
    stream.set_write_timeout(Some(limits.whole))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || answer.len() as u64 > MAX_ANSWER {
            return Err(fail("the answer is not whole in time"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    let text = String::from_utf8(answer).map_err(|_| fail("the answer is no text"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| fail("no HTTP answer"))?;
    let ok = head.split(' ').nth(1) == Some("200");
    if ok { Ok(body.to_owned()) } else { Err(fail("the answer is an error")) }
}

//! The blocking client: the agent calls it from a thread that may block.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_types::Code;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, sockopt,
};

use crate::clock::{NS_PER_MS, boottime_ns};
use crate::protocol::{
    Call, FenceRecord, Grant, KillOutcome, MAX_MESSAGE_BYTES, Refusal, Reply, Request, Response,
    Status,
};
use crate::{ChildPath, ChildPathError};

/// Why the guardian did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// Nothing listens at the socket, or the connection broke.
    #[error("the guardian at {path} cannot be reached")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No answer in time. Whether the request took effect is unknown until `status` says.
    #[error("the guardian did not answer within {0:?}")]
    Timeout(Duration),
    /// It answered no.
    #[error("the guardian refused: {0}")]
    Refused(Refusal),
    /// It answered something else than what was asked, or what cannot be read.
    #[error("the guardian's answer cannot be understood: {0}")]
    Answer(String),
    /// The container's cgroup name is malformed.
    #[error(transparent)]
    Child(#[from] ChildPathError),
}

impl GuardianError {
    /// The stable code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Child(error) => error.code(),
            Self::Unreachable { .. } | Self::Timeout(_) | Self::Refused(_) | Self::Answer(_) => {
                Code::Guardian
            }
        }
    }

    /// Whether a renewal came too late: the way on is to kill what is no longer owned, then
    /// [`GuardianClient::thaw`].
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Refused(Refusal::Fenced | Refusal::Fencing))
    }
}

/// A connection to the guardian. After [`GuardianError::Unreachable`] connect anew.
#[derive(Debug)]
pub struct GuardianClient {
    socket: OwnedFd,
    path: PathBuf,
    timeout: Duration,
    last_seq: u64,
}

/// How long a call waits unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);

/// How long `relinquish` waits: the longest fence budget and some.
const RELINQUISH_TIMEOUT: Duration = Duration::from_secs(11);

impl GuardianClient {
    /// Connects to the guardian's socket.
    pub fn connect(path: &Path) -> Result<Self, GuardianError> {
        let unreachable = |source: rustix::io::Errno| GuardianError::Unreachable {
            path: path.to_owned(),
            source: source.into(),
        };
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(unreachable)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(DEFAULT_TIMEOUT))
            .map_err(unreachable)?;
        let address = SocketAddrUnix::new(path).map_err(unreachable)?;
        connect(&socket, &address).map_err(unreachable)?;
        Ok(Self { socket, path: path.to_owned(), timeout: DEFAULT_TIMEOUT, last_seq: 0 })
    }

    /// Sets how long each call waits for its answer.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The guardian's account of itself.
    pub fn status(&mut self) -> Result<Status, GuardianError> {
        match self.call(Request::Status, self.timeout)? {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Extends a live lease to `deadline_ns`, by a grant asked for at `sent_ns`; both of
    /// CLOCK_BOOTTIME. Returns the deadline in force.
    pub fn renew(&mut self, sent_ns: u64, deadline_ns: u64) -> Result<u64, GuardianError> {
        self.granted(Request::Renew(Grant { sent_ns, deadline_ns }))
    }

    /// Lets everything below the ancestor run until `deadline_ns`, by a grant asked for at
    /// `sent_ns`; both of CLOCK_BOOTTIME. What this node no longer owns must have been killed
    /// before (rule 5). Returns the deadline in force.
    pub fn thaw(&mut self, sent_ns: u64, deadline_ns: u64) -> Result<u64, GuardianError> {
        self.granted(Request::Thaw(Grant { sent_ns, deadline_ns }))
    }

    /// Ends the lease now and returns when everything has stopped: evidence for a takeover
    /// without a wait.
    pub fn relinquish(&mut self) -> Result<FenceRecord, GuardianError> {
        match self.call(Request::Relinquish, self.timeout.max(RELINQUISH_TIMEOUT))? {
            Response::Stopped(record) => Ok(record),
            other => Err(unexpected(&other)),
        }
    }

    /// Kills one container's subtree, frozen or not. It may be asked any number of times; the
    /// outcome says whether anything of it is still there.
    pub fn kill(&mut self, child: &ChildPath) -> Result<KillOutcome, GuardianError> {
        match self.call(Request::Kill { child: child.clone() }, self.timeout)? {
            Response::Killed(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    fn granted(&mut self, request: Request) -> Result<u64, GuardianError> {
        match self.call(request, self.timeout)? {
            Response::Granted { deadline_ns } => Ok(deadline_ns),
            other => Err(unexpected(&other)),
        }
    }

    fn call(&mut self, request: Request, timeout: Duration) -> Result<Response, GuardianError> {
        self.last_seq += 1;
        let seq = self.last_seq;
        let packet = serde_json::to_vec(&Call { seq, request })
            .map_err(|error| GuardianError::Answer(error.to_string()))?;
        send(&self.socket, &packet, SendFlags::NOSIGNAL).map_err(|e| self.broken(e, timeout))?;
        let give_up_ns = boottime_ns().saturating_add(nanos(timeout));
        loop {
            let reply = self.receive(give_up_ns, timeout)?;
            // Answers to calls given up earlier may still arrive: they are skipped.
            if reply.seq == seq {
                return match reply.response {
                    Response::Refused(refusal) => Err(GuardianError::Refused(refusal)),
                    response => Ok(response),
                };
            }
        }
    }

    fn receive(&self, give_up_ns: u64, timeout: Duration) -> Result<Reply, GuardianError> {
        let left_ns = give_up_ns.saturating_sub(boottime_ns());
        if left_ns < NS_PER_MS {
            return Err(GuardianError::Timeout(timeout));
        }
        sockopt::set_socket_timeout(
            &self.socket,
            sockopt::Timeout::Recv,
            Some(Duration::from_nanos(left_ns)),
        )
        .map_err(|e| self.broken(e, timeout))?;
        let mut buffer = [0u8; MAX_MESSAGE_BYTES];
        let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())
            .map_err(|e| self.broken(e, timeout))?;
        if length == 0 {
            return Err(self.broken(rustix::io::Errno::CONNRESET, timeout));
        }
        serde_json::from_slice(&buffer[..length])
            .map_err(|error| GuardianError::Answer(error.to_string()))
    }

    fn broken(&self, error: rustix::io::Errno, timeout: Duration) -> GuardianError {
        match error {
            rustix::io::Errno::AGAIN => GuardianError::Timeout(timeout),
            other => GuardianError::Unreachable { path: self.path.clone(), source: other.into() },
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn unexpected(response: &Response) -> GuardianError {
    GuardianError::Answer(format!("{response:?}"))
}

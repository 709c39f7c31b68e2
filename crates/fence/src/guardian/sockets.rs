//! The guardian's socket: packets in, packets out, never waiting for anybody.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::Mode;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, listen, recv, send, socket_with, sockopt,
};

use crate::protocol::{Call, MAX_MESSAGE_BYTES, Refusal, Reply, Response};

/// Most connections at once; one more evicts the one that was silent longest.
const MAX_CLIENTS: usize = 16;

/// Which client a request came from. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientId(u64);

/// The listening socket and its connections, the longest silent first.
#[derive(Debug)]
pub(super) struct Sockets {
    listener: OwnedFd,
    clients: Vec<(ClientId, OwnedFd)>,
    accepted: u64,
}

/// What was read from a client.
pub(super) enum Received {
    /// Nothing is there (any more).
    Nothing,
    /// The connection ended.
    Closed,
    /// A call to answer.
    Call(Call),
    /// Something that is no call.
    Malformed(String),
}

impl Sockets {
    /// Listens at `path`, for root only. A socket file left behind is replaced.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match rustix::fs::unlink(path) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = bind(&listener, &SocketAddrUnix::new(path)?);
        rustix::process::umask(umask);
        bound?;
        listen(&listener, MAX_CLIENTS as i32)?;
        Ok(Self { listener, clients: Vec::with_capacity(MAX_CLIENTS), accepted: 0 })
    }

    /// The listener and every connection, to poll for input.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().map(|(_, fd)| fd.as_fd());
        std::iter::once(self.listener.as_fd()).chain(clients)
    }

    /// The clients, the longest silent first.
    pub(super) fn ids(&self) -> Vec<ClientId> {
        self.clients.iter().map(|(id, _)| *id).collect()
    }

    /// Takes in whoever waits, root only (the socket's mode says so too, but modes can be changed).
    pub(super) fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..MAX_CLIENTS {
            let Ok(client) = accept_with(&self.listener, flags) else { return };
            if !sockopt::socket_peercred(&client).is_ok_and(|peer| peer.uid.is_root()) {
                continue;
            }
            if self.clients.len() >= MAX_CLIENTS {
                self.clients.remove(0);
            }
            self.accepted += 1;
            self.clients.push((ClientId(self.accepted), client));
        }
    }

    /// Reads one packet of a client's.
    pub(super) fn receive(&mut self, id: ClientId) -> Received {
        let Some(at) = self.clients.iter().position(|(other, _)| *other == id) else {
            return Received::Closed;
        };
        // One byte more than allowed, to tell a packet that is too long.
        let mut buffer = [0u8; MAX_MESSAGE_BYTES + 1];
        let length = match recv(&self.clients[at].1, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Received::Nothing,
            Err(_) => 0,
        };
        let client = self.clients.remove(at);
        if length == 0 {
            return Received::Closed;
        }
        self.clients.push(client);
        if length > MAX_MESSAGE_BYTES {
            return Received::Malformed(format!("longer than {MAX_MESSAGE_BYTES} bytes"));
        }
        match serde_json::from_slice(&buffer[..length]) {
            Ok(call) => Received::Call(call),
            Err(error) => Received::Malformed(error.to_string()),
        }
    }

    /// Answers a client. One that does not read its answers is dropped.
    pub(super) fn reply(&mut self, id: ClientId, seq: u64, response: Response) {
        let Some(at) = self.clients.iter().position(|(other, _)| *other == id) else { return };
        let mut packet = serde_json::to_vec(&Reply { seq, response }).unwrap_or_default();
        if packet.is_empty() || packet.len() > MAX_MESSAGE_BYTES {
            let response = Response::Refused(Refusal::Malformed("the answer is too long".into()));
            packet = serde_json::to_vec(&Reply { seq, response }).unwrap_or_default();
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if !matches!(send(&self.clients[at].1, &packet, flags), Ok(sent) if sent == packet.len()) {
            self.clients.remove(at);
        }
    }
}

//! The link group: every host-side veth of a protected container, set down or up by one message.
//!
//! A frozen container's kernel still answers pings and acknowledges TCP, so a fence takes the links
//! too. `RTM_NEWLINK` without an index, a name or NLM_F_CREATE, with `IFLA_GROUP`, applies to every
//! link of the group (rtnetlink(7), `ip link set group N down`); the kernel does it before it
//! acknowledges.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const IFLA_GROUP: u16 = 27;
const IFF_UP: u32 = 1;
/// nlmsghdr (16), ifinfomsg (16), one attribute with a u32 (8): netlink(7).
const REQUEST_BYTES: usize = 40;

/// A route socket in the guardian's network namespace, held open from the start.
#[derive(Debug)]
pub(super) struct LinkGroup {
    socket: OwnedFd,
    group: NonZeroU32,
    last_seq: u32,
}

impl LinkGroup {
    /// Opens the socket. Group 0 is every ordinary link, hence [`NonZeroU32`].
    pub(super) fn open(group: NonZeroU32) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        Ok(Self { socket, group, last_seq: 0 })
    }

    /// Sets every link of the group up or down; it is so on return.
    pub(super) fn set(&mut self, up: bool) -> io::Result<()> {
        self.last_seq = self.last_seq.wrapping_add(1);
        send(&self.socket, &request(self.group.get(), self.last_seq, up), SendFlags::empty())?;
        // The kernel handles the request inside `send`: the answer is there.
        let mut buffer = [0u8; 512];
        loop {
            let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
            match acknowledgement(&buffer[..length.min(buffer.len())]) {
                Some((seq, error)) if seq == self.last_seq => return error,
                _ => continue,
            }
        }
    }
}

fn request(group: u32, seq: u32, up: bool) -> [u8; REQUEST_BYTES] {
    let mut message = [0u8; REQUEST_BYTES];
    let mut put = |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(REQUEST_BYTES as u32).to_ne_bytes());
    put(4, &RTM_NEWLINK.to_ne_bytes());
    put(6, &(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    put(8, &seq.to_ne_bytes());
    // ifinfomsg at 16: family, type and index stay 0; flags at 24, the mask of change at 28.
    put(24, &(if up { IFF_UP } else { 0 }).to_ne_bytes());
    put(28, &IFF_UP.to_ne_bytes());
    put(32, &8u16.to_ne_bytes());
    put(34, &IFLA_GROUP.to_ne_bytes());
    put(36, &group.to_ne_bytes());
    message
}

/// The sequence number and outcome of an NLMSG_ERROR message; `None` for any other.
fn acknowledgement(message: &[u8]) -> Option<(u32, io::Result<()>)> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let seq = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
    let error = i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?);
    let outcome =
        if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error.wrapping_neg())) };
    (kind == NLMSG_ERROR).then_some((seq, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that iproute2 6.1 sends for `ip link set group 7 down`.
    #[test]
    fn the_request_names_the_group_and_nothing_else() {
        let message = request(7, 3, false);
        assert_eq!(message[..16], [40, 0, 0, 0, 16, 0, 5, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message[16..32], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(message[32..], [8, 0, 27, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn a_short_or_foreign_answer_is_no_acknowledgement() {
        assert!(acknowledgement(&[]).is_none());
        assert!(acknowledgement(&[0; 36]).is_none());
    }
}

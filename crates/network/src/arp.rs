//! Gratuitous ARP: the frames that say "this address is at this MAC, and the MAC is here".
//!
//! Neighbours that cached the address take it from the ARP payload; bridges and VXLAN devices on
//! the way only look at the Ethernet source. Some stacks heed the request form, some the reply
//! form (RFC 5227 section 3), so both are sent.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use holdfast_types::MacAddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::sys;

const ETHERTYPE_ARP: u16 = 0x0806;
const BROADCAST: [u8; 6] = [0xff; 6];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// A socket that can send frames out of one device, and receives nothing.
#[derive(Debug)]
pub(crate) struct FrameSocket {
    socket: OwnedFd,
    ifindex: i32,
}

impl FrameSocket {
    /// Opens it in the network namespace of the calling thread.
    pub(crate) fn open(ifindex: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        let ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { socket, ifindex })
    }

    /// Broadcasts both forms once.
    pub(crate) fn announce(&self, mac: MacAddr, address: Ipv4Addr) -> io::Result<()> {
        for operation in [REQUEST, REPLY] {
            let frame = frame(operation, mac, address);
            sys::send_frame(self.socket.as_fd(), self.ifindex, ETHERTYPE_ARP, &frame)?;
        }
        Ok(())
    }
}

/// An Ethernet frame with an ARP packet (RFC 826) whose sender and target are the same address.
fn frame(operation: u16, mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let target_mac = if operation == REPLY { mac.0 } else { [0; 6] };
    let mut frame = Vec::with_capacity(60);
    frame.extend(BROADCAST);
    frame.extend(mac.0);
    frame.extend(ETHERTYPE_ARP.to_be_bytes());
    frame.extend([0x00, 0x01]); // hardware: Ethernet
    frame.extend([0x08, 0x00]); // protocol: IPv4
    frame.extend([6, 4]); // lengths of the two kinds of address
    frame.extend(operation.to_be_bytes());
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend(target_mac);
    frame.extend(address.octets());
    frame.resize(60, 0); // the shortest Ethernet frame, less its checksum
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_sender_twice() {
        let address = Ipv4Addr::new(10, 77, 0, 5);
        let mac = MacAddr::from_ipv4(address);
        let request = frame(REQUEST, mac, address);
        let reply = frame(REPLY, mac, address);
        for frame in [&request, &reply] {
            assert_eq!(frame.len(), 60);
            assert_eq!(frame[..6], BROADCAST);
            assert_eq!(frame[6..12], mac.0, "the bridges learn from this one");
            assert_eq!(frame[28..32], address.octets(), "sender");
            assert_eq!(frame[38..42], address.octets(), "target");
        }
        assert_eq!((request[21], reply[21]), (1, 2));
        assert_eq!(request[32..38], [0; 6]);
        assert_eq!(reply[32..38], mac.0);
    }
}

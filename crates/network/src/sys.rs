//! The one system call for which no safe wrapper knows the address: sending on a packet socket.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// Sends one whole Ethernet frame out of the device with the index (packet(7), `SOCK_RAW`).
pub(crate) fn send_frame(
    socket: BorrowedFd<'_>,
    ifindex: i32,
    ethertype: u16,
    frame: &[u8],
) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    // SAFETY: the descriptor is open for the whole call; both pointers come from live references,
    // with exactly the lengths of what they point to; the kernel only reads through them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

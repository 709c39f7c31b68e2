//! The part of the NBD protocol that QEMU speaks to a disk: fixed newstyle negotiation with
//! `NBD_OPT_GO`, simple replies
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>). All numbers are big-endian.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Mutex, PoisonError};

use super::cache::Cached;

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// `NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES`.
const HANDSHAKE: u16 = 3;
const OPT_ABORT: u32 = 2;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
/// `HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES`.
const TRANSMISSION: u16 = 1 | 4 | 8 | 32 | 64;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const FUA: u16 = 1;
const EINVAL: u32 = 22;
const EIO: u32 = 5;

/// More than QEMU sends in one request.
const MOST: u32 = 64 << 20;

/// Serves one client, until it goes.
pub(super) fn serve(mut client: impl Read + Write, disk: &Mutex<Cached>) -> io::Result<()> {
    let disk = || disk.lock().unwrap_or_else(PoisonError::into_inner);
    let size = disk().size();
    if !negotiate(&mut client, size)? {
        return Ok(());
    }
    loop {
        let mut head = [0; 28];
        match client.read_exact(&mut head) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        if u32_at(&head, 0) != REQUEST_MAGIC {
            return Err(ErrorKind::InvalidData.into());
        }
        let (flags, kind) = (u16_at(&head, 4), u16_at(&head, 6));
        let (offset, length) = (u64_at(&head, 16), u32_at(&head, 24));
        let is_data = matches!(kind, READ | WRITE | TRIM | WRITE_ZEROES);
        let fits = offset.checked_add(u64::from(length)).is_some_and(|end| end <= size);
        let has_payload = matches!(kind, READ | WRITE);
        if has_payload && length > MOST {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut data = vec![0; if has_payload { length as usize } else { 0 }];
        if kind == WRITE {
            client.read_exact(&mut data)?;
        }
        let through = flags & FUA != 0;
        let done = match kind {
            DISCONNECT => return Ok(()),
            _ if is_data && !fits => Err(EINVAL),
            READ => disk().read(offset, &mut data).map_err(|_| EIO),
            WRITE => disk().write(offset, &data, through).map_err(|_| EIO),
            FLUSH => disk().flush().map_err(|_| EIO),
            TRIM | WRITE_ZEROES => {
                const PIECE: u64 = 1 << 20;
                let end = offset + u64::from(length);
                let mut pieces = (offset..end).step_by(PIECE as usize);
                let zero = |at: u64| {
                    let zeros = vec![0; PIECE.min(end - at) as usize];
                    disk().write(at, &zeros, through)
                };
                pieces.try_for_each(zero).map_err(|_| EIO)
            }
            _ => Err(EINVAL),
        };
        let mut reply = REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend_from_slice(&done.err().unwrap_or(0).to_be_bytes());
        reply.extend_from_slice(&head[8..16]);
        if kind == READ && done.is_ok() {
            reply.extend_from_slice(&data);
        }
        client.write_all(&reply)?;
    }
}

/// Whether the client wants the disk; it may only have asked, or gone.
fn negotiate(client: &mut (impl Read + Write), size: u64) -> io::Result<bool> {
    const MOST_OPTION: u32 = 64 << 10;
    const MOST_OPTIONS: usize = 64;
    client.write_all(&MAGIC.to_be_bytes())?;
    client.write_all(&OPTION_MAGIC.to_be_bytes())?;
    client.write_all(&HANDSHAKE.to_be_bytes())?;
    client.read_exact(&mut [0; 4])?;
    for _ in 0..MOST_OPTIONS {
        let mut head = [0; 16];
        match client.read_exact(&mut head) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        let (option, length) = (u32_at(&head, 8), u32_at(&head, 12));
        if u64_at(&head, 0) != OPTION_MAGIC || length > MOST_OPTION {
            return Err(ErrorKind::InvalidData.into());
        }
        client.read_exact(&mut vec![0; length as usize])?;
        let mut reply = |kind: u32, data: &[u8]| {
            let mut reply = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
            reply.extend_from_slice(&option.to_be_bytes());
            reply.extend_from_slice(&kind.to_be_bytes());
            reply.extend_from_slice(&(data.len() as u32).to_be_bytes());
            reply.extend_from_slice(data);
            client.write_all(&reply)
        };
        match option {
            OPT_GO | OPT_INFO => {
                // NBD_INFO_EXPORT: its type (0), the size, the flags.
                let mut info = 0u16.to_be_bytes().to_vec();
                info.extend_from_slice(&size.to_be_bytes());
                info.extend_from_slice(&TRANSMISSION.to_be_bytes());
                reply(REP_INFO, &info)?;
                reply(REP_ACK, &[])?;
                if option == OPT_GO {
                    return Ok(true);
                }
            }
            OPT_ABORT => return reply(REP_ACK, &[]).map(|()| false),
            _ => reply(REP_ERR_UNSUP, &[])?,
        }
    }
    Err(ErrorKind::InvalidData.into())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

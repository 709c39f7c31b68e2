//! Device-mapper's control device (linux/dm-ioctl.h, version 4), as far as thin pools need it.
//! `dmsetup` would start a process for each message, libdevmapper needs a C toolchain.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::sys::{self, DmHeader};

const CONTROL: &str = "/dev/mapper/control";

const LIST_DEVICES: u8 = 2;
const DEV_CREATE: u8 = 3;
const DEV_REMOVE: u8 = 4;
const DEV_SUSPEND: u8 = 6;
const DEV_STATUS: u8 = 7;
const TABLE_LOAD: u8 = 9;
const TABLE_STATUS: u8 = 12;
const TARGET_MSG: u8 = 14;

const READONLY: u32 = 1;
const SUSPEND: u32 = 1 << 1;
const STATUS_TABLE: u32 = 1 << 4;
const BUFFER_FULL: u32 = 1 << 8;
const SKIP_LOCKFS: u32 = 1 << 10;

/// libdevmapper's flags for udev in the upper half of an event number: subsystems, disks and others
/// stay away. What is in a container's volume must not be probed, or become part of a volume group.
const UDEV_STAYS_AWAY: u32 = (0x2 | 0x4 | 0x8) << 16;

/// `struct dm_target_spec`, without its parameters.
const TARGET_SPEC: usize = 40;
const SECTOR: u64 = 512;

/// Room for an answer at first, and at most.
const ROOM: usize = 16 << 10;
const MOST_ROOM: usize = 64 << 20;

/// The control device.
#[derive(Debug)]
pub(crate) struct Dm(File);

/// A mapped device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) name: String,
    /// Of its node in `/dev`.
    pub(super) minor: u32,
}

impl Mapped {
    /// Its node, which is there at once; udev makes the one with a name later.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/dm-{}", self.minor))
    }
}

impl Dm {
    pub(crate) fn open() -> io::Result<Self> {
        File::options().read(true).write(true).open(CONTROL).map(Self)
    }

    /// Every mapped device.
    pub(super) fn list(&self) -> io::Result<Vec<Mapped>> {
        /// `struct dm_name_list`: u64 dev, u32 next (from this entry; 0 in the last), name.
        const ENTRY: usize = 12;
        let data = self.call(LIST_DEVICES, "", Head::default(), &[])?.1;
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(entry) = data.get(at..).filter(|e| e.len() > ENTRY) {
            let word = |from: usize, n: usize| entry.get(from..from + n);
            let dev = word(0, 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
            let next = word(8, 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
            if dev != 0 {
                let name = text(&entry[ENTRY..]);
                found.push(Mapped { name, minor: rustix::fs::minor(dev) });
            }
            if next == 0 {
                break;
            }
            at += next as usize;
        }
        Ok(found)
    }

    /// Makes a device of one `thin` target. Its uuid begins like LVM's own, so that LVM does not
    /// look for physical volumes in it.
    pub(super) fn create_thin(&self, name: &str, thin: &Thin) -> io::Result<Mapped> {
        let uuid = format!("LVM-{name}");
        let made = self.call(DEV_CREATE, name, Head { uuid: &uuid, ..Head::default() }, &[])?.0;
        let started = self.load(name, thin).and_then(|()| self.resume(name, thin.readonly));
        if let Err(error) = started {
            // The reason is what matters.
            let _ = self.remove(name);
            return Err(error);
        }
        Ok(Mapped { name: name.to_owned(), minor: rustix::fs::minor(made.dev) })
    }

    /// Gives a device another table, in force when it is resumed next.
    pub(super) fn load(&self, name: &str, thin: &Thin) -> io::Result<()> {
        let parameters = format!("{}:{} {}", thin.pool.0, thin.pool.1, thin.id);
        let length = (TARGET_SPEC + parameters.len() + 1).next_multiple_of(8);
        let mut payload = Vec::with_capacity(length);
        payload.extend_from_slice(&0u64.to_ne_bytes());
        payload.extend_from_slice(&(thin.size / SECTOR).to_ne_bytes());
        payload.extend_from_slice(&0i32.to_ne_bytes());
        payload.extend_from_slice(&(length as u32).to_ne_bytes());
        let mut kind = [0; 16];
        kind[..4].copy_from_slice(b"thin");
        payload.extend_from_slice(&kind);
        payload.extend_from_slice(parameters.as_bytes());
        payload.resize(length, 0);
        let flags = if thin.readonly { READONLY } else { 0 };
        let head = Head { flags, targets: 1, ..Head::default() };
        self.call(TABLE_LOAD, name, head, &payload).map(drop)
    }

    /// Holds all requests back, once those under way have ended. The filesystem on it is not
    /// frozen: whoever calls has done so, or there is none.
    pub(crate) fn suspend(&self, name: &str) -> io::Result<()> {
        let head = Head { flags: SUSPEND | SKIP_LOCKFS, ..Head::default() };
        self.call(DEV_SUSPEND, name, head, &[]).map(drop)
    }

    /// Lets requests go on, by the newest table. If that was loaded since, and the device is not
    /// suspended, it is for just as long as changing takes: the kernel does it in this one call.
    pub(crate) fn resume(&self, name: &str, readonly: bool) -> io::Result<()> {
        let flags = if readonly { READONLY } else { 0 } | SKIP_LOCKFS;
        let head = Head { flags, event: UDEV_STAYS_AWAY, ..Head::default() };
        self.call(DEV_SUSPEND, name, head, &[]).map(drop)
    }

    /// Takes a device away. `EBUSY` if it is open.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let head = Head { event: UDEV_STAYS_AWAY, ..Head::default() };
        self.call(DEV_REMOVE, name, head, &[]).map(drop)
    }

    /// Whether it is suspended, and its number.
    pub(super) fn status(&self, name: &str) -> io::Result<(bool, (u32, u32))> {
        let head = self.call(DEV_STATUS, name, Head::default(), &[])?.0;
        let number = (rustix::fs::major(head.dev), rustix::fs::minor(head.dev));
        Ok((head.flags & SUSPEND != 0, number))
    }

    /// Whether somebody has it open: a mount, another device, a program.
    pub(super) fn is_open(&self, name: &str) -> io::Result<bool> {
        Ok(self.call(DEV_STATUS, name, Head::default(), &[])?.0.open_count > 0)
    }

    /// What its only target says of itself.
    pub(super) fn target_status(&self, name: &str) -> io::Result<String> {
        self.target(name, 0)
    }

    /// What its only target was made with.
    pub(super) fn target_table(&self, name: &str) -> io::Result<String> {
        self.target(name, STATUS_TABLE)
    }

    fn target(&self, name: &str, flags: u32) -> io::Result<String> {
        let data = self.call(TABLE_STATUS, name, Head { flags, ..Head::default() }, &[])?.1;
        Ok(text(data.get(TARGET_SPEC..).unwrap_or_default()))
    }

    /// Tells the only target something.
    pub(super) fn message(&self, name: &str, message: &str) -> io::Result<()> {
        let mut payload = 0u64.to_ne_bytes().to_vec();
        payload.extend_from_slice(message.as_bytes());
        payload.push(0);
        self.call(TARGET_MSG, name, Head::default(), &payload).map(drop)
    }

    /// One call; the answer's header and what follows it.
    fn call(
        &self,
        command: u8,
        name: &str,
        head: Head<'_>,
        payload: &[u8],
    ) -> io::Result<(DmHeader, Vec<u8>)> {
        let mut room = ROOM.max(payload.len());
        loop {
            let mut header = DmHeader::new(name, head.uuid).ok_or(io::ErrorKind::InvalidInput)?;
            header.flags = head.flags;
            header.event_nr = head.event;
            header.target_count = head.targets;
            let answer = sys::dm_call(&self.0, command, header, payload, room)?;
            if answer.0.flags & BUFFER_FULL == 0 {
                return Ok(answer);
            }
            room *= 4;
            if room > MOST_ROOM {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        }
    }
}

/// A `thin` target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thin {
    /// The pool's device number.
    pub(super) pool: (u32, u32),
    pub(super) id: u32,
    /// In bytes.
    pub(super) size: u64,
    pub(super) readonly: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Head<'a> {
    uuid: &'a str,
    flags: u32,
    event: u32,
    targets: u32,
}

/// A C string.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

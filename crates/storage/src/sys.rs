//! The ioctls that rustix has no safe form of: ioctl_fiemap (Documentation/filesystems/fiemap),
//! loop(4), FIFREEZE/FITHAW (ioctl_fs.h) and device-mapper. The only unsafe code of this crate.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::AsFd;

use rustix::io;
use rustix::ioctl::{
    IntegerSetter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, Updater, ioctl, opcode,
};

const FIFREEZE: Opcode = opcode::read_write::<i32>(b'X', 119);
const FITHAW: Opcode = opcode::read_write::<i32>(b'X', 120);
const FITRIM: Opcode = opcode::read_write::<[u64; 3]>(b'X', 121);
const EXT4_RESIZE: Opcode = opcode::write::<u64>(b'f', 16);
const FIEMAP: Opcode = opcode::read_write::<FiemapHead>(b'f', 11);
const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_SET_CAPACITY: Opcode = 0x4C07;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;

/// `LO_FLAGS_AUTOCLEAR`: detached when the last opener closes it.
pub(crate) const LOOP_AUTOCLEAR: u32 = 4;
/// `LO_FLAGS_DIRECT_IO`.
pub(crate) const LOOP_DIRECT_IO: u32 = 16;

/// Extents asked for at a time.
const BATCH: usize = 512;

/// Freezes the filesystem that `fd` is on: writers block until [`thaw`].
pub(crate) fn freeze(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: FIFREEZE ignores its argument.
    unsafe { ioctl(fd, NoArg::<FIFREEZE>::new()) }
}

/// Undoes [`freeze`]. `EINVAL` if the filesystem is not frozen.
pub(crate) fn thaw(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: FITHAW ignores its argument.
    unsafe { ioctl(fd, NoArg::<FITHAW>::new()) }
}

/// Discards what the filesystem does not use of a range of it; returns how many bytes that was.
pub(crate) fn trim(fd: impl AsFd, start: u64, len: u64) -> io::Result<u64> {
    let mut range = [start, len, 0];
    // SAFETY: three integers are a `struct fstrim_range` (start, len, minlen), which is updated.
    unsafe { ioctl(fd, Updater::<FITRIM, [u64; 3]>::new(&mut range))? };
    Ok(range[1])
}

/// Grows the mounted ext4 to `blocks` of its blocks.
pub(crate) fn resize_ext4(fd: impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one integer.
    unsafe { ioctl(fd, Setter::<EXT4_RESIZE, u64>::new(blocks)) }
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FiemapHead {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct FiemapExtent {
    pub(crate) logical: u64,
    pub(crate) physical: u64,
    pub(crate) length: u64,
    reserved64: [u64; 2],
    pub(crate) flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Fiemap {
    head: FiemapHead,
    extents: [FiemapExtent; BATCH],
}

/// The next extents of a file from byte `start` on, after a sync; none at its end.
pub(crate) fn fiemap(fd: impl AsFd, start: u64) -> io::Result<Vec<FiemapExtent>> {
    const FIEMAP_FLAG_SYNC: u32 = 1;
    let length = u64::MAX - start;
    let count = BATCH as u32;
    let head = FiemapHead { start, length, flags: FIEMAP_FLAG_SYNC, count, ..Default::default() };
    let mut map = Box::new(Fiemap { head, extents: [FiemapExtent::default(); BATCH] });
    // SAFETY: the argument is a `struct fiemap` followed by the `count` extents it announces, all
    // plain integers, exclusively borrowed for the call.
    unsafe { ioctl(fd, Updater::<FIEMAP, Fiemap>::new(&mut map))? };
    let mapped = (map.head.mapped as usize).min(BATCH);
    Ok(map.extents[..mapped].to_vec())
}

/// In how many extents a file lies, after a sync.
pub(crate) fn fiemap_count(fd: impl AsFd) -> io::Result<u64> {
    const FIEMAP_FLAG_SYNC: u32 = 1;
    let mut head = FiemapHead { length: u64::MAX, flags: FIEMAP_FLAG_SYNC, ..Default::default() };
    // SAFETY: the argument is a `struct fiemap` that announces room for no extent: the kernel
    // counts them in it and writes nothing behind it.
    unsafe { ioctl(fd, Updater::<FIEMAP, FiemapHead>::new(&mut head))? };
    Ok(u64::from(head.mapped))
}

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LoopInfo {
    /// The backing file's device.
    pub(crate) device: u64,
    /// The backing file's inode.
    pub(crate) inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    /// `LO_FLAGS_*`.
    pub(crate) flags: u32,
    /// The backing file's name, cut.
    name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo {
    fn with_flags(flags: u32) -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Attaches `file` to the loop device `device` in one step.
pub(crate) fn loop_configure(
    device: impl AsFd,
    file: impl AsFd,
    block_size: u32,
    flags: u32,
) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let fd = file.as_fd().as_raw_fd().cast_unsigned();
    let info = LoopInfo::with_flags(flags);
    let mut config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: the argument is a `struct loop_config`; the descriptor in it is open for the call.
    unsafe { ioctl(device, Updater::<LOOP_CONFIGURE, LoopConfig>::new(&mut config)) }
}

/// What a loop device is attached to; `ENXIO` if to nothing.
pub(crate) fn loop_status(device: impl AsFd) -> io::Result<LoopInfo> {
    let mut info = LoopInfo::with_flags(0);
    // SAFETY: the kernel fills the `struct loop_info64`.
    unsafe { ioctl(device, Updater::<LOOP_GET_STATUS64, LoopInfo>::new(&mut info))? };
    Ok(info)
}

/// Makes a loop device as large as its file has become.
pub(crate) fn loop_set_capacity(device: impl AsFd) -> io::Result<()> {
    // SAFETY: LOOP_SET_CAPACITY ignores its argument.
    unsafe { ioctl(device, NoArg::<LOOP_SET_CAPACITY>::new()) }
}

/// Detaches a loop device, now or when its last opener closes it.
pub(crate) fn loop_clear(device: impl AsFd) -> io::Result<()> {
    // SAFETY: LOOP_CLR_FD ignores its argument.
    unsafe { ioctl(device, IntegerSetter::<LOOP_CLR_FD>::new_usize(0)) }
}

/// The number of a free loop device, made if there is none.
pub(crate) fn loop_get_free(control: impl AsFd) -> io::Result<u32> {
    // SAFETY: LOOP_CTL_GET_FREE ignores its argument and answers with a number.
    unsafe { ioctl(control, GetFree) }
}

struct GetFree;

// SAFETY: no memory is passed; the output is the call's own return value.
unsafe impl Ioctl for GetFree {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> io::Result<u32> {
        Ok(out.cast_unsigned())
    }
}

/// `struct dm_ioctl` (linux/dm-ioctl.h).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DmHeader {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    /// Targets that follow.
    pub(crate) target_count: u32,
    pub(crate) open_count: i32,
    /// `DM_*_FLAG`.
    pub(crate) flags: u32,
    /// An event's number, or what udev is to do.
    pub(crate) event_nr: u32,
    padding: u32,
    /// The device's number.
    pub(crate) dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

impl DmHeader {
    /// About the device of that name; the uuid is for one that is to be. `None` if too long.
    pub(crate) fn new(name: &str, uuid: &str) -> Option<Self> {
        let mut header = Self {
            version: [4, 0, 0],
            data_size: 0,
            data_start: size_of::<Self>() as u32,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name: [0; 128],
            uuid: [0; 129],
            data: [0; 7],
        };
        header.name.get_mut(..=name.len())?[..name.len()].copy_from_slice(name.as_bytes());
        header.uuid.get_mut(..=uuid.len())?[..uuid.len()].copy_from_slice(uuid.as_bytes());
        Some(header)
    }
}

/// One call of device-mapper's control device, with room for `room` bytes after the header. The
/// answer's header, and what follows it.
pub(crate) fn dm_call(
    control: impl AsFd,
    command: u8,
    mut header: DmHeader,
    payload: &[u8],
    room: usize,
) -> std::io::Result<(DmHeader, Vec<u8>)> {
    const HEADER: usize = size_of::<DmHeader>();
    let size = (HEADER + payload.len().max(room)).next_multiple_of(8);
    header.data_size = u32::try_from(size).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    // In words, so that the structure is aligned in it.
    let mut buffer = vec![0u64; size / 8];
    let bytes = buffer.as_mut_ptr().cast::<u8>();
    // SAFETY: the buffer holds `size` bytes: the header, and at least the payload behind it.
    unsafe {
        bytes.cast::<DmHeader>().write(header);
        bytes.add(HEADER).copy_from_nonoverlapping(payload.as_ptr(), payload.len());
    }
    // SAFETY: the argument is a `struct dm_ioctl` that announces the buffer's true size, in which
    // the kernel answers.
    unsafe { ioctl(control, DmCall { command, buffer: bytes.cast() })? };
    // SAFETY: the kernel left a header at the start of the buffer, all plain integers.
    let (header, all) = unsafe {
        (bytes.cast::<DmHeader>().read(), std::slice::from_raw_parts(bytes.cast_const(), size))
    };
    // A short answer may end before its announced start.
    let data = all.get(header.data_start as usize..header.data_size as usize).unwrap_or_default();
    Ok((header, data.to_vec()))
}

struct DmCall {
    command: u8,
    buffer: *mut c_void,
}

// SAFETY: `dm_call` alone makes it, with a buffer that lives through the call and announces its size.
unsafe impl Ioctl for DmCall {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<DmHeader>(0xFD, self.command)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.buffer
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> io::Result<()> {
        Ok(())
    }
}

/// Gives a range of a block device's space back; both in bytes and whole sectors.
pub(crate) fn discard(device: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    const BLKDISCARD: Opcode = opcode::none(0x12, 119);
    let mut range = [offset, len];
    // SAFETY: BLKDISCARD reads two integers.
    unsafe { ioctl(device, Updater::<BLKDISCARD, [u64; 2]>::new(&mut range)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<FiemapHead>(), 32);
        assert_eq!(size_of::<FiemapExtent>(), 56);
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!((FIFREEZE, FIEMAP), (0xC004_5877, 0xC020_660B));
        assert_eq!(size_of::<DmHeader>(), 312);
        assert_eq!(opcode::read_write::<DmHeader>(0xFD, 3), 0xC138_FD03);
    }
}

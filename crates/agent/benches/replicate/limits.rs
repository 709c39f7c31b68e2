//! What the machine itself can do, for the other figures to be seen beside.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{Result, anyhow};
use rustix::fs::OFlags;

use crate::Measured;
use crate::content::Dice;
use crate::rig::{Rig, cold, note, timed};

const BYTES: u64 = 1 << 30;
const PIECE: usize = 4 << 20;

/// MiB/s of the pool's disk, written and read directly in large pieces, and of a loopback socket.
pub(crate) fn measure(rig: &Rig, when: &str, measured: &mut Measured) -> Result<()> {
    let path = rig.target.mountpoint.join("limit");
    let mib = BYTES as f64 / f64::from(1 << 20);
    let mut buf = vec![0; PIECE + 4096];
    let start = buf.as_ptr().align_offset(4096);
    let buf = &mut buf[start..start + PIECE];
    Dice::new(5).fill(buf);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.custom_flags(OFlags::DIRECT.bits().cast_signed()).open(&path)?;
    let written = timed(|| {
        for offset in (0..BYTES).step_by(PIECE) {
            file.write_all_at(buf, offset)?;
        }
        Ok(file.sync_all()?)
    })?;
    cold()?;
    let read = timed(|| {
        (0..BYTES).step_by(PIECE).try_for_each(|offset| Ok(file.read_exact_at(buf, offset)?))
    })?;
    drop(file);
    fs::remove_file(&path)?;
    rig.target.trim()?;
    note(measured, &format!("limit_disk_write_{when}"), mib / written);
    note(measured, &format!("limit_disk_read_{when}"), mib / read);
    note(measured, &format!("limit_loopback_{when}"), mib / timed(|| socket(buf))?);
    Ok(())
}

fn socket(buf: &[u8]) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut out = TcpStream::connect(listener.local_addr()?)?;
    let (mut input, _) = listener.accept()?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || -> Result<()> {
            let mut buf = vec![0; 1 << 20];
            while input.read(&mut buf)? > 0 {}
            Ok(())
        });
        for _ in 0..BYTES / PIECE as u64 {
            out.write_all(buf)?;
        }
        drop(out);
        reading.join().map_err(|_| anyhow!("a thread panicked"))?
    })
}

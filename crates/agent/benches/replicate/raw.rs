//! A raw pipelined copy of a file: a reader, a loopback socket, a writer, each on its own thread,
//! synced at the end. It skips holes, checks nothing, and compresses nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::fs::{OFlags, SeekFrom, seek};
use rustix::io::Errno;

/// How it reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// Bytes at once.
    pub(crate) piece: usize,
    /// Past the page cache.
    pub(crate) direct: bool,
}

/// Through the page cache, as most programs do.
pub(crate) const CACHED: Way = Way { piece: 1 << 20, direct: false };
/// As large and as direct as our own.
pub(crate) const DIRECT: Way = Way { piece: 4 << 20, direct: true };

const ALIGN: usize = 4096;
const QUEUE: usize = 4;

/// A piece of content, at an aligned place of its buffer.
struct Piece {
    offset: u64,
    start: usize,
    len: usize,
    buf: Vec<u8>,
}

impl Piece {
    fn empty(size: usize) -> Self {
        let buf = vec![0; size + ALIGN];
        let start = buf.as_ptr().align_offset(ALIGN);
        Self { offset: 0, start, len: 0, buf }
    }

    fn content(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.start + self.len]
    }
}

/// Two queues between threads: full pieces one way, used ones back.
struct Queue {
    full: SyncSender<Piece>,
    used: Receiver<Piece>,
}

fn queue(piece: usize) -> (Queue, Receiver<Piece>, SyncSender<Piece>) {
    let (full, take) = sync_channel(QUEUE);
    let (give, used) = sync_channel(QUEUE);
    for _ in 0..QUEUE {
        // It has the room.
        let _ = give.try_send(Piece::empty(piece));
    }
    (Queue { full, used }, take, give)
}

pub(crate) fn copy(from: &Path, to: &Path, way: Way) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let out = TcpStream::connect(listener.local_addr()?)?;
    out.set_nodelay(true)?;
    let (input, _) = listener.accept()?;
    thread::scope(|scope| {
        let (read, to_send, sent) = queue(way.piece);
        let (received, to_write, written) = queue(way.piece);
        let threads = [
            scope.spawn(move || reader(from, way, &read)),
            scope.spawn(move || sender(out, &to_send, &sent)),
            scope.spawn(move || receiver(input, &received)),
            scope.spawn(move || writer(to, from, way, &to_write, &written)),
        ];
        let mut threads = threads.into_iter();
        threads.try_for_each(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

fn open(path: &Path, way: Way, writable: bool) -> Result<File> {
    let flags = if way.direct { OFlags::DIRECT } else { OFlags::empty() };
    let mut options = OpenOptions::new();
    options.read(true).write(writable).create(writable).custom_flags(flags.bits().cast_signed());
    options.open(path).with_context(|| path.display().to_string())
}

fn reader(from: &Path, way: Way, queue: &Queue) -> Result<()> {
    let file = open(from, way, false)?;
    let mut at = 0;
    loop {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(&file, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let mut piece = queue.used.recv()?;
            piece.len = (end - at).min(way.piece as u64) as usize;
            piece.offset = at;
            file.read_exact_at(piece.content(), at)?;
            at += piece.len as u64;
            queue.full.send(piece)?;
        }
    }
}

fn sender(mut out: TcpStream, pieces: &Receiver<Piece>, used: &SyncSender<Piece>) -> Result<()> {
    while let Ok(mut piece) = pieces.recv() {
        out.write_all(&piece.offset.to_le_bytes())?;
        out.write_all(&(piece.len as u64).to_le_bytes())?;
        out.write_all(piece.content())?;
        // The reader may have ended.
        let _ = used.send(piece);
    }
    Ok(())
}

fn receiver(mut input: TcpStream, queue: &Queue) -> Result<()> {
    let mut number = [0; 8];
    while let Ok(()) = input.read_exact(&mut number) {
        let mut piece = queue.used.recv()?;
        piece.offset = u64::from_le_bytes(number);
        input.read_exact(&mut number)?;
        piece.len = u64::from_le_bytes(number) as usize;
        input.read_exact(piece.content())?;
        queue.full.send(piece)?;
    }
    Ok(())
}

fn writer(
    to: &Path,
    from: &Path,
    way: Way,
    pieces: &Receiver<Piece>,
    used: &SyncSender<Piece>,
) -> Result<()> {
    let file = open(to, way, true)?;
    file.set_len(from.metadata()?.len())?;
    while let Ok(mut piece) = pieces.recv() {
        let offset = piece.offset;
        file.write_all_at(piece.content(), offset)?;
        let _ = used.send(piece);
    }
    file.sync_all()?;
    Ok(())
}

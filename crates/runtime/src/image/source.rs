//! The archive's bytes: decompressed, and rationed.
//!
//! The tar reader keeps extension headers (long names, PAX records) whole in memory, however long
//! they claim to be. So it reads through a [`Ration`]: before each entry it may take only so much.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// Memory that an xz stream may ask for; the highest preset needs 65 MiB.
const XZ_MEMORY_BYTES: u64 = 128 << 20;

/// Largest window of a zstd stream, as a power of two: 128 MiB, what `zstd` itself accepts.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Decompresses a stream by what it begins with.
pub(super) fn decompress<'r>(source: impl Read + 'r) -> io::Result<Box<dyn BufRead + 'r>> {
    let mut magic = Vec::new();
    let mut source = source;
    (&mut source).take(6).read_to_end(&mut magic)?;
    let whole: Chain<Cursor<Vec<u8>>, _> = Cursor::new(magic.clone()).chain(source);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(BufReader::new(decoder))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED)?;
            Box::new(BufReader::new(XzDecoder::new_stream(whole, stream)))
        }
        _ => Box::new(BufReader::new(whole)),
    })
}

/// How much may still be read, and whether the end was met. Shared with whoever rations.
#[derive(Debug, Default)]
pub(super) struct Meter {
    left: Cell<u64>,
    met_end: Cell<bool>,
    broken: RefCell<Option<io::Error>>,
}

impl Meter {
    /// Sets what may be read from now on.
    pub(super) fn allow(&self, bytes: u64) {
        self.left.set(bytes);
    }

    /// Whether a read met the end of the stream.
    pub(super) fn met_end(&self) -> bool {
        self.met_end.get()
    }

    /// The error of the stream itself, if it broke.
    pub(super) fn broken(&self) -> Option<io::Error> {
        self.broken.borrow_mut().take()
    }
}

/// A reader that stops with an error when its ration is used up.
pub(super) struct Ration<R> {
    source: R,
    meter: Rc<Meter>,
}

impl<R: Read> Ration<R> {
    pub(super) fn new(source: R) -> (Self, Rc<Meter>) {
        let meter = Rc::new(Meter::default());
        (Self { source, meter: Rc::clone(&meter) }, meter)
    }
}

impl<R: Read> Read for Ration<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.meter.left.get()).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        if len == 0 && !buffer.is_empty() {
            return Err(io::Error::other("an entry's header is absurdly long"));
        }
        match self.source.read(&mut buffer[..len]) {
            Ok(read) => {
                self.meter.left.set(self.meter.left.get() - read as u64);
                self.meter.met_end.set(self.meter.met_end.get() || (read == 0 && len > 0));
                Ok(read)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let copy = io::Error::new(e.kind(), e.to_string());
                *self.meter.broken.borrow_mut() = Some(e);
                Err(copy)
            }
        }
    }
}

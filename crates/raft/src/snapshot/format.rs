//! How a snapshot file is laid out; see the module above.

use std::io::{self, BufWriter, Read, Write};

use holdfast_types::ClusterId;
use serde::{Deserialize, Serialize};

use crate::codec::{decode, encode};
use crate::types::SnapshotMeta;

/// What a node writes, and accepts from a peer or a file: a state of more than ten million
/// containers.
pub(crate) const MAX_SNAPSHOT_BYTES: u64 = 16 << 30;

const MAGIC: &[u8; 8] = b"HFSNAP1\n";
const LEN_BYTES: usize = 4;
/// Of a header: a membership of some nodes.
const MAX_HEADER_BYTES: u32 = 1 << 20;
pub(super) const HASH_BYTES: u64 = blake3::OUT_LEN as u64;
/// What is hashed and written at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// What is said of the state before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Whose state it is.
    pub(crate) cluster: ClusterId,
    /// Its place in the log, and who the members were.
    pub(crate) meta: SnapshotMeta,
}

/// Writes a snapshot: the header at once, the state as it is written to it, the hash at the end.
pub(crate) struct Encoder<W: Write> {
    out: BufWriter<Hashed<W>>,
    content: u64,
}

struct Hashed<W> {
    out: W,
    hash: blake3::Hasher,
    size_bytes: u64,
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(out: W, header: &Header) -> io::Result<Self> {
        let header = encode(header).map_err(io::Error::other)?;
        let len = u32::try_from(header.len()).map_err(io::Error::other)?;
        let hashed = Hashed { out, hash: blake3::Hasher::new(), size_bytes: 0 };
        let mut out = BufWriter::with_capacity(BLOCK_BYTES, hashed);
        out.write_all(MAGIC)?;
        out.write_all(&len.to_le_bytes())?;
        out.write_all(&header)?;
        Ok(Self { out, content: (MAGIC.len() + LEN_BYTES) as u64 + u64::from(len) })
    }

    /// Where the state begins.
    pub(crate) fn content(&self) -> u64 {
        self.content
    }

    /// How large it would be, once it is larger than any may be.
    pub(crate) fn overflow(&self) -> Option<u64> {
        let size_bytes = self.out.get_ref().size_bytes;
        (size_bytes > MAX_SNAPSHOT_BYTES).then_some(size_bytes)
    }

    /// Writes the hash. Returns what it wrote to, and where the state ends.
    pub(crate) fn finish(self) -> io::Result<(W, u64)> {
        let Hashed { mut out, hash, size_bytes } =
            self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        out.write_all(hash.finalize().as_bytes())?;
        Ok((out, size_bytes))
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size_bytes + bytes.len() as u64 > MAX_SNAPSHOT_BYTES {
            self.size_bytes += bytes.len() as u64;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads what comes before the state, with the hash of it, and where the state begins.
pub(super) fn read_header(input: &mut impl Read) -> Result<(Header, blake3::Hasher, u64), Fault> {
    let mut hash = blake3::Hasher::new();
    let mut start = [0; MAGIC.len() + LEN_BYTES];
    fill(input, &mut start)?;
    hash.update(&start);
    let (magic, len) = start.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(Fault::Damaged("it is no snapshot of this version".into()));
    }
    let len = len.try_into().map_or(u32::MAX, u32::from_le_bytes);
    if len > MAX_HEADER_BYTES {
        return Err(Fault::Damaged("its header is of no possible size".into()));
    }
    let mut header = vec![0; len as usize];
    fill(input, &mut header)?;
    hash.update(&header);
    let content = (start.len() + header.len()) as u64;
    let header = decode(&header).map_err(|e| Fault::Damaged(format!("its header {e}")))?;
    Ok((header, hash, content))
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), Fault> {
    input.read_exact(buffer).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Damaged("it is too short".into()),
        _ => Fault::Disk(e),
    })
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The disk answered with an error.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// What is there is no snapshot, or not all of one.
    #[error("{0}")]
    Damaged(String),
    /// It is whole, and of no version known here.
    #[error("the state {0}")]
    Unknown(String),
}

//! Both ends' threads: what they may hold, in which order they write, how they fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use holdfast_types::ByteSize;

use super::tests::{encode_as, offer};
use super::wire::{CHUNK, FRAME, HOLE};
use super::{Applier, Decoder, Encoder, Sink, batch};
use crate::catalog::SnapshotInfo;
use crate::members::{self, Member};
use crate::pool::{Extent, ExtentKind, Offer, Receiver as _, SnapshotReader};
use crate::{Error, Result};

const MIB: u64 = 1 << 20;

/// What a transfer may take on each side.
const MEMORY: usize = 64 << 20;
/// Frames that a caller may have under way: in a queue, and in the windows of its connection.
const CALLERS: usize = 4 * FRAME + (16 << 20);

/// A queue and its ends is all that there is, so this is all that there can be.
#[test]
fn a_transfer_fits_in_its_memory() {
    let encoder = batch::BUFFERS * batch::BATCH + FRAME + 2 * CHUNK;
    let applier = batch::BUFFERS * batch::BATCH + 3 * CHUNK;
    assert!(encoder + CALLERS < MEMORY && applier + CALLERS < MEMORY);
}

struct Counting(Arc<AtomicU64>);

impl SnapshotReader for Counting {
    fn read_at(&mut self, _offset: u64, buf: &mut [u8]) -> Result<()> {
        // Nothing that could be packed.
        blake3::Hasher::new().finalize_xof().fill(buf);
        self.0.fetch_add(buf.len() as u64, Ordering::SeqCst);
        Ok(())
    }
}

/// The disk is never read further ahead than the buffers hold, however slow the link.
#[test]
fn the_disk_is_read_a_bounded_piece_ahead() {
    let size = 64 * MIB;
    let offer = Offer { size: ByteSize(size), ..offer() };
    let whole = vec![Extent { offset: 0, len: size, kind: ExtentKind::Data }];
    let read = Arc::new(AtomicU64::new(0));
    let reader = Box::new(Counting(read.clone()));
    let mut encoder = Encoder::new(&offer, 0, whole, reader, Vec::new()).unwrap();
    let most = (batch::BUFFERS * batch::BATCH) as u64;
    let mut furthest = 0;
    while let Some(frame) = encoder.next() {
        frame.unwrap();
        // As long as a link may take, the thread goes on reading; it gets no further than this.
        for _ in 0..1000 {
            std::thread::yield_now();
        }
        furthest = furthest.max(read.load(Ordering::SeqCst) - encoder.sent());
    }
    assert_eq!(read.load(Ordering::SeqCst), size);
    assert!((MIB..=most).contains(&furthest), "{furthest}");
}

/// What a sink was asked: the first letter of it, the offset, the length.
type Asked = Arc<Mutex<Vec<(char, u64, u64)>>>;

/// Tells what it is asked, waits for a word before each write, and fails when told to.
struct Told {
    told: Asked,
    go: Option<Receiver<()>>,
    fail_at: u64,
}

impl Told {
    fn new(fail_at: u64) -> (Self, Asked) {
        let told = Arc::default();
        (Self { told: Arc::clone(&told), go: None, fail_at }, told)
    }

    fn gated(mut self) -> (Self, SyncSender<()>) {
        let (open, go) = sync_channel(0);
        self.go = Some(go);
        (self, open)
    }

    fn tell(&self, what: char, offset: u64, len: u64) -> Result<()> {
        self.told.lock().unwrap().push((what, offset, len));
        Ok(())
    }
}

impl Sink for Told {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        if let Some(go) = &self.go {
            // The test has ended, if there is nobody.
            let _ = go.recv();
        }
        if offset >= self.fail_at {
            return Err(Error::io("writing", "a test")(std::io::Error::other("a bad disk")));
        }
        self.tell('w', offset, data.len() as u64)
    }
    fn zero(&mut self, offset: u64, len: u64) -> Result<()> {
        self.tell('z', offset, len)
    }
    fn sync(&mut self, offset: u64) -> Result<()> {
        self.tell('s', offset, 0)
    }
    fn commit(self: Box<Self>) -> Result<SnapshotInfo> {
        self.tell('c', 0, 0)?;
        Err(Error::Timeout("a test has no snapshots".to_owned()))
    }
    fn discard(self: Box<Self>) {
        self.tell('d', 0, 0).unwrap();
    }
}

fn noise(len: u64) -> Vec<u8> {
    let mut out = vec![0; len as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn data(offset: u64, len: u64) -> Extent {
    Extent { offset, len, kind: ExtentKind::Data }
}

fn hole(offset: u64, len: u64) -> Extent {
    Extent { offset, len, kind: ExtentKind::Hole }
}

/// A sender waits for a disk that does not write, after so much.
#[test]
fn a_slow_disk_makes_the_sender_wait() {
    let size = 64 * MIB;
    let offer = Offer { size: ByteSize(size), ..offer() };
    let frames = encode_as(&offer, &noise(size), vec![data(0, size)], 0);
    let (sink, told) = Told::new(u64::MAX);
    let (sink, open) = sink.gated();
    let fed = Arc::new(AtomicU64::new(0));
    let count = fed.clone();
    let feeding = std::thread::spawn(move || {
        let mut applier = Applier::new(offer, 0, Box::new(sink));
        for frame in frames {
            applier.feed(&frame).unwrap();
            count.fetch_add(frame.len() as u64, Ordering::SeqCst);
        }
        Box::new(applier).finish().unwrap_err()
    });
    let most = (batch::BUFFERS * batch::BATCH + FRAME) as u64;
    while fed.load(Ordering::SeqCst) < 3 * batch::BATCH as u64 {
        std::thread::yield_now();
    }
    (0..10_000).for_each(|_| std::thread::yield_now());
    // Each word lets one write go; by then the next ones are where they can be.
    for written in 0..size / batch::BATCH as u64 {
        let ahead = fed.load(Ordering::SeqCst).saturating_sub(written * batch::BATCH as u64);
        assert!(ahead <= most, "{ahead} after {written}");
        open.send(()).unwrap();
    }
    feeding.join().unwrap();
    let told = told.lock().unwrap();
    let written = told.iter().filter(|(what, ..)| *what == 'w').map(|(.., len)| len).sum::<u64>();
    assert_eq!((written, told.last().unwrap().0), (size, 'c'));
}

/// Neighbours are written together, and no write goes from one member into the next.
#[test]
fn neighbours_are_gathered_within_a_member() {
    let largest = 16 << 40;
    let second = Member::new("data".parse().unwrap(), ByteSize::mib(4));
    let offer = Offer { size: ByteSize(largest), data: vec![second], ..offer() };
    let last = largest - 2 * MIB;
    let next = members::start(1);
    let extents = vec![
        data(0, 4096),
        data(4096, 8192),
        hole(MIB, 4096),
        hole(MIB + 4096, 4096),
        data(last, 2 * MIB),
        data(next, MIB),
    ];
    let reader = Box::new(Counting(Arc::default()));
    let encoder = Encoder::new(&offer, 0, extents, reader, Vec::new()).unwrap();
    let (sink, told) = Told::new(u64::MAX);
    let mut applier = Applier::new(offer, 0, Box::new(sink));
    encoder.for_each(|frame| applier.feed(&frame.unwrap()).unwrap());
    Box::new(applier).finish().unwrap_err();
    let expected =
        [('w', 0, 12288), ('z', MIB, 8192), ('w', last, 2 * MIB), ('w', next, MIB), ('c', 0, 0)];
    assert_eq!(*told.lock().unwrap(), expected);
}

/// A receiver that was given all holes of a large volume in one frame looked dead for as long.
#[test]
fn long_holes_come_in_many_frames() {
    let size = 8 * HOLE;
    let offer = Offer { size: ByteSize(size), ..offer() };
    let reader = Box::new(Counting(Arc::default()));
    let encoder = Encoder::new(&offer, 0, vec![hole(0, size)], reader, Vec::new()).unwrap();
    assert_eq!(encoder.count(), 8 + 1);
}

/// What a disk refuses is told by the next call; whether it has what it took before is not known then.
#[test]
fn a_failed_write_is_told_and_nothing_is_vouched_for_after_it() {
    let size = 64 * MIB;
    let offer = Offer { size: ByteSize(size), ..offer() };
    let frames = encode_as(&offer, &noise(size), vec![data(0, size)], 0);
    let (sink, told) = Told::new(8 * MIB);
    let mut applier = Applier::new(offer, 0, Box::new(sink));
    let error = frames.iter().find_map(|frame| applier.feed(frame).err());
    assert!(matches!(error, Some(Error::Io { .. })), "{error:?}");
    drop(applier);
    assert_eq!(*told.lock().unwrap(), [('w', 0, 4 * MIB), ('w', 4 * MIB, 4 * MIB)]);
}

/// One that fails at the very end is not committed.
#[test]
fn a_write_that_fails_at_the_end_commits_nothing() {
    let offer = Offer { size: ByteSize(MIB), ..offer() };
    let frames = encode_as(&offer, &noise(MIB), vec![data(0, MIB)], 0);
    let (sink, told) = Told::new(0);
    let mut applier = Applier::new(offer, 0, Box::new(sink));
    frames.iter().for_each(|frame| applier.feed(frame).unwrap());
    assert!(matches!(Box::new(applier).finish(), Err(Error::Io { .. })));
    assert_eq!(*told.lock().unwrap(), []);
}

/// A stream that lies is not kept, whatever of it is on its way to the disk.
#[test]
fn a_stream_that_lies_is_discarded_after_its_last_write() {
    let offer = Offer { size: ByteSize(16 * MIB), ..offer() };
    let mut frames = encode_as(&offer, &noise(16 * MIB), vec![data(0, 16 * MIB)], 0);
    let last = frames.len() - 1;
    let half = frames[last].len() / 2;
    frames[last][half] ^= 1;
    let (sink, told) = Told::new(u64::MAX);
    let mut applier = Applier::new(offer, 0, Box::new(sink));
    let error = frames.iter().find_map(|frame| applier.feed(frame).err());
    assert!(matches!(error, Some(Error::Stream(_))), "{error:?}");
    drop(applier);
    let told = told.lock().unwrap();
    assert_eq!(told.iter().filter(|(what, ..)| matches!(what, 's' | 'c')).count(), 0);
    assert_eq!(told.last(), Some(&('d', 0, 0)));
}

/// An incomplete record is all that the decoder keeps.
#[test]
fn the_decoder_keeps_less_than_a_record() {
    let stream = encode_as(&offer(), &noise(4 * MIB), vec![data(0, 4 * MIB)], 0).concat();
    for cut in [1000, CHUNK, 3 * CHUNK, stream.len()] {
        let mut decoder = Decoder::default();
        for piece in stream.chunks(cut) {
            decoder.feed(piece, |_| Ok::<(), super::StreamError>(())).unwrap();
            assert!(decoder.kept() < 2 * CHUNK + 100);
        }
        assert!(decoder.ended() && decoder.kept() == 0);
    }
}

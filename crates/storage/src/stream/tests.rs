//! The stream against what a network, a disk or an enemy makes of it (I27).

use holdfast_types::{ByteSize, Epoch, Seq, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid};
use proptest::prelude::*;

use super::wire::{CHECK, CHUNK, Chain, FRAME, TRAILER, chunk_head};
use super::{Decoder, Encoder, Record, StreamError};
use crate::Result;
use crate::pool::{Extent, ExtentKind, Offer, SnapshotReader};

const SIZE: u64 = 4 << 20;

struct Memory(Vec<u8>);

impl SnapshotReader for Memory {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        buf.copy_from_slice(&self.0[offset as usize..][..buf.len()]);
        Ok(())
    }
}

pub(super) fn offer() -> Offer {
    let snapshot = SnapshotId {
        volume: VolumeUid::generate(),
        epoch: Epoch(1),
        seq: Seq(1),
        uuid: SnapshotUuid::generate(),
        parent: None,
    };
    let (size, taken) = (ByteSize(SIZE), TimestampMs(1));
    Offer { snapshot, base: None, size, data: Vec::new(), taken, history: false }
}

fn encode(content: &[u8], extents: Vec<Extent>, from: u64) -> Vec<Vec<u8>> {
    encode_as(&offer(), content, extents, from)
}

pub(super) fn encode_as(
    offer: &Offer,
    content: &[u8],
    extents: Vec<Extent>,
    from: u64,
) -> Vec<Vec<u8>> {
    let reader = Box::new(Memory(content.to_vec()));
    let encoder = Encoder::new(offer, from, extents, reader, Vec::new()).unwrap();
    encoder.map(|frame| frame.unwrap().to_vec()).collect()
}

/// Applies a stream, cut into pieces of `cut` bytes, to zeros.
fn decode(stream: &[u8], cut: usize) -> Result<(Vec<u8>, bool), StreamError> {
    let mut out = vec![0; SIZE as usize];
    let mut decoder = Decoder::default();
    for piece in stream.chunks(cut) {
        decoder.feed(piece, |record| -> Result<(), StreamError> {
            match record {
                Record::Data { offset, data } => {
                    out[offset as usize..][..data.len()].copy_from_slice(data);
                }
                Record::Hole { offset, len } => out[offset as usize..][..len as usize].fill(0),
                Record::Header(_) | Record::End => {}
            }
            Ok(())
        })?;
    }
    Ok((out, decoder.ended()))
}

/// Four million bytes, which a failure does not print.
struct Content(Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Ordered extents and a content that has noise, text and zeros in it.
fn delta() -> impl Strategy<Value = (Content, Vec<Extent>)> {
    let piece = (1u64..200_000, 1u64..600_000, 0u8..4);
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| {
        let mut content = vec![0u8; SIZE as usize];
        let mut extents = Vec::new();
        let mut at = 0;
        for (gap, len, what) in pieces {
            let offset = at + gap;
            let len = len.min(SIZE.saturating_sub(offset));
            if len == 0 {
                break;
            }
            at = offset + len;
            let range = &mut content[offset as usize..at as usize];
            match what {
                0 => {
                    blake3::Hasher::new().update(&offset.to_le_bytes()).finalize_xof().fill(range);
                }
                1 => range.iter_mut().zip(b"holdfast ".iter().cycle()).for_each(|(o, b)| *o = *b),
                _ => {}
            }
            let kind = if what == 3 { ExtentKind::Hole } else { ExtentKind::Data };
            extents.push(Extent { offset, len, kind });
        }
        (Content(content), extents)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_sent_arrives_however_it_is_cut((Content(content), extents) in delta(), cut in 1usize..70_000) {
        let frames = encode(&content, extents, 0);
        prop_assert!(frames.iter().all(|f| f.len() <= FRAME));
        let cut = cut.max(frames.concat().len() / 5_000);
        let (out, ended) = decode(&frames.concat(), cut).unwrap();
        prop_assert!(ended);
        prop_assert!(out == content);
    }

    /// A resumed stream is the rest of the whole one.
    #[test]
    fn a_stream_may_begin_in_the_middle((Content(content), extents) in delta(), from in 0..SIZE) {
        let (out, ended) = decode(&encode(&content, extents, from).concat(), CHUNK).unwrap();
        prop_assert!(ended);
        prop_assert!(out[from as usize..] == content[from as usize..]);
        prop_assert!(out[..from as usize].iter().all(|b| *b == 0));
    }

    /// Refused, or (a length that now asks for more) never complete, or of no meaning, as a few bits
    /// of compressed data are: what ends is what was sent.
    #[test]
    fn one_changed_bit_changes_nothing_that_arrives(
        (Content(content), extents) in delta(),
        at: prop::sample::Index,
        bit in 0u8..8,
    ) {
        let mut stream = encode(&content, extents, 0).concat();
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        if let Ok((out, ended)) = decode(&stream, CHUNK) {
            prop_assert!(!ended || out == content, "byte {}", at);
        }
    }

    #[test]
    fn a_stream_cut_short_never_ends((Content(content), extents) in delta(), at: prop::sample::Index) {
        let stream = encode(&content, extents, 0).concat();
        let (_, ended) = decode(&stream[..at.index(stream.len())], CHUNK).unwrap();
        prop_assert!(!ended);
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 8..4_000)) {
        prop_assert!(decode(&bytes, 97).is_err());
    }

    /// Also garbage that begins well, whose lengths are all it has to lie with.
    #[test]
    fn garbage_after_a_good_header_is_refused(
        tag in prop::sample::select(b"DZ0TX".to_vec()),
        bytes in proptest::collection::vec(any::<u8>(), 80..600),
    ) {
        let whole = encode(&[], Vec::new(), 0).concat();
        let mut stream = whole[..whole.len() - super::wire::TRAILER].to_vec();
        stream.push(tag);
        stream.extend_from_slice(&bytes);
        if let Ok((_, ended)) = decode(&stream, 97) {
            prop_assert!(!ended);
        }
    }

    /// Records whose checks are true may lie with their lengths all the same. Whatever is taken of
    /// them lies in the volume, and after what was taken before.
    #[test]
    fn records_that_lie_are_refused(
        records in proptest::collection::vec(lie(), 1..6),
        cut in 1usize..5_000,
    ) {
        let whole = encode(&[], Vec::new(), 0).concat();
        let mut stream = whole[..whole.len() - TRAILER].to_vec();
        // After the header its check goes on.
        let mut chain = Chain::after(&stream[8..stream.len() - CHECK]);
        for (tag, offset, len, stored, content) in records {
            let head = chunk_head(tag, offset, len, stored);
            stream.extend_from_slice(&head);
            stream.extend_from_slice(&content);
            stream.extend_from_slice(&chain.add(&head, &content)[..CHECK]);
        }
        let (mut decoder, mut passed) = (Decoder::default(), 0);
        for piece in stream.chunks(cut) {
            let fed = decoder.feed(piece, |record| -> Result<(), StreamError> {
                let (offset, len) = match record {
                    Record::Data { offset, data } => (offset, data.len() as u64),
                    Record::Hole { offset, len } => (offset, len),
                    Record::Header(_) | Record::End => return Ok(()),
                };
                assert!(offset >= passed && len > 0 && offset + len <= SIZE);
                passed = offset + len;
                Ok(())
            });
            if fed.is_err() {
                break;
            }
        }
        prop_assert!(!decoder.ended());
    }

    /// Not one bit alone: pieces cut out, doubled and overwritten.
    #[test]
    fn a_stream_that_was_tampered_with_never_ends(
        (Content(content), extents) in delta(),
        at: prop::sample::Index,
        to: prop::sample::Index,
        len in 1usize..2_000,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let stream = encode(&content, extents, 0).concat();
        let (at, to) = (at.index(stream.len()), to.index(stream.len()));
        let piece = stream[at..(at + len).min(stream.len())].to_vec();
        let mut doubled = stream.clone();
        doubled.splice(to..to, piece);
        let mut cut = stream.clone();
        cut.drain(at..(at + len).min(stream.len()));
        let mut over = stream.clone();
        over.splice(at..(at + bytes.len()).min(stream.len()), bytes);
        for changed in [doubled, cut, over] {
            if changed != stream && let Ok((out, ended)) = decode(&changed, CHUNK) {
                prop_assert!(!ended || out == content, "byte {at}");
            }
        }
    }
}

/// A record of whatever tag and numbers, near what is possible and far from it.
fn lie() -> impl Strategy<Value = (u8, u64, u32, u32, Vec<u8>)> {
    let tag = prop::sample::select(b"DDZ00T".to_vec());
    let offset = prop_oneof![0..SIZE, SIZE - 10..SIZE + 10, any::<u64>()];
    let content = proptest::collection::vec(any::<u8>(), 0..300);
    (tag, offset, 0u32..5, any::<u32>(), content).prop_map(|(tag, offset, how, any, content)| {
        let true_len = content.len() as u32;
        let (len, stored) = match how {
            0 => (true_len, true_len),
            1 => (any, true_len),
            2 => (true_len, any),
            3 => (any % (CHUNK as u32 + 9), 0),
            _ => (any, any),
        };
        (tag, offset, len, stored, content)
    })
}

#[test]
fn something_after_the_end_is_refused() {
    let mut stream = encode(&[], Vec::new(), 0).concat();
    assert!(decode(&stream, CHUNK).unwrap().1);
    stream.push(0);
    assert_eq!(decode(&stream, CHUNK).unwrap_err(), StreamError::AfterEnd);
}

/// Frames of one valid stream, left out or swapped, are no valid stream.
#[test]
fn frames_out_of_place_are_noticed() {
    let mut content = vec![0; SIZE as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    let whole = Extent { offset: 0, len: SIZE, kind: ExtentKind::Data };
    let frames = encode(&content, vec![whole], 0);
    assert!(frames.len() > 3);
    let mut swapped = frames.clone();
    swapped.swap(1, 2);
    assert!(decode(&swapped.concat(), CHUNK).is_err());
    let mut short = frames;
    short.remove(1);
    assert!(decode(&short.concat(), CHUNK).is_err());
}

/// A sender does not say that a snapshot is kept for somebody: none that is was ever received.
#[test]
fn what_the_receiver_keeps_for_somebody_is_received() {
    use crate::pool::Receiver;
    let data = Extent { offset: 0, len: 1 << 20, kind: ExtentKind::Data };
    let content = Memory(vec![7; SIZE as usize]);
    let offer = offer();
    let mut frames = Encoder::new(&offer, 0, vec![data], Box::new(content), Vec::new()).unwrap();
    let kept = Offer { history: true, ..offer };
    let sink = Forgetful { failed: true, noted: std::sync::Arc::default() };
    let mut receiver = super::Applier::new(kept, 0, Box::new(sink));
    frames.try_for_each(|frame| receiver.feed(&frame.unwrap())).unwrap();
}

/// A disk that failed once, and says that all is well when it is asked again (fsync(2) on Linux).
struct Forgetful {
    failed: bool,
    noted: std::sync::Arc<std::sync::Mutex<Vec<u64>>>,
}

impl super::Sink for Forgetful {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
    /// A hole is only made once what is before it is written.
    fn zero(&mut self, _: u64, _: u64) -> Result<()> {
        match std::mem::replace(&mut self.failed, true) {
            true => Ok(()),
            false => {
                let source = std::io::Error::other("it is lost");
                Err(crate::Error::Io { what: "syncing", path: "/dev/x".into(), source })
            }
        }
    }
    fn sync(&mut self, offset: u64) -> Result<()> {
        self.noted.lock().unwrap().push(offset);
        Ok(())
    }
    fn commit(self: Box<Self>) -> Result<crate::SnapshotInfo> {
        panic!("it is not whole")
    }
    fn discard(self: Box<Self>) {}
}

/// I16, I17: where a write was lost, a resume began behind it, and the loss became part of a copy.
#[test]
fn what_a_disk_has_lost_is_sent_again() {
    use crate::pool::Receiver;
    let noted = std::sync::Arc::default();
    let sink = Forgetful { failed: false, noted: std::sync::Arc::clone(&noted) };
    let data = Extent { offset: 0, len: 1 << 20, kind: ExtentKind::Data };
    let hole = Extent { offset: 1 << 20, len: 1 << 20, kind: ExtentKind::Hole };
    let (offer, content) = (offer(), Memory(vec![7; SIZE as usize]));
    let frames = Encoder::new(&offer, 0, vec![data, hole], Box::new(content), Vec::new()).unwrap();
    let mut receiver = Box::new(super::Applier::new(offer, 0, Box::new(sink)));
    // It is written behind: how that went may only be said at the end.
    let fed = frames.map(|frame| frame.unwrap()).try_for_each(|frame| receiver.feed(&frame));
    let ended = fed.and_then(|()| receiver.finish().map(drop));
    assert!(matches!(ended, Err(crate::Error::Io { .. })));
    assert_eq!(*noted.lock().unwrap(), [0; 0], "it was told that what is lost is there");
}

/// I16: a chunk that is not what was read is refused when it comes, before any of it is written; the
/// trailer's hash of everything would say so at the end alone.
#[test]
fn a_changed_chunk_is_refused_before_the_next() {
    let mut noise = vec![0; SIZE as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let whole = vec![Extent { offset: 0, len: SIZE, kind: ExtentKind::Data }];
    let mut stream = encode(&noise, whole, 0).concat();
    let middle = stream.len() / 2;
    stream[middle] ^= 1;
    let upto = middle + CHUNK + 1000;
    assert!(matches!(decode(&stream[..upto], CHUNK), Err(StreamError::Checksum(_))));
}

/// What comes twice, or out of its order, could undo what a resume takes for written.
#[test]
fn chunks_come_in_their_order() {
    let piece = |offset| Extent { offset, len: 4096, kind: ExtentKind::Data };
    for order in [[1 << 20, 0], [4096, 4096]] {
        let stream = encode(&vec![7; SIZE as usize], order.map(piece).to_vec(), 0).concat();
        assert!(matches!(decode(&stream, 1000), Err(StreamError::Malformed(_))), "{order:?}");
    }
}

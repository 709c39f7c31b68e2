//! The decoder of the delta stream: it may refuse, and must not panic, take memory on a length's word, or
//! hand out a record that no volume of the offer's shape has.
//!
//! The first byte of an input says what the rest is: the stream, the text of a header, or a list of
//! records; the latter get true checks, so that what lies behind the checks is tried as well. The second
//! byte says in what pieces the stream arrives.

use holdfast_types::{ByteSize, Epoch, Seq, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid};

use crate::stream::{CHUNK, Decoder, Encoder, Record, StreamError};
use crate::{Extent, ExtentKind, Member, Offer, Result, Shape, SnapshotReader};

/// Reads one stream.
pub fn read(input: &[u8]) {
    let [kind, cut, rest @ ..] = input else { return };
    let cut = 1 + usize::from(*cut) * 37;
    match kind % 3 {
        0 => decode(rest, cut),
        1 => decode(&checked(&header(), rest), cut),
        _ => decode(&checked(rest, &[0x40, 0, 0, 0, 0, 0, 0, 0]), cut),
    }
}

/// Streams as they are sent, records of each kind, and a header.
pub fn seeds() -> Vec<Vec<u8>> {
    let extent = |offset, len, kind| Extent { offset, len, kind };
    let streams = [
        vec![],
        vec![extent(0, 4096, ExtentKind::Data)],
        vec![extent(4096, 1 << 20, ExtentKind::Hole), extent(2 << 20, 5000, ExtentKind::Data)],
        vec![extent(200 << 10, 2 << 10, ExtentKind::Data), extent(4 << 20, 1, ExtentKind::Data)],
    ];
    let records = [
        &[0, 0, 0, 0, 0, 0, 4, 0, 1, 2, 3, 4][..],
        &[1, 0, 9, 0, 0, 200, 4, 0, 5, 5, 5, 5],
        &[2, 0, 0, 16, 0, 0, 0, 0],
        &[0x40, 0, 0, 0, 0, 0, 0, 0],
    ];
    let mut seeds =
        vec![[&[1, 3][..], &records.concat()].concat(), [&[2, 3][..], &header()].concat()];
    for (number, extents) in (0..).zip(streams) {
        let frames = Encoder::new(&offer(), 0, extents, Box::new(Content), Vec::new());
        let frames = frames.and_then(Iterator::collect::<Result<Vec<_>>>).expect("a whole stream");
        seeds.push([&[0, number * 60][..], &frames.concat()].concat());
    }
    seeds
}

/// Noise and text by turns.
struct Content;

impl SnapshotReader for Content {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        for (at, byte) in (offset..).zip(buf) {
            let noise = at.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) as u8;
            *byte = if at >> 11 & 1 == 0 { noise } else { b'a' + (at % 7) as u8 };
        }
        Ok(())
    }
}

fn decode(stream: &[u8], cut: usize) {
    let (mut decoder, mut shape, mut passed, mut over) = (Decoder::default(), None, 0, false);
    for piece in stream.chunks(cut) {
        let fed = decoder.feed(piece, |record| -> Result<(), StreamError> {
            assert!(!over, "a record after the end");
            match record {
                Record::Header(header) => {
                    assert!(shape.is_none(), "two headers");
                    passed = header.from;
                    shape = Some(header.offer.shape());
                }
                Record::Data { offset, data } => {
                    assert!(data.len() <= CHUNK);
                    passed = follow(&shape, passed, offset, data.len() as u64);
                }
                Record::Hole { offset, len } => passed = follow(&shape, passed, offset, len),
                Record::End => over = true,
            }
            Ok(())
        });
        if fed.is_err() {
            return;
        }
    }
    assert_eq!(over, decoder.ended());
}

fn follow(shape: &Option<Shape>, passed: u64, offset: u64, len: u64) -> u64 {
    let shape = shape.as_ref().expect("a record before the header");
    assert!(len > 0 && offset >= passed && shape.contains(offset, len));
    offset + len
}

/// A stream of whatever records the bytes say, with checks as they should be.
fn checked(header: &[u8], mut bytes: &[u8]) -> Vec<u8> {
    let mut stream = b"HFDELTA\x02".to_vec();
    let mut chain = [0; 32];
    let mut head = vec![b'H'];
    head.extend_from_slice(&(header.len() as u32).to_le_bytes());
    head.extend_from_slice(header);
    add(&mut stream, &mut chain, &head, &[], &[]);
    let (mut end, mut chunks, mut total) = (0u64, 0u64, 0u64);
    while let Some((what, rest)) = bytes.split_first_chunk::<8>() {
        let [how, far, a, b, c, repeat, len_a, len_b] = *what;
        bytes = rest;
        if how & 0x40 != 0 {
            let mut head = vec![b'T'];
            let lie = u64::from(how & 0x20 != 0);
            head.extend_from_slice(&(chunks + lie).to_le_bytes());
            head.extend_from_slice(&total.to_le_bytes());
            chain = next(chain, &head, &[]);
            stream.extend_from_slice(&head);
            stream.extend_from_slice(&chain);
            continue;
        }
        let take = usize::from(u16::from_le_bytes([len_a, len_b])).min(rest.len());
        let (content, rest) = rest.split_at(take);
        bytes = rest;
        let times = (CHUNK / content.len().max(1) + 1).min(1 + usize::from(repeat));
        let mut plain = content.repeat(times);
        let step = u64::from(u32::from_le_bytes([a, b, c, 0]));
        // After the last, in a later member, or anywhere.
        let offset = match far % 8 {
            0..=4 => end.wrapping_add(step),
            5 => ((u64::from(far) / 8) << 44) + step,
            6 => end.wrapping_sub(step),
            _ => u64::MAX - step,
        };
        let (tag, stored, len) = match how % 4 {
            0 => (b'D', plain.clone(), plain.len()),
            1 => (b'Z', zstd::bulk::compress(&plain, 1).unwrap_or_default(), plain.len()),
            2 => (b'0', Vec::new(), step as usize),
            _ => (b'Z', content.to_vec(), plain.len()),
        };
        if tag == b'0' {
            plain.clear();
        }
        let lie = if how & 0x10 != 0 { u32::from(repeat) << (how % 32) } else { 0 };
        let mut head = vec![tag];
        head.extend_from_slice(&offset.to_le_bytes());
        head.extend_from_slice(&(len as u32 ^ lie).to_le_bytes());
        head.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        add(&mut stream, &mut chain, &head, &stored, &plain);
        (end, chunks, total) =
            (offset.wrapping_add(len as u64), chunks + 1, total.wrapping_add(len as u64));
    }
    stream
}

fn add(stream: &mut Vec<u8>, chain: &mut [u8; 32], head: &[u8], stored: &[u8], plain: &[u8]) {
    *chain = next(*chain, head, plain);
    stream.extend_from_slice(head);
    stream.extend_from_slice(stored);
    stream.extend_from_slice(&chain[..16]);
}

fn next(chain: [u8; 32], head: &[u8], plain: &[u8]) -> [u8; 32] {
    let content = blake3::hash(plain);
    let mut hasher = blake3::Hasher::new();
    *hasher.update(&chain).update(head).update(content.as_bytes()).finalize().as_bytes()
}

fn header() -> Vec<u8> {
    serde_json::json!({ "offer": offer(), "from": 0, "chunk": CHUNK }).to_string().into_bytes()
}

/// Of a set with a root of 8 MiB and one data member of 4 MiB; the same each time.
fn offer() -> Offer {
    let id = [7; 16];
    Offer {
        snapshot: SnapshotId {
            volume: VolumeUid::try_from(&id[..]).expect("16 bytes"),
            epoch: Epoch(1),
            seq: Seq(1),
            uuid: SnapshotUuid::try_from(&id[..]).expect("16 bytes"),
            parent: None,
        },
        base: None,
        size: ByteSize::mib(8),
        data: vec![Member::new("data".parse().expect("a name"), ByteSize::mib(4))],
        taken: TimestampMs(1),
        history: false,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_streams_are_decoded_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 10_000, super::read);
    }
}

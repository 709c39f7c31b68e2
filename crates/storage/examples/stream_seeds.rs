//! Writes streams into a directory, for a fuzzer to begin with: `stream_seeds DIR`.

use std::error::Error;
use std::path::Path;

use holdfast_storage::stream::Encoder;
use holdfast_storage::{Extent, ExtentKind, Offer, Result, SnapshotReader};
use holdfast_types::{ByteSize, Epoch, Seq, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid};

/// Noise and text by turns, a chunk each.
struct Content;

impl SnapshotReader for Content {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        for (at, byte) in (offset..).zip(buf) {
            let noise = at.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) as u8;
            *byte = if at >> 18 & 1 == 0 { noise } else { b'a' + (at % 7) as u8 };
        }
        Ok(())
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: stream_seeds DIR")?;
    std::fs::create_dir_all(&dir)?;
    let extent = |offset, len, kind| Extent { offset, len, kind };
    let seeds = [
        vec![],
        vec![extent(0, 4096, ExtentKind::Data)],
        vec![extent(4096, 1 << 20, ExtentKind::Hole), extent(2 << 20, 9000, ExtentKind::Data)],
        vec![extent(200 << 10, 100 << 10, ExtentKind::Data), extent(4 << 20, 1, ExtentKind::Data)],
    ];
    for (i, extents) in seeds.into_iter().enumerate() {
        let mut seed = vec![0, i as u8 * 60];
        for frame in Encoder::new(&offer(), 0, extents, Box::new(Content), Vec::new())? {
            seed.extend_from_slice(&frame?);
        }
        std::fs::write(Path::new(&dir).join(format!("stream-{i}")), seed)?;
    }
    // Records that the fuzz target gives checks to: content, packed content, a hole, the end.
    let records = [
        [0, 0, 0, 0, 0, 0, 4, 0, 1, 2, 3, 4].as_slice(),
        &[1, 0, 9, 0, 0, 200, 4, 0, 5, 5, 5, 5],
        &[2, 0, 0, 16, 0, 0, 0, 0],
        &[0x40, 0, 0, 0, 0, 0, 0, 0],
    ];
    let seed = [&[1, 3][..], &records.concat()].concat();
    Ok(std::fs::write(Path::new(&dir).join("records"), seed)?)
}

fn offer() -> Offer {
    let snapshot = SnapshotId {
        volume: VolumeUid::generate(),
        epoch: Epoch(1),
        seq: Seq(1),
        uuid: SnapshotUuid::generate(),
        parent: None,
    };
    let (size, taken) = (ByteSize::mib(8), TimestampMs(1));
    Offer { snapshot, base: None, size, data: Vec::new(), taken, history: false }
}

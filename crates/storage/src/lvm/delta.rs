//! What `thin_delta` says of two thin devices (thin_delta(8)), read as it comes.
//!
//! ```text
//! <superblock uuid="" time="5" transaction="4" data_block_size="128" nr_data_blocks="0">
//!   <diff left="2" right="3">
//!     <same begin="0" length="16"/>  <different …/>  <left_only …/>  <right_only …/>
//! ```
//! Numbers are chunks of `data_block_size` sectors.

use std::io::BufRead;

use crate::pool::{Extent, ExtentKind};

const SECTOR: u64 = 512;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// The pool's time: see `wear`.
    pub(super) time: u32,
    /// The ranges, ordered, ending at the size.
    pub(super) extents: Vec<Extent>,
}

/// Which ranges are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Where the right device differs from the left one.
    Changes,
    /// All that a device maps, it being both sides.
    Everything,
}

/// Reads a whole answer about a device of `size` bytes. `None` if it is none.
pub(super) fn read(answer: impl BufRead, ask: Ask, size: u64) -> Option<Delta> {
    let (mut delta, mut chunk, mut ended) = (Delta::default(), None, false);
    for line in answer.lines() {
        let line = line.ok()?;
        let line = line.trim();
        if line.starts_with("<superblock ") {
            delta.time = number(line, "time")?;
            chunk = Some(number::<u64>(line, "data_block_size")?.checked_mul(SECTOR)?);
        } else if line == "</superblock>" {
            ended = true;
        } else if let Some(kind) = kind(line, ask) {
            let (begin, length) = (number::<u64>(line, "begin")?, number::<u64>(line, "length")?);
            let offset = begin.checked_mul(chunk?)?;
            let end = offset.checked_add(length.checked_mul(chunk?)?)?.min(size);
            if offset < end {
                push(&mut delta.extents, Extent { offset, len: end - offset, kind })?;
            }
        }
    }
    // An answer that was cut off looks like fewer changes.
    ended.then_some(delta)
}

fn kind(line: &str, ask: Ask) -> Option<ExtentKind> {
    let tag = line.strip_prefix('<')?.split_whitespace().next()?;
    match (tag, ask) {
        ("different" | "right_only", Ask::Changes) | ("same", Ask::Everything) => {
            Some(ExtentKind::Data)
        }
        ("left_only", Ask::Changes) => Some(ExtentKind::Hole),
        _ => None,
    }
}

/// Adds a range, joined to the last if it goes on from it. `None` if it goes back.
fn push(extents: &mut Vec<Extent>, next: Extent) -> Option<()> {
    match extents.last_mut() {
        Some(last) if last.offset + last.len > next.offset => return None,
        Some(last) if last.offset + last.len == next.offset && last.kind == next.kind => {
            last.len += next.len;
        }
        _ => extents.push(next),
    }
    Some(())
}

/// The value of `name="…"`.
pub(super) fn number<T: std::str::FromStr>(line: &str, name: &str) -> Option<T> {
    let start = line.find(&format!(" {name}=\""))? + name.len() + 3;
    let rest = &line[start..];
    rest[..rest.find('"')?].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"<superblock uuid="" time="5" transaction="4" data_block_size="128" nr_data_blocks="0">
  <diff left="2" right="3">
    <same begin="0" length="16"/>
    <different begin="16" length="2"/>
    <right_only begin="18" length="1"/>
    <left_only begin="30" length="2"/>
    <different begin="100" length="28"/>
  </diff>
</superblock>
"#;
    const CHUNK: u64 = 64 << 10;

    fn kinds(ask: Ask, size: u64) -> Vec<(u64, u64, ExtentKind)> {
        let delta = read(ANSWER.as_bytes(), ask, size).unwrap();
        delta.extents.iter().map(|e| (e.offset / CHUNK, e.len / CHUNK, e.kind)).collect()
    }

    #[test]
    fn changes_and_mappings_are_read() {
        use ExtentKind::{Data, Hole};
        let size = 128 * CHUNK;
        assert_eq!(kinds(Ask::Changes, size), [(16, 3, Data), (30, 2, Hole), (100, 28, Data)]);
        assert_eq!(kinds(Ask::Everything, size), [(0, 16, Data)]);
        assert_eq!(read(ANSWER.as_bytes(), Ask::Changes, size).unwrap().time, 5);
    }

    /// The last chunk of a volume may reach beyond its end, and a clone may be larger than its base.
    #[test]
    fn ranges_end_with_the_volume() {
        let size = 110 * CHUNK - 4096;
        let delta = read(ANSWER.as_bytes(), Ask::Changes, size).unwrap();
        let last = delta.extents.last().unwrap();
        assert_eq!((last.offset, last.offset + last.len), (100 * CHUNK, size));
        assert_eq!(kinds(Ask::Changes, 18 * CHUNK), [(16, 2, ExtentKind::Data)]);
    }

    /// I19: half an answer is no answer; it would look like fewer changes.
    #[test]
    fn an_answer_that_is_cut_off_or_out_of_order_is_refused() {
        for end in (0..ANSWER.len() - "</superblock>\n".len()).step_by(7) {
            assert!(read(&ANSWER.as_bytes()[..end], Ask::Changes, 1 << 40).is_none(), "{end}");
        }
        let back = ANSWER.replace("begin=\"100\"", "begin=\"17\"");
        assert!(read(back.as_bytes(), Ask::Changes, 1 << 40).is_none());
        let huge = ANSWER.replace("begin=\"100\"", "begin=\"18446744073709551615\"");
        assert!(read(huge.as_bytes(), Ask::Changes, 1 << 40).is_none());
    }
}

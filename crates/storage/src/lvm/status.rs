//! What a thin pool says of itself: its status line
//! (Documentation/admin-guide/device-mapper/thin-provisioning).

/// A thin pool's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    /// Used and all blocks of the metadata, 4 KiB each.
    pub(super) metadata: (u64, u64),
    /// Used and all chunks of data.
    pub(super) data: (u64, u64),
    /// Whether a metadata snapshot is held.
    pub(super) held: bool,
    /// `rw`, `ro` or `out_of_data_space`; `None` when the pool has failed altogether.
    pub(super) mode: Option<Mode>,
    /// The metadata must be checked before the pool is written again.
    pub(super) needs_check: bool,
}

/// What a pool still does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    ReadWrite,
    ReadOnly,
    OutOfData,
}

impl Status {
    /// Reads `TRANSACTION USED/TOTAL USED/TOTAL HELD MODE …`, or `Fail`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"Fail") {
            let none = (0, 0);
            return Some(Self {
                metadata: none,
                data: none,
                held: false,
                mode: None,
                needs_check: true,
            });
        }
        let pair = |n: usize| {
            let (used, total) = words.get(n)?.split_once('/')?;
            Some((used.parse().ok()?, total.parse().ok()?))
        };
        let mode = match *words.get(4)? {
            "rw" => Mode::ReadWrite,
            "ro" => Mode::ReadOnly,
            "out_of_data_space" => Mode::OutOfData,
            _ => return None,
        };
        Some(Self {
            metadata: pair(1)?,
            data: pair(2)?,
            held: *words.get(3)? != "-",
            mode: Some(mode),
            needs_check: words.contains(&"needs_check"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read() {
        let line = "8 3290/32768 24/24000 - rw discard_passdown queue_if_no_space - 1024 ";
        let status = Status::parse(line).unwrap();
        assert_eq!((status.metadata, status.data), ((3290, 32768), (24, 24000)));
        assert_eq!((status.held, status.mode), (false, Some(Mode::ReadWrite)));
        assert!(!status.needs_check);
        let line = "8 3290/32768 24/24000 77 out_of_data_space no_discard_passdown \
                    error_if_no_space needs_check 1024";
        let status = Status::parse(line).unwrap();
        assert!(status.held && status.needs_check && status.mode == Some(Mode::OutOfData));
        assert_eq!(Status::parse("Fail").unwrap().mode, None);
        for bad in ["", "8", "8 1/2 3 - rw", "8 x/2 1/2 - rw", "8 1/2 1/2 - maybe"] {
            assert_eq!(Status::parse(bad), None, "{bad}");
        }
    }
}

//! How much memory the machine has: what the leader promises to containers is a share of it.

use holdfast_types::ByteSize;

/// Where the kernel says it (proc(5)).
const MEMINFO: &str = "/proc/meminfo";

/// The machine's physical memory; `None` if the kernel does not say, which keeps nothing from
/// being placed here.
pub(crate) fn total() -> Option<ByteSize> {
    parse(&std::fs::read_to_string(MEMINFO).ok()?)
}

fn parse(meminfo: &str) -> Option<ByteSize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(ByteSize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_is_read() {
        let text = "MemTotal:        2048 kB\nMemFree:          100 kB\n";
        assert_eq!(parse(text), Some(ByteSize::mib(2)));
        assert_eq!(parse("MemFree: 1 kB\n"), None);
        assert_eq!(parse("MemTotal: lots\n"), None);
        assert!(total().is_some());
    }
}

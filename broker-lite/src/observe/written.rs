//! What a thread has had written to a medium, as the kernel counts it. Driver.
//!
//! Invariant: only bytes that the kernel sends on to a block device count, whole pages as it sends
//! them; a file system's own journal and metadata do not, for they are nobody's thread.

use std::fs;

/// By proc_pid_io(5).
const COUNTED: &str = "/proc/thread-self/io";

/// Bytes since the calling thread began; `None` where the kernel does not count them.
pub fn by_this_thread() -> Option<u64> {
    parse(&fs::read_to_string(COUNTED).ok()?)
}

fn parse(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pages_count_and_not_what_was_handed_to_the_kernel() {
        let text = "rchar: 9\nwchar: 4120\nwrite_bytes: 8192\ncancelled_write_bytes: 5\n";
        assert_eq!(parse(text), Some(8192));
        assert_eq!(parse("rchar: 9\n"), None);
    }
}

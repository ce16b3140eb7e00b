//! Numbers with their nouns and units, and the system's words, as people read them. A value.
//!
//! Invariant: one thing is never told as several.

use std::io;

/// `1 bus`, `2 buses`.
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    }
}

/// Bytes in a unit that keeps the number short.
pub(crate) fn about(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// The system's word for a failure, without its number.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let buses = |count| counted(count, "bus", "buses");
        assert_eq!([0, 1, 2].map(buses), ["0 buses", "1 bus", "2 buses"]);
    }
}

//! Numbers with their nouns, as people read them. A value.
//!
//! Invariant: one thing is never told as several.

/// `1 bus`, `2 buses`.
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    }
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

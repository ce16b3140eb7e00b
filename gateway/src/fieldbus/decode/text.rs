//! Texts and bytes in registers. A value.
//!
//! Invariant: trimming takes away what the configuration names and nothing else.

use crate::config::Trim;

/// What instruments fill up with.
const PADDING: [char; 2] = ['\0', ' '];

/// UTF-8 where it is, else Latin-1, which old instruments send for their degree signs.
pub(super) fn decode(bytes: &[u8], trim: Trim) -> String {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    let trimmed = match trim {
        Trim::End => text.trim_end_matches(PADDING),
        Trim::Both => text.trim_matches(PADDING),
        Trim::Nul => text.split('\0').next().unwrap_or_default(),
        Trim::None => return text,
    };
    trimmed.to_owned()
}

/// At most `room` bytes that [`decode`] reads as `text`: UTF-8, or Latin-1 where only that fits.
pub(super) fn encode(text: &str, room: usize) -> Option<Vec<u8>> {
    if text.len() <= room {
        return Some(text.as_bytes().to_vec());
    }
    let bytes: Vec<u8> = text
        .chars()
        .map(|letter| u8::try_from(letter).ok())
        .collect::<Option<_>>()?;
    (bytes.len() <= room && str::from_utf8(&bytes).is_err()).then_some(bytes)
}

/// Bytes written as pairs of hexadecimal digits.
pub(super) fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let pair = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_cuts_what_it_names() {
        for (trim, text) in [
            (Trim::End, "  AB\0C"),
            (Trim::Both, "AB\0C"),
            (Trim::Nul, "  AB"),
            (Trim::None, "  AB\0C \0"),
        ] {
            assert_eq!(decode(b"  AB\0C \0", trim), text, "{trim:?}");
        }
        assert_eq!(decode(b"2\xb0C", Trim::End), "2°C");
    }

    #[test]
    fn a_text_is_written_in_the_letters_that_fit() {
        assert_eq!(encode("2°C", 4).as_deref(), Some("2°C".as_bytes()));
        assert_eq!(encode("22°C", 4).as_deref(), Some(&b"22\xb0C"[..]));
        assert_eq!(encode("22Ω", 3), None, "not in Latin-1");
        assert_eq!(encode("Ã©Ã©", 4), None, "would be read as éé");
        assert_eq!(encode("abc", 2), None);
    }
}

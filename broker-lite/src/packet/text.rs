//! UTF-8 strings and user properties as MQTT carries them.
//!
//! Values. Invariant: every string fits a two-byte length and is free of U+0000
//! `[MQTT-1.5.4-2]`. Other control characters are allowed, as the specification leaves them.

use std::fmt;
use std::sync::Arc;

/// The longest string in bytes: its length travels in two bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 65_535;

/// A UTF-8 encoded string: client identifier, user name, reason string and the like. May be empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Arc<str>);

/// Why a string cannot travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// U+0000 `[MQTT-1.5.4-2]`.
    #[error("a string must not contain the null character [MQTT-1.5.4-2]")]
    Null,
    /// More than 65,535 bytes: the length travels in two.
    #[error("a string has at most 65535 bytes")]
    TooLong,
}

impl Text {
    /// Checks and keeps a string.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// Keeps what can travel: null characters and all past 65,535 bytes are left out. For
    /// reason strings, which must not fail.
    pub fn lossy(text: &str) -> Self {
        let mut clean = text.replace('\0', "");
        let mut end = MAX_TEXT_BYTES.min(clean.len());
        while !clean.is_char_boundary(end) {
            end -= 1;
        }
        clean.truncate(end);
        Self(clean.into())
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has no characters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Pairs of name and value in their sender's order; names may repeat.
///
/// Kept in the form they travel in: one allocation however many there are, none when there are
/// none, and forwarding them is one copy.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserProperties {
    /// For each pair: identifier 0x26, two length-prefixed strings.
    wire: Vec<u8>,
    count: usize,
}

impl UserProperties {
    /// The property identifier "user property".
    pub(crate) const IDENTIFIER: u8 = 0x26;

    /// Adds a pair at the end.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), TextError> {
        check(name)?;
        check(value)?;
        self.wire.reserve(5 + name.len() + value.len());
        self.wire.push(Self::IDENTIFIER);
        for text in [name, value] {
            // `check` holds the length to two bytes.
            self.wire
                .extend_from_slice(&(text.len() as u16).to_be_bytes());
            self.wire.extend_from_slice(text.as_bytes());
        }
        self.count += 1;
        Ok(())
    }

    /// Bytes that they take in a packet.
    pub fn wire_len(&self) -> usize {
        self.wire.len()
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.wire.as_slice();
        std::iter::from_fn(move || {
            let (_, pair) = rest.split_first()?;
            let (name, pair) = split_text(pair)?;
            let (value, pair) = split_text(pair)?;
            rest = pair;
            Some((name, value))
        })
    }

    /// The encoded properties, to be put between others.
    pub(crate) fn as_wire(&self) -> &[u8] {
        &self.wire
    }
}

impl fmt::Debug for UserProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Cuts one length-prefixed string off; `None` only if `wire` was not written by `push`.
fn split_text(wire: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = wire.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

fn check(text: &str) -> Result<(), TextError> {
    if text.len() > MAX_TEXT_BYTES {
        Err(TextError::TooLong)
    } else if text.as_bytes().contains(&0) {
        Err(TextError::Null)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_properties_keep_their_order_and_repetitions() -> Result<(), TextError> {
        let mut properties = UserProperties::default();
        properties.push("b", "1")?;
        properties.push("a", "")?;
        properties.push("b", "2")?;
        let pairs: Vec<_> = properties.iter().collect();
        assert_eq!(pairs, [("b", "1"), ("a", ""), ("b", "2")]);
        assert_eq!(properties.len(), 3);
        Ok(())
    }

    #[test]
    fn null_characters_and_overlong_strings_are_refused() {
        assert_eq!(Text::parse("a\0b"), Err(TextError::Null));
        assert_eq!(Text::parse(&"x".repeat(65_536)), Err(TextError::TooLong));
        assert_eq!(
            UserProperties::default().push("a", "\0"),
            Err(TextError::Null)
        );
        assert!(Text::parse("\u{1}\u{feff}").is_ok());
    }

    #[test]
    fn a_lossy_text_is_cut_between_characters() {
        let text = Text::lossy(&"\0é".repeat(40_000));
        assert_eq!(text.as_str().len(), 65_534);
        assert!(text.as_str().chars().all(|character| character == 'é'));
    }
}

//! Reads DER (X.690) from the network, as far as certificates in PKCS#7 need it. Core.
//!
//! Invariant: lengths are definite, minimal and within what there is; nothing recurses.

/// Not the DER that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotDer;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
/// `[0]`, constructed.
pub(super) const TAGGED_0: u8 = 0xa0;
/// `[1]`, constructed.
pub(super) const TAGGED_1: u8 = 0xa1;

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next element's content, which must bear this tag.
    pub(super) fn content(&mut self, tag: u8) -> Result<&'a [u8], NotDer> {
        let (found, _, content) = self.element()?;
        if found == tag {
            Ok(content)
        } else {
            Err(NotDer)
        }
    }

    /// The same, if it bears the tag; otherwise nothing is read.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, NotDer> {
        match self.0.first() {
            Some(found) if *found == tag => self.content(tag).map(Some),
            _ => Ok(None),
        }
    }

    /// The next element: its tag, the whole of it, and its content.
    pub(super) fn element(&mut self) -> Result<(u8, &'a [u8], &'a [u8]), NotDer> {
        let [tag, first, rest @ ..] = self.0 else {
            return Err(NotDer);
        };
        // High tag numbers do not occur here.
        if tag & 0x1f == 0x1f {
            return Err(NotDer);
        }
        let (length, head) = match first {
            0..=0x7f => (usize::from(*first), 2),
            0x81..=0x83 => {
                let count = usize::from(first & 0x7f);
                let bytes = rest.get(..count).ok_or(NotDer)?;
                let length = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                let least = if count == 1 {
                    0x80
                } else {
                    1 << (8 * (count - 1))
                };
                if length < least {
                    return Err(NotDer);
                }
                (length, 2 + count)
            }
            // Indefinite, or longer than anything that is read here.
            _ => return Err(NotDer),
        };
        let whole = self.0.get(..head + length).ok_or(NotDer)?;
        self.0 = &self.0[head + length..];
        Ok((*tag, whole, &whole[head..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal_definite_and_within_bounds() {
        let read = |bytes: &[u8]| Reader(bytes).content(SEQUENCE).map(<[u8]>::len);
        assert_eq!(read(&[0x30, 0]), Ok(0));
        assert_eq!(read(&[0x30, 1, 7]), Ok(1));
        assert_eq!(
            read(&[&[0x30, 0x81, 0x80][..], &[0; 128]].concat()),
            Ok(128)
        );
        assert_eq!(
            read(&[&[0x30, 0x82, 1, 0][..], &[0; 256]].concat()),
            Ok(256)
        );
        for wrong in [
            &[][..],
            &[0x30],
            &[0x31, 0],
            &[0x30, 1],
            &[0x30, 0x81, 1, 7],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x82, 0, 0x81, 0],
            &[0x30, 0x84, 0, 0, 0, 1, 7],
            &[0x3f, 0x21, 0],
        ] {
            assert_eq!(read(wrong), Err(NotDer), "{wrong:02x?}");
        }
    }
}

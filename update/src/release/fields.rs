//! Fields of the index: numbers big-endian, texts and byte strings after their length, each with a maximum. Value.
//!
//! Invariant: one sequence of fields has one sequence of bytes; what is left over or missing is refused.

use super::Digest;

/// Bytes of a product's, version's or hardware's name.
pub const NAME_MAX: usize = 64;

/// What is wrong with an index, in words for its maker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an index of a release: {0}")]
pub struct Malformed(pub String);

pub(super) fn malformed<T>(why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(why.into()))
}

/// Takes fields off the front.
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn bytes(&mut self, count: usize, what: &str) -> Result<&'b [u8], Malformed> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return malformed(format!("it ends before its {what}"));
        };
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N, what)?);
        Ok(array)
    }

    pub(super) fn byte(&mut self, what: &str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(super) fn short(&mut self, what: &str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub(super) fn number(&mut self, what: &str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(super) fn long(&mut self, what: &str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_be_bytes)
    }

    pub(super) fn digest(&mut self, what: &str) -> Result<Digest, Malformed> {
        self.array(what)
    }

    /// A byte string of at most `max` bytes behind its length of two.
    pub(super) fn sized(&mut self, max: usize, what: &str) -> Result<&'b [u8], Malformed> {
        let length = usize::from(self.short(what)?);
        if length > max {
            return malformed(format!(
                "its {what} has {length} bytes, at most {max} are read"
            ));
        }
        self.bytes(length, what)
    }

    pub(super) fn name(&mut self, what: &str) -> Result<String, Malformed> {
        let bytes = self.sized(NAME_MAX, what)?;
        let name = String::from_utf8_lossy(bytes).into_owned();
        check_name(&name, what)?;
        Ok(name)
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            more => malformed(format!("{more} bytes follow its end")),
        }
    }
}

/// Adds a byte string behind its length of two bytes; it is at most [`NAME_MAX`] or a wrapped key's part.
pub(super) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend(bytes);
}

/// Names stand in file names and on screens: letters, digits and `. _ + ~ , -`, a letter or digit first.
pub(super) fn check_name(name: &str, what: &str) -> Result<(), Malformed> {
    let first = name.bytes().next();
    let fits = name.len() <= NAME_MAX
        && first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._+~,-".contains(&byte));
    match fits {
        true => Ok(()),
        false => malformed(format!(
            "its {what} {name:?} is not 1 to {NAME_MAX} letters, digits or . _ + ~ , - beginning with a letter or digit"
        )),
    }
}

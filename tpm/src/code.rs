//! What a TPM's response code says, in words. Value.
//!
//! Invariant: every code has a text; one that is not in the tables says its number (TPM 2.0 Part 1, 39, Part 2, 6.6).

use std::fmt;

/// A response code other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

/// Format one: the code names a handle, a parameter or a session.
const FORMAT_ONE: u32 = 0x080;
/// In format one: the number counts parameters.
const OF_PARAMETER: u32 = 0x040;
/// In format one: the number counts sessions, else handles.
const OF_SESSION: u32 = 0x800;
/// Format zero with this bit: a warning, the command may be tried again.
const WARNING: u32 = 0x900;
/// Above these bits stands which layer answered; zero is the TPM itself.
const LAYER_SHIFT: u32 = 16;
const CODE_MASK: u32 = 0xfff;

impl ResponseCode {
    /// The object, session or index does not stand at that handle.
    pub const HANDLE: u32 = 0x08b;
    /// The authorisation is wrong, and does not count towards the lockout.
    pub const BAD_AUTH: u32 = 0x0a2;
    /// The authorisation is wrong, and counts towards the lockout.
    pub const AUTH_FAIL: u32 = 0x08e;
    /// The hierarchy is switched off.
    pub const HIERARCHY: u32 = 0x085;
    /// The policy does not hold.
    pub const POLICY_FAIL: u32 = 0x09d;
    /// A value is outside what is allowed.
    pub const VALUE: u32 = 0x084;
    /// A signature does not verify.
    pub const SIGNATURE: u32 = 0x09b;
    /// The attributes do not allow this.
    pub const ATTRIBUTES: u32 = 0x082;
    /// A policy assertion does not hold.
    pub const POLICY: u32 = 0x126;
    /// The TPM wants a startup command first.
    pub const INITIALIZE: u32 = 0x100;
    /// The index already stands there.
    pub const NV_DEFINED: u32 = 0x14c;
    /// The index was never written.
    pub const NV_UNINITIALIZED: u32 = 0x14a;
    /// Authorisations that count are refused for a while.
    pub const LOCKOUT: u32 = 0x921;

    /// The code without which handle, parameter or session it is about.
    #[must_use]
    pub fn base(self) -> u32 {
        let code = self.0 & CODE_MASK;
        match code & FORMAT_ONE {
            0 => code,
            _ => code & 0x0bf,
        }
    }

    /// Whether the very same command may succeed a little later.
    #[must_use]
    pub fn passes(self) -> bool {
        // YIELDED, TESTING, NV_RATE, RETRY, NV_UNAVAILABLE.
        matches!(self.0, 0x908 | 0x90a | 0x920 | 0x922 | 0x923)
    }

    /// Whether a session that we hold is no longer one of the TPM's.
    #[must_use]
    pub(crate) fn lost_session(self) -> bool {
        // REFERENCE_S0, or HANDLE and VALUE about a session.
        let of_session =
            self.0 & (FORMAT_ONE | OF_PARAMETER | OF_SESSION) == FORMAT_ONE | OF_SESSION;
        self.0 == 0x918 || of_session && matches!(self.base(), Self::VALUE | Self::HANDLE)
    }

    fn text(self) -> &'static str {
        match self.base() {
            0x081 => "this algorithm is not supported",
            Self::ATTRIBUTES => "the attributes do not allow this",
            0x083 => "this hash is not supported",
            Self::VALUE => "a value is out of range or does not fit",
            Self::HIERARCHY => "the hierarchy is switched off or wrong for this",
            0x087 => "this key size is not supported",
            0x089 => "this mode is not supported",
            0x08a => "this type of object does not fit",
            Self::HANDLE => "nothing stands at this handle",
            0x08c => "this key derivation is not supported",
            0x08d => "a number is out of range",
            Self::AUTH_FAIL => "the authorisation is wrong, and counts towards the lockout",
            0x08f => "a nonce is wrong",
            0x090 => "physical presence is asked for",
            0x092 => "this scheme is not supported",
            0x095 => "a structure has the wrong size",
            0x096 => "this symmetric algorithm is not supported",
            0x097 => "a structure has the wrong tag",
            0x098 => "a selector is wrong",
            0x09a => "a structure ends too early",
            Self::SIGNATURE => "the signature does not verify",
            0x09c => "this key is not good for that",
            Self::POLICY_FAIL => "the policy does not hold",
            0x09f => "the integrity check failed: it was altered, or belongs to another TPM",
            0x0a0 => "this ticket is not valid",
            0x0a1 => "reserved bits are set",
            Self::BAD_AUTH => "the authorisation is wrong",
            0x0a3 => "this has expired",
            0x0a4 => "the command code does not fit the policy",
            0x0a5 => "public and private part do not belong together",
            0x0a6 => "this curve is not supported",
            0x0a7 => "the point is not on the curve",
            _ => self.text_of_format_zero(),
        }
    }

    fn text_of_format_zero(self) -> &'static str {
        match self.0 & CODE_MASK {
            Self::INITIALIZE => "it has not been started, or was started already",
            0x101 => "it is in failure mode and needs a reset",
            0x103 => "it cannot go on with this sequence",
            0x119 => "this command is not of the kind allowed now",
            0x120 => "this command is switched off",
            0x121 => "it wants to be exclusive",
            0x124 => "this type of authorisation is missing or not allowed",
            Self::POLICY => "an assertion of the policy does not hold",
            0x12d => "it must be restarted first",
            0x12f => "this object may not be used for that",
            0x130 => "the command's size is wrong",
            0x143 => "this command is not implemented",
            0x144 => "the sizes of the sessions are wrong",
            0x145 => "sessions are not allowed with this command",
            0x146 => "the range is outside the index",
            0x147 => "the value is too large for this index",
            0x148 => "this index is locked",
            0x149 => "this access to the index is not allowed",
            Self::NV_UNINITIALIZED => "the index was never written",
            0x14b => "there is no more room for indices or persistent keys",
            Self::NV_DEFINED => "this index or persistent handle exists already",
            0x150 => "a saved context is wrong",
            0x151 => "the policy's digest is wrong for this",
            0x152 => "a parent is needed",
            0x154 => "this does not fit the platform",
            0x155 => "a sensitive value is wrong",
            0x901 => "too much happened since a session was saved",
            0x902 => "no room for another object: something else left keys loaded",
            0x903 => "no room for another session: something else left sessions open",
            0x904 => "no memory",
            0x905 => "no more session handles: something else left sessions open",
            0x906 => "no more object handles",
            0x908 | 0x90a => "it is busy",
            0x910..=0x916 => "a key that was used is no longer loaded",
            0x918..=0x91e => "a session that was used is no longer open",
            0x920 => "it slows down writes to spare its memory",
            Self::LOCKOUT => {
                "it is locked after too many wrong authorisations; the lockout passes with time"
            }
            0x922 => "it is busy, try again",
            0x923 => "its memory cannot be reached right now",
            _ => "a code without a text",
        }
    }

    /// Which handle, parameter or session a format-one code is about, counted from 1.
    fn about(self) -> Option<(&'static str, u32)> {
        if self.0 & FORMAT_ONE == 0 {
            return None;
        }
        let number = (self.0 >> 8) & 0xf;
        let (what, number) = match (self.0 & OF_PARAMETER != 0, self.0 & OF_SESSION != 0) {
            (true, _) => ("parameter", number),
            (false, true) => ("session", number & 7),
            (false, false) => ("handle", number),
        };
        (number > 0).then_some((what, number))
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        if let Some((what, number)) = self.about() {
            write!(f, " ({what} {number})")?;
        }
        let warning = if self.0 & (FORMAT_ONE | WARNING) == WARNING {
            "warning "
        } else {
            ""
        };
        write!(f, " [{warning}{:#05x}]", self.0 & CODE_MASK)?;
        match self.0 >> LAYER_SHIFT {
            0 => Ok(()),
            // The kernel's resource manager (TSS 2.0 Overview, 2.4).
            11 => f.write_str(" from the kernel's resource manager"),
            layer => write!(f, " from layer {layer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ResponseCode;

    fn check(code: u32, text: &str) {
        assert_eq!(ResponseCode(code).to_string(), text);
    }

    #[test]
    fn a_code_says_what_it_is_about() {
        check(
            0x1d5,
            "a structure has the wrong size (parameter 1) [0x1d5]",
        );
        check(
            0x98e,
            "the authorisation is wrong, and counts towards the lockout (session 1) [0x98e]",
        );
        check(0x18b, "nothing stands at this handle (handle 1) [0x18b]");
        check(0x126, "an assertion of the policy does not hold [0x126]");
        check(0x922, "it is busy, try again [warning 0x922]");
        check(
            0x000b_0143,
            "this command is not implemented [0x143] from the kernel's resource manager",
        );
    }

    #[test]
    fn every_code_has_a_text_and_none_panics() {
        for code in 0..0x1_0000 {
            assert!(!ResponseCode(code).to_string().is_empty());
        }
    }

    #[test]
    fn only_codes_that_pass_are_worth_another_try() {
        assert!(ResponseCode(0x922).passes() && ResponseCode(0x90a).passes());
        assert!(!ResponseCode(ResponseCode::LOCKOUT).passes());
    }
}

//! Which function code a value is written with. A core.
//!
//! Exception 1 says that a device does not know a function, so nothing was executed: the same is
//! then sent by another function, and the device remembered as one that knows no more than that.
//!
//! Invariant: of one write no function code is sent twice, and none after any other answer.

use crate::{
    config::{self, WriteSingle},
    fieldbus::transaction::{Request, Span},
};

/// Most registers that function code 23 writes (application protocol 6.17).
const READ_WRITE_MAX: usize = 121;

/// What stands in a write, whatever carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Coils.
    Coils(Vec<bool>),
    /// Registers.
    Registers(Vec<u16>),
    /// Some bits of one register.
    Mask {
        /// Bits to keep.
        and: u16,
        /// Bits to set among those not kept.
        or: u16,
    },
}

/// The function codes that a device knows, as configured or learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Functions {
    configured: WriteSingle,
    /// One coil by function code 5, not 15.
    single_coil: bool,
    /// One register by function code 6, not 16.
    single_register: bool,
    /// Function code 22.
    mask: bool,
    /// Function code 23.
    read_write: bool,
}

/// What is to be sent for a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The write itself.
    Write(Request),
    /// The register has to be read, for its other bits are written too.
    ReadFirst,
}

impl Functions {
    /// As configured; what the device does not know is learned.
    pub(crate) fn of(device: &config::Device) -> Functions {
        let single = device.write_single != WriteSingle::Never;
        Functions {
            configured: device.write_single,
            single_coil: single,
            single_register: single,
            mask: device.mask_write,
            read_write: device.read_write,
        }
    }

    /// Function codes that it knew as `configured` and does not any more.
    pub(crate) fn unknown(self, configured: Functions) -> Vec<u8> {
        let lost = [
            (5, configured.single_coil, self.single_coil),
            (6, configured.single_register, self.single_register),
            (22, configured.mask, self.mask),
            (23, configured.read_write, self.read_write),
        ];
        let lost = lost.into_iter().filter(|(_, before, now)| *before && !now);
        lost.map(|(code, ..)| code).collect()
    }

    /// The same without these function codes, as far as the configuration leaves that open.
    pub(crate) fn without(self, codes: &[u8]) -> Functions {
        let knows = |code| !codes.contains(&code);
        let may_change = self.configured == WriteSingle::Auto;
        Functions {
            configured: self.configured,
            single_coil: self.single_coil && (knows(5) || !may_change),
            single_register: self.single_register && (knows(6) || !may_change),
            mask: self.mask && knows(22),
            read_write: self.read_write && knows(23),
        }
    }

    /// Whether more than one register or coil can be written at once.
    pub(super) fn writes_several(self) -> bool {
        self.configured != WriteSingle::Always || self.read_write
    }

    /// How `content` is written at the start of `span`.
    pub(super) fn step(self, span: Span, content: &Content) -> Step {
        let address = span.start;
        Step::Write(match content {
            Content::Coils(coils) => match coils.as_slice() {
                [on] if self.single_coil => Request::WriteCoil { address, on: *on },
                _ => Request::WriteCoils {
                    address,
                    coils: coils.clone(),
                },
            },
            Content::Mask { and, or } if self.mask => Request::MaskRegister {
                address,
                and: *and,
                or: *or,
            },
            Content::Mask { .. } => return Step::ReadFirst,
            Content::Registers(words) => self.registers(span, words),
        })
    }

    fn registers(self, span: Span, words: &[u16]) -> Request {
        let address = span.start;
        match words {
            words if self.read_write && words.len() <= READ_WRITE_MAX => {
                Request::ReadWriteRegisters {
                    read: span,
                    address,
                    words: words.to_vec(),
                }
            }
            [word] if self.single_register => Request::WriteRegister {
                address,
                word: *word,
            },
            words => Request::WriteRegisters {
                address,
                words: words.to_vec(),
            },
        }
    }

    /// Draws the lesson from exception 1; `false` where no other function does the same.
    pub(super) fn unlearn(&mut self, refused: &Request) -> bool {
        let may_change = self.configured == WriteSingle::Auto;
        match refused {
            Request::ReadWriteRegisters { .. } => self.read_write = false,
            Request::MaskRegister { .. } => self.mask = false,
            Request::WriteCoil { .. } if may_change => self.single_coil = false,
            Request::WriteRegister { .. } if may_change => self.single_register = false,
            Request::WriteCoils { coils, .. } if may_change && coils.len() == 1 => {
                self.single_coil = true;
            }
            Request::WriteRegisters { words, .. } if may_change && words.len() == 1 => {
                self.single_register = true;
            }
            _ => return false,
        }
        true
    }
}

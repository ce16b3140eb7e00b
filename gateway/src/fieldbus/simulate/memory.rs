//! The four tables of a simulated device, and what requests do to them. A core.
//!
//! Invariant: a request that is answered by an exception has changed nothing.

use std::collections::BTreeMap;

use crate::fieldbus::register::{Register, Table};

/// Exception codes (application protocol, section 7).
pub(super) const ILLEGAL_FUNCTION: u8 = 1;
pub(super) const ILLEGAL_ADDRESS: u8 = 2;
pub(super) const ILLEGAL_VALUE: u8 = 3;

/// Most registers of one read, of one write, and of the two halves of function code 23
/// (application protocol 6.3, 6.12, 6.17).
const READ_MAX: u16 = 125;
const WRITE_MAX: u16 = 123;
const EXCHANGE_WRITE_MAX: u16 = 121;
/// Most bits of one read and of one write (6.1, 6.11).
const READ_BITS_MAX: u16 = 2_000;
const WRITE_BITS_MAX: u16 = 1_968;

/// What a request asks of the tables, once it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// Function codes 1 to 4.
    Read(Span),
    /// 5, 6, 15, 16.
    Write(Span, Vec<u16>),
    /// 22: the bits to keep, and those to set among the others.
    Mask {
        register: Register,
        and: u16,
        or: u16,
    },
    /// 23: the write comes first.
    Exchange(Span, Vec<u16>, Span),
}

/// Neighbouring elements of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) table: Table,
    pub(super) start: u16,
    pub(super) count: u16,
}

impl Span {
    /// Whether this element is one of them.
    pub(super) fn contains(self, register: Register) -> bool {
        let place = register.address.checked_sub(self.start);
        register.table == self.table && place.is_some_and(|place| place < self.count)
    }

    /// Their addresses; `None` beyond the last one that there is.
    pub(super) fn addresses(self) -> impl Iterator<Item = Option<u16>> {
        (0..self.count).map(move |index| self.start.checked_add(index))
    }
}

impl Access {
    /// Reads a request of function codes 1 to 6, 15, 16, 22, 23 (application protocol, section 6).
    ///
    /// # Errors
    /// The exception code to answer with.
    pub(super) fn parse(pdu: &[u8]) -> Result<Access, u8> {
        let span = |table, start, count| Span {
            table,
            start,
            count,
        };
        match *pdu {
            [code @ 1..=4, a, b, c, d] => {
                let (table, most) = match code {
                    1 => (Table::Coil, READ_BITS_MAX),
                    2 => (Table::Discrete, READ_BITS_MAX),
                    3 => (Table::Holding, READ_MAX),
                    _ => (Table::Input, READ_MAX),
                };
                let count = within(word(c, d), most)?;
                Ok(Access::Read(span(table, word(a, b), count)))
            }
            [5, a, b, c, d] => {
                let bit = match word(c, d) {
                    0xff00 => 1,
                    0 => 0,
                    _ => return Err(ILLEGAL_VALUE),
                };
                Ok(Access::Write(span(Table::Coil, word(a, b), 1), vec![bit]))
            }
            [6, a, b, c, d] => {
                let place = span(Table::Holding, word(a, b), 1);
                Ok(Access::Write(place, vec![word(c, d)]))
            }
            [15, a, b, c, d, bytes, ref data @ ..] => {
                let count = within(word(c, d), WRITE_BITS_MAX)?;
                counted(data, bytes, usize::from(count).div_ceil(8))?;
                let bit = |index: usize| u16::from(data[index / 8] >> (index % 8) & 1);
                let bits = (0..usize::from(count)).map(bit).collect();
                Ok(Access::Write(span(Table::Coil, word(a, b), count), bits))
            }
            [16, a, b, c, d, bytes, ref data @ ..] => {
                let count = within(word(c, d), WRITE_MAX)?;
                counted(data, bytes, 2 * usize::from(count))?;
                let place = span(Table::Holding, word(a, b), count);
                Ok(Access::Write(place, words(data)))
            }
            [22, a, b, c, d, e, f] => Ok(Access::Mask {
                register: Register {
                    table: Table::Holding,
                    address: word(a, b),
                },
                and: word(c, d),
                or: word(e, f),
            }),
            [23, a, b, c, d, e, f, g, h, bytes, ref data @ ..] => {
                let read = within(word(c, d), READ_MAX)?;
                let write = within(word(g, h), EXCHANGE_WRITE_MAX)?;
                counted(data, bytes, 2 * usize::from(write))?;
                Ok(Access::Exchange(
                    span(Table::Holding, word(e, f), write),
                    words(data),
                    span(Table::Holding, word(a, b), read),
                ))
            }
            // A known function with another length.
            [1..=6 | 15 | 16 | 22 | 23, ..] => Err(ILLEGAL_VALUE),
            _ => Err(ILLEGAL_FUNCTION),
        }
    }

    /// What it reads, if anything.
    pub(super) fn reads(&self) -> Option<Span> {
        match *self {
            Access::Read(span) | Access::Exchange(_, _, span) => Some(span),
            Access::Write(..) | Access::Mask { .. } => None,
        }
    }

    /// What it writes, if anything.
    pub(super) fn writes(&self) -> Option<Span> {
        match *self {
            Access::Write(span, _) | Access::Exchange(span, _, _) => Some(span),
            Access::Mask { register, .. } => Some(Span {
                table: register.table,
                start: register.address,
                count: 1,
            }),
            Access::Read(_) => None,
        }
    }
}

/// The tables; only elements that were made exist.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// By table, in its own order: what stands at an address.
    tables: [BTreeMap<u16, Cell>; 4],
    /// Whether elements between those that mean something do not exist either.
    pub(super) holes: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    value: u16,
    /// It stands between others and means nothing.
    gap: bool,
}

impl Memory {
    /// Makes elements exist, each zero unless it was there.
    pub(super) fn make(&mut self, span: Span) {
        for address in span.addresses().flatten() {
            self.table_mut(span.table).entry(address).or_default().gap = false;
        }
    }

    /// Makes the elements between those that exist, where no more than `most` are missing.
    pub(super) fn fill_gaps(&mut self, most: u16) {
        for table in &mut self.tables {
            let known: Vec<u16> = table.keys().copied().collect();
            for pair in known.windows(2) {
                if pair[1] - pair[0] > most {
                    continue;
                }
                for address in pair[0] + 1..pair[1] {
                    table.insert(
                        address,
                        Cell {
                            value: 0,
                            gap: true,
                        },
                    );
                }
            }
        }
    }

    /// The value at an address.
    pub(super) fn at(&self, register: Register) -> Option<u16> {
        let cell = self.table(register.table).get(&register.address)?;
        (!(cell.gap && self.holes)).then_some(cell.value)
    }

    /// Puts a value where an element exists.
    pub(super) fn put(&mut self, register: Register, value: u16) {
        if let Some(cell) = self.table_mut(register.table).get_mut(&register.address) {
            cell.value = value;
        }
    }

    /// Does what a request asks and gives the answer behind its function code.
    ///
    /// # Errors
    /// The exception code to answer with.
    pub(super) fn execute(&mut self, access: &Access, pdu: &[u8]) -> Result<Vec<u8>, u8> {
        match access {
            Access::Read(span) => self.read(*span),
            Access::Write(span, values) => {
                self.write(*span, values)?;
                // A write is confirmed by its address and its value or count.
                Ok(pdu[1..5].to_vec())
            }
            Access::Mask { register, and, or } => {
                let old = self.at(*register).ok_or(ILLEGAL_ADDRESS)?;
                self.put(*register, old & and | or & !and);
                Ok(pdu[1..].to_vec())
            }
            Access::Exchange(write, values, read) => {
                self.read(*read)?;
                self.write(*write, values)?;
                self.read(*read)
            }
        }
    }

    fn read(&self, span: Span) -> Result<Vec<u8>, u8> {
        let table = self.table(span.table);
        let mut known = table.range(span.start..);
        let mut answer = vec![0];
        let mut bits = 0;
        for (index, address) in span.addresses().enumerate() {
            let (found, cell) = known.next().ok_or(ILLEGAL_ADDRESS)?;
            if Some(*found) != address || cell.gap && self.holes {
                return Err(ILLEGAL_ADDRESS);
            }
            if !span.table.is_bits() {
                answer.extend(cell.value.to_be_bytes());
                continue;
            }
            bits |= u8::from(cell.value != 0) << (index % 8);
            if index % 8 == 7 || index + 1 == usize::from(span.count) {
                answer.push(std::mem::take(&mut bits));
            }
        }
        answer[0] = u8::try_from(answer.len() - 1).unwrap_or(u8::MAX);
        Ok(answer)
    }

    fn write(&mut self, span: Span, values: &[u16]) -> Result<(), u8> {
        self.read(span)?;
        for (address, value) in span.addresses().flatten().zip(values) {
            let table = span.table;
            self.put(Register { table, address }, *value);
        }
        Ok(())
    }

    fn table(&self, table: Table) -> &BTreeMap<u16, Cell> {
        &self.tables[table as usize]
    }

    fn table_mut(&mut self, table: Table) -> &mut BTreeMap<u16, Cell> {
        &mut self.tables[table as usize]
    }
}

fn within(count: u16, most: u16) -> Result<u16, u8> {
    let possible = (1..=most).contains(&count);
    possible.then_some(count).ok_or(ILLEGAL_VALUE)
}

/// Checks that the request has as many bytes of data as it says and as its count needs.
fn counted(data: &[u8], said: u8, needed: usize) -> Result<(), u8> {
    let right = data.len() == usize::from(said) && data.len() == needed;
    right.then_some(()).ok_or(ILLEGAL_VALUE)
}

fn words(data: &[u8]) -> Vec<u16> {
    let pairs = data.chunks_exact(2);
    pairs.map(|pair| word(pair[0], pair[1])).collect()
}

fn word(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let mut memory = Memory::default();
        for (table, start, count) in [
            (Table::Coil, 0, 20),
            (Table::Discrete, 0, 3),
            (Table::Input, 5, 2),
            (Table::Holding, 0, 4),
            (Table::Holding, 8, 2),
        ] {
            memory.make(Span {
                table,
                start,
                count,
            });
        }
        memory
    }

    /// The answer behind the function code, or the exception.
    fn ask(memory: &mut Memory, pdu: &[u8]) -> Result<Vec<u8>, u8> {
        let access = Access::parse(pdu)?;
        memory.execute(&access, pdu)
    }

    #[test]
    fn what_is_written_is_read_back_by_every_function_code() {
        let mut memory = memory();
        let mut told = |pdu: &[u8], answer: &[u8]| {
            assert_eq!(ask(&mut memory, pdu).as_deref(), Ok(answer), "{pdu:?}");
        };
        told(&[5, 0, 1, 0xff, 0], &[0, 1, 0xff, 0]);
        told(&[15, 0, 7, 0, 10, 2, 0xff, 3], &[0, 7, 0, 10]);
        told(&[1, 0, 0, 0, 20], &[3, 0b1000_0010, 0xff, 1]);
        told(&[2, 0, 0, 0, 3], &[1, 0]);
        told(&[6, 0, 3, 1, 2], &[0, 3, 1, 2]);
        told(&[16, 0, 0, 0, 2, 4, 0, 7, 0, 8], &[0, 0, 0, 2]);
        told(&[3, 0, 0, 0, 4], &[8, 0, 7, 0, 8, 0, 0, 1, 2]);
        told(&[22, 0, 3, 0xff, 0xf0, 0, 5], &[0, 3, 0xff, 0xf0, 0, 5]);
        told(&[3, 0, 3, 0, 1], &[2, 1, 5]);
        told(&[23, 0, 0, 0, 2, 0, 1, 0, 1, 2, 9, 9], &[4, 0, 7, 9, 9]);
        told(&[4, 0, 5, 0, 2], &[4, 0, 0, 0, 0]);
    }

    #[test]
    fn what_does_not_exist_or_is_too_much_is_an_exception_and_changes_nothing() {
        let mut memory = memory();
        let mut refused = |pdu: &[u8], exception| {
            assert_eq!(ask(&mut memory, pdu), Err(exception), "{pdu:?}");
        };
        refused(&[4, 0, 4, 0, 2], ILLEGAL_ADDRESS);
        refused(&[4, 0, 6, 0, 2], ILLEGAL_ADDRESS);
        refused(&[3, 0xff, 0xff, 0, 2], ILLEGAL_ADDRESS);
        refused(&[16, 0, 3, 0, 2, 4, 1, 1, 1, 1], ILLEGAL_ADDRESS);
        refused(&[23, 0, 9, 0, 2, 0, 0, 0, 1, 2, 9, 9], ILLEGAL_ADDRESS);
        refused(&[22, 0, 4, 0, 0, 0, 0], ILLEGAL_ADDRESS);
        refused(&[3, 0, 0, 0, 0], ILLEGAL_VALUE);
        refused(&[3, 0, 0, 0, 126], ILLEGAL_VALUE);
        refused(&[3, 0, 0, 0], ILLEGAL_VALUE);
        refused(&[1, 0, 0, 7, 0xd1], ILLEGAL_VALUE);
        refused(&[5, 0, 0, 0, 1], ILLEGAL_VALUE);
        refused(&[15, 0, 0, 0, 2, 2, 3, 3], ILLEGAL_VALUE);
        refused(&[16, 0, 0, 0, 2, 2, 3, 3], ILLEGAL_VALUE);
        refused(&[7], ILLEGAL_FUNCTION);
        refused(&[], ILLEGAL_FUNCTION);
        let zeros = Ok(vec![8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ask(&mut memory, &[3, 0, 0, 0, 4]), zeros);
    }

    #[test]
    fn gaps_read_as_zero_unless_they_are_holes() {
        let mut memory = memory();
        memory.fill_gaps(125);
        assert_eq!(
            ask(&mut memory, &[3, 0, 0, 0, 10]).map(|data| data.len()),
            Ok(21)
        );
        memory.holes = true;
        assert_eq!(ask(&mut memory, &[3, 0, 0, 0, 10]), Err(ILLEGAL_ADDRESS));
        assert_eq!(
            ask(&mut memory, &[3, 0, 8, 0, 2]).map(|data| data.len()),
            Ok(5)
        );
    }
}

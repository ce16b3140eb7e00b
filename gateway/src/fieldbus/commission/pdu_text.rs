//! A PDU in a technician's words: `read holding registers 0-9`. A core.
//!
//! Invariant: every PDU has a text; lengths that do not fit are said, never assumed.

use crate::fieldbus::{
    register::Table,
    transaction::{Exception, Span},
};

use super::frame::spaced;

/// What a client asks.
pub(super) fn request(pdu: &[u8]) -> String {
    let (function, data) = split(pdu);
    let text = match (function, words(data).as_slice(), data) {
        (1..=4, [start, count], _) => read(function, *start, *count),
        (5, [address, 0xff00], _) => Some(format!("write coil {address} on")),
        (5, [address, 0], _) => Some(format!("write coil {address} off")),
        (6, [address, word], _) => Some(format!("write holding register {address} = {word}")),
        (7, [], _) => Some("read exception status".to_owned()),
        (8, [code, ..], _) => Some(format!("diagnostics {code}")),
        (15, [start, count, ..], [_, _, _, _, _, bits @ ..]) => span(Table::Coil, *start, *count)
            .map(|span| format!("write {span} = {}", bit_text(bits, *count))),
        (16, [start, count, ..], [_, _, _, _, _, bytes @ ..]) => {
            span(Table::Holding, *start, *count)
                .map(|span| format!("write {span} = {}", register_text(bytes)))
        }
        (17, [], _) => Some("report server id".to_owned()),
        (22, [address, and, or], _) => Some(format!(
            "mask holding register {address}: and {and:04x}, or {or:04x}"
        )),
        (23, [start, count, to, many, ..], [_, _, _, _, _, _, _, _, _, bytes @ ..]) => {
            let read = span(Table::Holding, *start, *count);
            let written = span(Table::Holding, *to, *many);
            read.zip(written).map(|(read, written)| {
                format!("write {written} = {}, read {read}", register_text(bytes))
            })
        }
        (43, _, [14, code, object]) => Some(format!(
            "read device identification, code {code} from object {object}"
        )),
        _ => None,
    };
    text.unwrap_or_else(|| unknown(function, data))
}

/// What a server answers to `request`.
pub(super) fn response(pdu: &[u8], request: Option<&[u8]>) -> String {
    let (function, data) = split(pdu);
    let asked = request.filter(|request| request.first() == Some(&function));
    let count = asked.and_then(|request| words(split(request).1).get(1).copied());
    let text = match (function, data) {
        (0x80.., [code]) => Some(Exception(*code).to_string()),
        (1 | 2, [length, bits @ ..]) if usize::from(*length) == bits.len() => {
            let count = count.unwrap_or(u16::from(*length) * 8);
            Some(format!("{count} bits: {}", bit_text(bits, count)))
        }
        (3 | 4 | 23, [length, bytes @ ..]) if usize::from(*length) == bytes.len() => {
            let plural = if bytes.len() == 2 { "" } else { "s" };
            let count = bytes.len() / 2;
            Some(format!(
                "{count} register{plural}: {}",
                register_text(bytes)
            ))
        }
        (5 | 6 | 22, _) => Some(format!("confirms: {}", self::request(pdu))),
        (15 | 16, _) => written(function, data),
        (17, [length, id @ ..]) if usize::from(*length) == id.len() => {
            Some(format!("server id: {}", spaced(id)))
        }
        (43, [14, ..]) => Some(format!("device identification: {}", spaced(data))),
        _ => None,
    };
    text.unwrap_or_else(|| unknown(function, data))
}

fn split(pdu: &[u8]) -> (u8, &[u8]) {
    pdu.split_first()
        .map_or((0, &[]), |(first, rest)| (*first, rest))
}

fn words(data: &[u8]) -> Vec<u16> {
    let (pairs, _) = data.as_chunks::<2>();
    pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect()
}

fn read(function: u8, start: u16, count: u16) -> Option<String> {
    let table = match function {
        1 => Table::Coil,
        2 => Table::Discrete,
        3 => Table::Holding,
        _ => Table::Input,
    };
    Some(format!("read {}", span(table, start, count)?))
}

fn written(function: u8, data: &[u8]) -> Option<String> {
    let table = if function == 15 {
        Table::Coil
    } else {
        Table::Holding
    };
    match words(data).as_slice() {
        [start, count] => Some(format!("confirms: wrote {}", span(table, *start, *count)?)),
        _ => None,
    }
}

/// None of no elements at all.
fn span(table: Table, start: u16, count: u16) -> Option<Span> {
    (count > 0).then_some(Span {
        table,
        start,
        count,
    })
}

fn register_text(bytes: &[u8]) -> String {
    let text: Vec<String> = words(bytes)
        .iter()
        .map(|word| format!("{word:04x}"))
        .collect();
    text.join(" ")
}

/// Bits as they are counted, the first at the left.
fn bit_text(bytes: &[u8], count: u16) -> String {
    let bits = bytes
        .iter()
        .flat_map(|byte| (0..8).map(move |place| byte >> place & 1));
    bits.take(usize::from(count))
        .map(|bit| if bit == 1 { '1' } else { '0' })
        .collect()
}

fn unknown(function: u8, data: &[u8]) -> String {
    format!("function code {function}, {} bytes of data", data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_in_the_application_protocol() {
        // The examples of the application protocol, section 6.
        for (pdu, text) in [
            (&[1, 0, 0x13, 0, 0x13][..], "read coils 19-37"),
            (&[2, 0, 0xc4, 0, 0x16], "read discrete inputs 196-217"),
            (&[3, 0, 0x6b, 0, 3], "read holding registers 107-109"),
            (&[4, 0, 8, 0, 1], "read input register 8"),
            (&[5, 0, 0xac, 0xff, 0], "write coil 172 on"),
            (&[6, 0, 1, 0, 3], "write holding register 1 = 3"),
            (
                &[15, 0, 0x13, 0, 10, 2, 0xcd, 1],
                "write coils 19-28 = 1011001110",
            ),
            (
                &[16, 0, 1, 0, 2, 4, 0, 10, 1, 2],
                "write holding registers 1-2 = 000a 0102",
            ),
            (&[17], "report server id"),
            (
                &[22, 0, 4, 0, 0xf2, 0, 0x25],
                "mask holding register 4: and 00f2, or 0025",
            ),
            (
                &[23, 0, 3, 0, 6, 0, 14, 0, 1, 2, 0, 0xff],
                "write holding register 14 = 00ff, read holding registers 3-8",
            ),
            (
                &[43, 14, 1, 0],
                "read device identification, code 1 from object 0",
            ),
            (&[3, 0, 0, 0, 0], "function code 3, 4 bytes of data"),
            (&[3, 0], "function code 3, 1 bytes of data"),
            (&[0x41, 1, 2], "function code 65, 2 bytes of data"),
            (&[], "function code 0, 0 bytes of data"),
        ] {
            assert_eq!(request(pdu), text, "{pdu:02x?}");
        }
    }

    #[test]
    fn responses_read_with_what_was_asked() {
        for (pdu, asked, text) in [
            (&[1, 1, 0xcd][..], &[1, 0, 0, 0, 5][..], "5 bits: 10110"),
            (
                &[3, 4, 2, 0x2b, 0, 0],
                &[3, 0, 0, 0, 2],
                "2 registers: 022b 0000",
            ),
            (&[4, 2, 0, 10], &[4, 0, 0, 0, 1], "1 register: 000a"),
            (
                &[6, 0, 1, 0, 3],
                &[6, 0, 1, 0, 3],
                "confirms: write holding register 1 = 3",
            ),
            (
                &[16, 0, 1, 0, 2],
                &[16],
                "confirms: wrote holding registers 1-2",
            ),
            (&[0x83, 2], &[3], "exception 02 illegal data address"),
            (&[17, 2, 9, 0xff], &[17], "server id: 09 ff"),
            (&[3, 9, 0], &[3], "function code 3, 2 bytes of data"),
        ] {
            assert_eq!(response(pdu, Some(asked)), text, "{pdu:02x?}");
        }
        assert_eq!(response(&[1, 1, 5], None), "8 bits: 10100000");
    }
}

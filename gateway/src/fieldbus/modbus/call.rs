//! Our requests and replies in tokio-modbus' words. Values.
//!
//! Invariant: an answer that does not fit its request in kind, length or echo is garbled.

use std::{borrow::Cow, io};

use bytes::Bytes;
use tokio_modbus::prelude::{ReadCode, ReadDeviceIdentificationResponse};
use tokio_modbus::{Error, ExceptionCode, ProtocolError, Request as Call, Response};

use crate::fieldbus::{
    register::Table,
    transaction::{Answer, Exception, Reply, Request, Span},
};

/// The request as tokio-modbus sends it.
pub(super) fn request(request: &Request) -> Call<'_> {
    match request {
        Request::Read(span) => read(*span),
        Request::WriteCoil { address, on } => Call::WriteSingleCoil(*address, *on),
        Request::WriteCoils { address, coils } => {
            Call::WriteMultipleCoils(*address, Cow::Borrowed(coils))
        }
        Request::WriteRegister { address, word } => Call::WriteSingleRegister(*address, *word),
        Request::WriteRegisters { address, words } => {
            Call::WriteMultipleRegisters(*address, Cow::Borrowed(words))
        }
        Request::ReadWriteRegisters {
            read,
            address,
            words,
        } => {
            Call::ReadWriteMultipleRegisters(read.start, read.count, *address, Cow::Borrowed(words))
        }
        Request::MaskRegister { address, and, or } => Call::MaskWriteRegister(*address, *and, *or),
        Request::Raw(pdu) => raw(pdu),
    }
}

/// tokio-modbus takes the answer to a function that it knows only for that of its own request.
fn raw(pdu: &[u8]) -> Call<'_> {
    let word = |high, low| u16::from_be_bytes([high, low]);
    match *pdu {
        [1, a, b, c, d] => Call::ReadCoils(word(a, b), word(c, d)),
        [2, a, b, c, d] => Call::ReadDiscreteInputs(word(a, b), word(c, d)),
        [3, a, b, c, d] => Call::ReadHoldingRegisters(word(a, b), word(c, d)),
        [4, a, b, c, d] => Call::ReadInputRegisters(word(a, b), word(c, d)),
        [5, a, b, on @ (0 | 0xff), 0] => Call::WriteSingleCoil(word(a, b), on == 0xff),
        [6, a, b, c, d] => Call::WriteSingleRegister(word(a, b), word(c, d)),
        [15, a, b, c, d, bytes, ref data @ ..] if fits(bytes, data, word(c, d).div_ceil(8)) => {
            let bit = |at: u16| data[usize::from(at / 8)] >> (at % 8) & 1 == 1;
            let coils: Vec<bool> = (0..word(c, d)).map(bit).collect();
            Call::WriteMultipleCoils(word(a, b), coils.into())
        }
        [16, a, b, c, d, bytes, ref data @ ..] if fits(bytes, data, 2 * word(0, d)) && c == 0 => {
            Call::WriteMultipleRegisters(word(a, b), words_of(data).into())
        }
        [17] => Call::ReportServerId,
        [22, a, b, c, d, e, f] => Call::MaskWriteRegister(word(a, b), word(c, d), word(e, f)),
        [23, a, b, c, d, e, f, 0, count, bytes, ref data @ ..]
            if fits(bytes, data, 2 * u16::from(count)) =>
        {
            let read = (word(a, b), word(c, d));
            Call::ReadWriteMultipleRegisters(read.0, read.1, word(e, f), words_of(data).into())
        }
        [43, 14, code @ 1..=4, object] => ReadCode::try_from_value(code).map_or_else(
            || Call::Custom(43, Cow::Borrowed(&pdu[1..])),
            |code| Call::ReadDeviceIdentification(code, object),
        ),
        [function, ref data @ ..] => Call::Custom(function, Cow::Borrowed(data)),
        [] => Call::Custom(0, Cow::Borrowed(&[])),
    }
}

/// Whether a request bears as much data as it says, and as its count takes.
fn fits(bytes: u8, data: &[u8], wanted: u16) -> bool {
    data.len() == usize::from(bytes) && u16::from(bytes) == wanted && wanted > 0
}

fn words_of(data: &[u8]) -> Vec<u16> {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]);
    data.chunks_exact(2).map(word).collect()
}

fn read(span: Span) -> Call<'static> {
    match span.table {
        Table::Coil => Call::ReadCoils(span.start, span.count),
        Table::Discrete => Call::ReadDiscreteInputs(span.start, span.count),
        Table::Input => Call::ReadInputRegisters(span.start, span.count),
        Table::Holding => Call::ReadHoldingRegisters(span.start, span.count),
    }
}

/// What a unit answered to `request`; tokio-modbus has compared unit and function.
pub(super) fn reply(request: &Request, result: Result<Response, ExceptionCode>) -> Reply {
    let response = match result {
        Ok(response) => response,
        Err(code) => return Reply::Exception(Exception(u8::from(code))),
    };
    let answer = match (request, response) {
        (Request::Read(span), Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)) => {
            self::bits(*span, bits)
        }
        (
            Request::Read(span),
            Response::ReadInputRegisters(words) | Response::ReadHoldingRegisters(words),
        )
        | (
            Request::ReadWriteRegisters { read: span, .. },
            Response::ReadWriteMultipleRegisters(words),
        ) => (words.len() == usize::from(span.count)).then_some(Answer::Registers(words)),
        (Request::Raw(_), response) => pdu(response).map(Answer::Raw),
        (request, response) => echoes(request, &response).then_some(Answer::Written),
    };
    answer.map_or_else(
        || Reply::Garbled("the answer does not fit the request".to_owned()),
        Reply::Answer,
    )
}

/// Bits come in whole bytes.
fn bits(span: Span, mut bits: Vec<bool>) -> Option<Answer> {
    (bits.len() == 8 * span.data_bytes()).then(|| {
        bits.truncate(usize::from(span.count));
        Answer::Bits(bits)
    })
}

/// The bytes that tokio-modbus read `response` from; `None` for a length that no PDU has.
fn pdu(response: Response) -> Option<Vec<u8>> {
    let counted = |function: u8, data: Vec<u8>| {
        let count = u8::try_from(data.len()).ok()?;
        Some([vec![function, count], data].concat())
    };
    let pair = |function: u8, first: u16, second: u16| {
        let [first, second] = [first, second].map(u16::to_be_bytes);
        Some([&[function][..], &first, &second].concat())
    };
    match response {
        Response::ReadCoils(bits) => counted(1, packed(&bits)),
        Response::ReadDiscreteInputs(bits) => counted(2, packed(&bits)),
        Response::ReadHoldingRegisters(words) => counted(3, bytes_of(&words)),
        Response::ReadInputRegisters(words) => counted(4, bytes_of(&words)),
        Response::WriteSingleCoil(at, on) => pair(5, at, if on { 0xff00 } else { 0 }),
        Response::WriteSingleRegister(at, word) => pair(6, at, word),
        Response::WriteMultipleCoils(at, count) => pair(15, at, count),
        Response::WriteMultipleRegisters(at, count) => pair(16, at, count),
        Response::ReportServerId(id, running, more) => counted(
            17,
            [vec![id, if running { 0xff } else { 0 }], more].concat(),
        ),
        Response::MaskWriteRegister(at, and, or) => {
            let start = pair(22, at, and)?;
            Some([start, or.to_be_bytes().to_vec()].concat())
        }
        Response::ReadWriteMultipleRegisters(words) => counted(23, bytes_of(&words)),
        Response::ReadDeviceIdentification(found) => identification(&found),
        Response::Custom(function, data) => Some([Bytes::from(vec![function]), data].concat()),
    }
}

/// Read device identification, function code 43 / 14 (application protocol 6.21).
fn identification(found: &ReadDeviceIdentificationResponse) -> Option<Vec<u8>> {
    let (more, next) = if found.more_follows {
        (0xff, found.next_object_id)
    } else {
        (0, 0)
    };
    let code = found.read_code.value();
    let level = found.conformity_level.value();
    let mut pdu = vec![0x2b, 0x0e, code, level, more, next];
    pdu.push(u8::try_from(found.device_id_objects.len()).ok()?);
    for object in &found.device_id_objects {
        pdu.extend([object.id, u8::try_from(object.value.len()).ok()?]);
        pdu.extend(&object.value);
    }
    Some(pdu)
}

/// Bits as they stand in a PDU: eight a byte, the first the least significant.
fn packed(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| {
        let set = |byte: u8, (place, bit): (usize, &bool)| byte | u8::from(*bit) << place;
        bits.iter().enumerate().fold(0, set)
    };
    bits.chunks(8).map(byte).collect()
}

fn bytes_of(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn echoes(request: &Request, response: &Response) -> bool {
    match (request, response) {
        (Request::WriteCoil { address, on }, Response::WriteSingleCoil(at, coil)) => {
            (address, on) == (at, coil)
        }
        (Request::WriteCoils { address, coils }, Response::WriteMultipleCoils(at, count)) => {
            address == at && coils.len() == usize::from(*count)
        }
        (Request::WriteRegister { address, word }, Response::WriteSingleRegister(at, echo)) => {
            (address, word) == (at, echo)
        }
        (
            Request::WriteRegisters { address, words },
            Response::WriteMultipleRegisters(at, count),
        ) => address == at && words.len() == usize::from(*count),
        (
            Request::MaskRegister { address, and, or },
            Response::MaskWriteRegister(at, and_too, or_too),
        ) => (address, and, or) == (at, and_too, or_too),
        _ => false,
    }
}

/// What it means that there is no answer at all.
pub(super) fn failure(error: Error) -> Reply {
    Reply::Garbled(match error {
        Error::Protocol(ProtocolError::HeaderMismatch { .. }) => {
            "the answer is another unit's or another request's".to_owned()
        }
        Error::Protocol(ProtocolError::FunctionCodeMismatch { .. }) => {
            "the answer is to another function".to_owned()
        }
        Error::Transport(error) if error.kind() == io::ErrorKind::InvalidData => {
            format!("the answer cannot be read ({error}): noise, or a wrong line setting?")
        }
        // At the end of a TCP stream tokio-modbus gives the last error of whatever came before.
        Error::Transport(_) => "the connection broke before the answer".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span {
        table: Table::Holding,
        start: 4,
        count: 2,
    };

    #[test]
    fn an_answer_of_another_length_is_garbled() {
        let read = Request::Read(SPAN);
        let answer = |words: &[u16]| reply(&read, Ok(Response::ReadHoldingRegisters(words.into())));
        assert_eq!(
            answer(&[1, 2]),
            Reply::Answer(Answer::Registers(vec![1, 2]))
        );
        assert!(matches!(answer(&[1]), Reply::Garbled(_)));
        assert!(matches!(answer(&[1, 2, 3]), Reply::Garbled(_)));
    }

    #[test]
    fn bits_are_cut_to_what_was_asked() {
        let coils = Span {
            table: Table::Coil,
            count: 3,
            ..SPAN
        };
        let answer = |bits| reply(&Request::Read(coils), Ok(Response::ReadCoils(bits)));
        assert_eq!(
            answer(vec![true; 8]),
            Reply::Answer(Answer::Bits(vec![true; 3]))
        );
        assert!(matches!(answer(vec![true; 16]), Reply::Garbled(_)));
    }

    #[test]
    fn a_pdu_of_a_known_function_is_sent_as_what_it_is() {
        let call = |pdu: &'static [u8]| raw(pdu);
        assert_eq!(call(&[3, 0, 4, 0, 2]), Call::ReadHoldingRegisters(4, 2));
        assert_eq!(call(&[5, 0, 4, 0xff, 0]), Call::WriteSingleCoil(4, true));
        let coils = Call::WriteMultipleCoils(4, vec![true, false, true].into());
        assert_eq!(call(&[15, 0, 4, 0, 3, 1, 0b101]), coils);
        let words = Call::WriteMultipleRegisters(4, vec![1, 2].into());
        assert_eq!(call(&[16, 0, 4, 0, 2, 4, 0, 1, 0, 2]), words);
        let both = Call::ReadWriteMultipleRegisters(1, 2, 3, vec![9].into());
        assert_eq!(call(&[23, 0, 1, 0, 2, 0, 3, 0, 1, 2, 0, 9]), both);
        for odd in [
            &[5u8, 0, 4, 1, 0][..],
            &[16, 0, 4, 0, 2, 2, 0, 1],
            &[15, 0, 4, 0, 9, 1, 1],
            &[3, 0, 4],
            &[0x41, 1, 2],
        ] {
            let call = raw(odd);
            assert_eq!(call, Call::Custom(odd[0], Cow::Borrowed(&odd[1..])));
        }
    }

    #[test]
    fn what_is_written_and_read_at_once_is_answered_by_registers_alone() {
        let both = Request::ReadWriteRegisters {
            read: SPAN,
            address: 4,
            words: vec![1, 2],
        };
        let answer = |response| reply(&both, Ok(response));
        assert_eq!(
            answer(Response::ReadWriteMultipleRegisters(vec![1, 2])),
            Reply::Answer(Answer::Registers(vec![1, 2]))
        );
        for other in [
            Response::ReadWriteMultipleRegisters(vec![1]),
            Response::WriteMultipleRegisters(4, 2),
        ] {
            assert!(matches!(answer(other), Reply::Garbled(_)));
        }
    }

    #[test]
    fn a_write_counts_only_with_its_own_echo() {
        let one = Request::WriteRegister {
            address: 4,
            word: 7,
        };
        let echo = |at, word| reply(&one, Ok(Response::WriteSingleRegister(at, word)));
        assert_eq!(echo(4, 7), Reply::Answer(Answer::Written));
        assert!(matches!(echo(4, 8), Reply::Garbled(_)));
        assert!(matches!(echo(5, 7), Reply::Garbled(_)));
    }

    #[test]
    fn a_raw_request_is_answered_by_the_bytes_that_came() {
        let raw = Request::Raw(vec![0x11]);
        let answer = |response| reply(&raw, Ok(response));
        let bytes = |bytes: &[u8]| Reply::Answer(Answer::Raw(bytes.to_vec()));
        let cases = [
            (
                Response::ReportServerId(9, true, vec![1]),
                bytes(&[17, 3, 9, 0xff, 1]),
            ),
            (
                Response::ReadHoldingRegisters(vec![1, 2]),
                bytes(&[3, 4, 0, 1, 0, 2]),
            ),
            (Response::ReadCoils(vec![true; 9]), bytes(&[1, 2, 0xff, 1])),
            (
                Response::WriteSingleCoil(7, true),
                bytes(&[5, 0, 7, 0xff, 0]),
            ),
            (
                Response::MaskWriteRegister(1, 2, 3),
                bytes(&[22, 0, 1, 0, 2, 0, 3]),
            ),
            (
                Response::Custom(0x41, Bytes::from_static(b"x")),
                bytes(b"\x41x"),
            ),
        ];
        for (response, expected) in cases {
            assert_eq!(answer(response), expected);
        }
        let read = Request::Raw(vec![0x2b, 0x0e, 1, 0]);
        assert_eq!(
            request(&read),
            Call::ReadDeviceIdentification(ReadCode::Basic, 0)
        );
    }
}

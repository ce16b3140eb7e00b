//! Our requests and replies in tokio-modbus' words. Values.
//!
//! Invariant: an answer that does not fit its request in kind, length or echo is garbled.

use std::{borrow::Cow, io};

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
        Request::Raw(pdu) => {
            let (function, data) = pdu
                .split_first()
                .map_or((0, &[][..]), |(f, data)| (*f, data));
            Call::Custom(function, Cow::Borrowed(data))
        }
    }
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
}

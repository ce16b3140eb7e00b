//! tokio-modbus without a wire: the frame that it sends for a request, and what it makes of the
//! frame that answers. Driver.
//!
//! Its client owns its transport, waits for one answer at a time and takes the first bytes that
//! come for it. So it is given a transport in memory; which bytes are the answer is decided below,
//! by `rtu` and `mbap`.
//!
//! Invariant: it sees one whole frame per request, and no other byte.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_modbus::{
    Error, ExceptionCode, Response,
    client::{Client, rtu, tcp},
    slave::Slave,
};

use crate::{
    config::Framing,
    fieldbus::transaction::{Answer, Exception, Reply, Request},
};

use super::call;

type Called = Result<Result<Response, ExceptionCode>, Error>;

/// A request that awaits its answer.
pub(super) struct Call {
    framing: Framing,
    request: Request,
    memory: Memory,
    called: Pin<Box<dyn Future<Output = Called> + Send>>,
}

impl Call {
    /// Encodes a request; the transaction identifier of an MBAP header is 0.
    ///
    /// # Errors
    /// tokio-modbus cannot encode it.
    pub(super) fn new(framing: Framing, unit: u8, request: &Request) -> Result<Call, Reply> {
        let memory = Memory::default();
        let mut context = match framing {
            Framing::Tcp => tcp::attach_slave(memory.clone(), Slave(unit)),
            Framing::Rtu => rtu::attach_slave(memory.clone(), Slave(unit)),
        };
        let sent = request.clone();
        let mut call = Call {
            framing,
            request: request.clone(),
            memory,
            called: Box::pin(async move { context.call(call::request(&sent)).await }),
        };
        match call.poll() {
            Poll::Pending => Ok(call),
            Poll::Ready(called) => Err(call.reply(called)),
        }
    }

    /// What is to be sent.
    pub(super) fn frame(&self) -> Vec<u8> {
        self.memory.bytes().sent.clone()
    }

    /// Whether it asks for more than a look.
    pub(super) fn is_write(&self) -> bool {
        !matches!(self.request, Request::Read(_))
    }

    /// What the frame that came says.
    pub(super) fn answer(mut self, frame: &[u8]) -> Reply {
        if let Request::Raw(asked) = &self.request {
            return raw(self.framing, asked, frame);
        }
        self.memory.bytes().answer = Some(frame.to_vec());
        match self.poll() {
            Poll::Ready(called) => self.reply(called),
            // Memory ends after the frame, so that a call always does.
            Poll::Pending => Reply::Garbled("the answer cannot be read".to_owned()),
        }
    }

    fn poll(&mut self) -> Poll<Called> {
        // Nothing happens in memory that would have to wake anybody.
        let mut context = Context::from_waker(Waker::noop());
        self.called.as_mut().poll(&mut context)
    }

    fn reply(&self, called: Called) -> Reply {
        match called {
            Ok(result) => call::reply(&self.request, result),
            Err(error) => call::failure(error),
        }
    }
}

/// Bytes before the PDU of an MBAP frame, and before and behind that of an RTU frame.
const MBAP: usize = 7;
const UNIT: usize = 1;
const CRC: usize = 2;

/// The PDU in a frame that answers a raw one; tokio-modbus would want to understand it.
fn raw(framing: Framing, asked: &[u8], frame: &[u8]) -> Reply {
    let pdu = match framing {
        Framing::Tcp => frame.get(MBAP..),
        Framing::Rtu => frame.get(UNIT..frame.len().saturating_sub(CRC)),
    };
    let function = asked.first().copied().unwrap_or(0);
    match pdu {
        Some([first, code]) if *first == function | 0x80 => Reply::Exception(Exception(*code)),
        Some(pdu) if pdu.first() == Some(&function) => Reply::Answer(Answer::Raw(pdu.to_vec())),
        _ => Reply::Garbled("the answer is to another function".to_owned()),
    }
}

/// A transport that remembers what was sent and holds an answer ready.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Bytes>>);

#[derive(Debug, Default)]
struct Bytes {
    sent: Vec<u8>,
    /// `None`: still to come; emptied by being read, after which the transport has ended.
    answer: Option<Vec<u8>>,
}

impl Memory {
    fn bytes(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = self.bytes();
        let Some(answer) = &mut bytes.answer else {
            return Poll::Pending;
        };
        let count = answer.len().min(buffer.remaining());
        buffer.put_slice(&answer[..count]);
        answer.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bytes().sent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use crate::fieldbus::{
        register::Table,
        transaction::{Answer, Exception, Span},
    };

    use super::*;

    fn read() -> Request {
        Request::Read(Span {
            table: Table::Holding,
            start: 0x6b,
            count: 3,
        })
    }

    fn call(framing: Framing) -> Call {
        Call::new(framing, 0x11, &read()).unwrap_or_else(|reply| panic!("{reply:?}"))
    }

    #[test]
    fn requests_are_framed_as_in_the_specification() {
        let rtu = [0x11, 0x03, 0x00, 0x6b, 0x00, 0x03, 0x76, 0x87];
        assert_eq!(call(Framing::Rtu).frame(), rtu);
        let tcp = [0, 0, 0, 0, 0, 6, 0x11, 0x03, 0x00, 0x6b, 0x00, 0x03];
        assert_eq!(call(Framing::Tcp).frame(), tcp);
    }

    #[test]
    fn an_answer_an_exception_and_another_units_answer_are_told_apart() {
        let answer = |pdu: &[u8], unit: u8| {
            let length = u8::try_from(pdu.len() + 1).unwrap();
            let frame = [&[0, 0, 0, 0, 0, length, unit], pdu].concat();
            call(Framing::Tcp).answer(&frame)
        };
        let words = Answer::Registers(vec![1, 2, 3]);
        assert_eq!(
            answer(&[3, 6, 0, 1, 0, 2, 0, 3], 0x11),
            Reply::Answer(words)
        );
        assert_eq!(answer(&[0x83, 2], 0x11), Reply::Exception(Exception(2)));
        assert!(matches!(
            answer(&[3, 6, 0, 1, 0, 2, 0, 3], 0x12),
            Reply::Garbled(_)
        ));
        assert!(matches!(
            answer(&[4, 6, 0, 1, 0, 2, 0, 3], 0x11),
            Reply::Garbled(_)
        ));
        assert!(matches!(answer(&[3, 2, 0, 1], 0x11), Reply::Garbled(_)));
        // A byte count that promises more than the frame holds.
        assert!(matches!(answer(&[3, 6, 0, 1], 0x11), Reply::Garbled(_)));
    }

    #[test]
    fn a_raw_request_is_answered_by_the_bytes_that_came() {
        let asked = Request::Raw(vec![43, 14, 1, 0]);
        let call = |framing| Call::new(framing, 17, &asked).unwrap_or_else(|_| panic!("encodes"));
        assert_eq!(call(Framing::Rtu).frame()[..5], [17, 43, 14, 1, 0]);
        let identity = [&[17, 43, 14, 1, 0x83, 0, 0, 1, 0, 1][..], b"A", &[0, 0]].concat();
        let pdu = Reply::Answer(Answer::Raw(identity[1..11].to_vec()));
        assert_eq!(call(Framing::Rtu).answer(&identity), pdu);
        let exception = [0, 0, 0, 0, 0, 3, 17, 0xab, 1];
        assert_eq!(
            call(Framing::Tcp).answer(&exception),
            Reply::Exception(Exception(1))
        );
        let other = [0, 0, 0, 0, 0, 3, 17, 0x03, 1];
        assert!(matches!(
            call(Framing::Tcp).answer(&other),
            Reply::Garbled(_)
        ));
    }
}

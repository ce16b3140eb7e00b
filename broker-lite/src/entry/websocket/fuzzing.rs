//! A WebSocket on any bytes: what comes out depends on the bytes, not on how the network cut them,
//! and nothing is held but one control frame. A driver's; for fuzzers.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    WebSocket,
    frame::{Answer, FrameReader},
    upgrade::{REQUEST_MAX, answer},
};
use crate::fuzzing::script::Script;

/// The longest control payload: all that may be held, for a frame that is not complete and for one
/// to be answered.
const HELD_MAX: usize = 125;
const READ_BYTES: usize = 64;

/// What a client's bytes came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    data: Vec<u8>,
    fault: Option<String>,
    closed: bool,
}

/// The first byte chooses between an upgrade's request and frames, the next say where to cut.
pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let is_request = script.coin();
    let cuts = script.bytes();
    let sent = script.rest();
    if is_request {
        return ask(sent, cuts);
    }
    let byte_by_byte = decode(sent.chunks(1));
    for outcome in [
        decode(std::iter::once(sent)),
        decode(cut(sent, cuts)),
        read(sent, cuts),
    ] {
        assert_eq!(
            outcome.fault, byte_by_byte.fault,
            "a fault depends on the cuts"
        );
        assert_eq!(outcome.closed, byte_by_byte.closed);
        if outcome.fault.is_some() {
            // What came together with a fault is lost with it.
            assert!(byte_by_byte.data.starts_with(&outcome.data));
        } else {
            assert_eq!(
                outcome.data, byte_by_byte.data,
                "the payload depends on the cuts"
            );
        }
    }
}

/// A request that is cut is granted or refused as if it came whole, but for bytes behind it: they
/// are only seen if they came with it.
fn ask(request: &[u8], cuts: &[u8]) {
    let request = &request[..request.len().min(REQUEST_MAX)];
    let origins = ["https://panel.plant".to_owned()];
    let asked = |end: usize| answer(&request[..end], "/mqtt", &origins).transpose();
    let whole = asked(request.len());
    let mut end = 0;
    let in_pieces = cut(request, cuts).find_map(|piece| {
        end += piece.len();
        asked(end)
    });
    match (in_pieces, whole) {
        (None, None) => assert!(request.len() < REQUEST_MAX, "waited for without end"),
        (Some(Err(_)), Some(Err(_))) => {}
        (Some(Ok(pieces)), Some(Ok(whole))) => assert_eq!(pieces, whole),
        (Some(Ok(_)), Some(Err(_))) => assert!(end < request.len(), "granted, then refused"),
        (pieces, whole) => panic!("{pieces:?} in pieces, {whole:?} as a whole"),
    }
}

/// The frames alone.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = FrameReader::default();
    let mut outcome = Outcome::default();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let decoded = reader.decode(&mut piece);
        assert!(
            reader.held() <= HELD_MAX,
            "{} bytes are held",
            reader.held()
        );
        if let Some(Answer::Pong(payload)) = reader.take_answer() {
            assert!(payload.len() <= HELD_MAX, "a long pong");
        }
        match decoded {
            Ok(count) => outcome.data.extend_from_slice(&piece[..count]),
            Err(fault) => {
                outcome.fault = Some(fault.to_string());
                break;
            }
        }
    }
    outcome.closed = reader.is_closed();
    outcome
}

/// The frames as a stream whose other end takes every answer.
fn read(sent: &[u8], cuts: &[u8]) -> Outcome {
    let mut socket = WebSocket::new(Pieces(cut(sent, cuts).collect()));
    let mut outcome = Outcome::default();
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let mut room = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut room);
        let polled = Pin::new(&mut socket).poll_read(&mut context, &mut buffer);
        assert!(socket.reader.held() + socket.control.len() <= 2 * HELD_MAX);
        match polled {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => break,
            Poll::Ready(Ok(())) => outcome.data.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(error)) => {
                outcome.fault = Some(error.to_string());
                break;
            }
            Poll::Pending => panic!("it waits for a client who waits for nothing"),
        }
    }
    outcome.closed = socket.reader.is_closed();
    outcome
}

/// A client that sends these, one a time, and takes whatever is answered.
struct Pieces<'a>(VecDeque<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let pieces = &mut self.get_mut().0;
        if let Some(piece) = pieces.pop_front() {
            let (now, later) = piece.split_at(piece.len().min(buffer.remaining()));
            buffer.put_slice(now);
            if !later.is_empty() {
                pieces.push_front(later);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn cut<'a>(mut sent: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let length = cuts.next().map_or(1, |cut| usize::from(*cut % 32) + 1);
        let (piece, rest) = sent.split_at(length.min(sent.len()));
        sent = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

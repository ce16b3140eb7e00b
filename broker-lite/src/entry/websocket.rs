//! MQTT over WebSocket: a stream of bytes on top of another. Driver.
//!
//! ```text
//!  client ──▶ TCP, TLS or Unix ──▶ upgrade (once) ──▶ frame ──▶ connection
//! ```
//!
//! Invariant: an idle connection holds no buffer; payload is unmasked where the reader wants it; frames
//! that carry nothing come at [`IDLE_FRAMES_PER_SECOND`] on average, or the connection ends.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod upgrade;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::{
    config::Listener,
    rate::{Paced, Rate},
};
use frame::{Answer, FrameFault, FrameReader, control_frame, data_header};

/// Read of a request at once.
const REQUEST_BYTES: usize = 1_024;

/// Frames without a byte of MQTT that a client may send in a second; pings come every few.
const IDLE_FRAMES_PER_SECOND: u64 = 10;

/// What of these may come at once after a silence: as much as in this time.
const IDLE_FRAMES_BURST: Duration = Duration::from_secs(20);

/// Status of a close that we begin: all was well (RFC 6455, 7.4.1).
const NORMAL: u16 = 1000;

/// A stream whose bytes travel in WebSocket frames.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    stream: S,
    reader: FrameReader,
    /// Of frames that carried nothing.
    idle: Option<Rate>,
    /// Header of the frame that is being written, and from where.
    header: [u8; 10],
    header_at: u8,
    header_end: u8,
    /// Payload bytes that its header has announced and that are not written.
    announced: usize,
    /// A control frame, to be written between two others.
    control: Vec<u8>,
    control_unflushed: bool,
    shut: bool,
}

/// Answers the request that opens a WebSocket; `Err` says why it was not granted.
pub(crate) async fn upgrade<S>(mut stream: S, listener: &Listener) -> Result<WebSocket<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let lost = |error: io::Error| format!("the connection was lost before the upgrade: {error}");
    let path = listener.websocket.as_deref().unwrap_or("/");
    let mut request = Vec::with_capacity(REQUEST_BYTES);
    loop {
        let mut part = [0; REQUEST_BYTES];
        let room = REQUEST_BYTES.min(upgrade::REQUEST_MAX - request.len());
        let count = stream.read(&mut part[..room]).await.map_err(lost)?;
        if count == 0 {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        request.extend_from_slice(&part[..count]);
        match upgrade::answer(&request, path, &listener.websocket_origins) {
            Ok(None) => {}
            Ok(Some(granted)) => {
                stream.write_all(&granted).await.map_err(lost)?;
                stream.flush().await.map_err(lost)?;
                return Ok(WebSocket::new(stream));
            }
            Err(refused) => {
                stream.write_all(&refused.answer()).await.map_err(lost)?;
                stream.shutdown().await.map_err(lost)?;
                return Err(format!("no WebSocket: {}", refused.why));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    fn new(stream: S) -> WebSocket<S> {
        WebSocket {
            stream,
            reader: FrameReader::default(),
            idle: None,
            header: [0; 10],
            header_at: 0,
            header_end: 0,
            announced: 0,
            control: Vec::new(),
            control_unflushed: false,
            shut: false,
        }
    }

    /// Writes what waits of a control frame, as soon as no other frame is under way.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.announced > 0 {
            return Poll::Ready(Ok(()));
        }
        while !self.control.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.control))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.control.drain(..written);
            self.control_unflushed = true;
        }
        self.control = Vec::new();
        if self.control_unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.control_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Puts an answer in line; one that is half written comes first, and a client that pings
    /// faster than it reads gets no more than that.
    fn answer(&mut self, answer: &Answer) {
        if self.control.is_empty() && !self.shut {
            self.control = control_frame(answer);
        }
    }

    /// Counts the frames that carried nothing.
    fn pace(&mut self) -> Result<(), FrameFault> {
        let count = self.reader.take_idle();
        if count == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let cost = Rate::time_for(count.into(), IDLE_FRAMES_PER_SECOND);
        let rate = self.idle.get_or_insert_with(|| Rate::new(now));
        match rate.take(cost, IDLE_FRAMES_BURST, now) {
            Paced::Within => Ok(()),
            Paced::TooFast { .. } => Err(FrameFault::Idle),
        }
    }

    /// Decodes what was read behind `before`; says whether data came, or the stream ended.
    fn decode(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> io::Result<bool> {
        let read = &mut buffer.filled_mut()[before..];
        if read.is_empty() {
            return Ok(true);
        }
        let decoded = self.reader.decode(read);
        let decoded = decoded.and_then(|count| self.pace().map(|()| count));
        if let Err(fault) = &decoded {
            self.answer(&Answer::Close(Some(fault.code())));
        }
        if let Some(answer) = self.reader.take_answer() {
            self.answer(&answer);
        }
        let count = decoded.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        buffer.set_filled(before + count);
        Ok(count > 0 || self.reader.is_closed())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        loop {
            // It registers for a wake-up where it cannot go on, and reading does not wait for it.
            let wrote = this.poll_control(cx)?;
            if this.reader.is_closed() {
                return Poll::Ready(Ok(()));
            }
            if wrote.is_pending() && !this.control.is_empty() {
                // Nothing more is read from a client that does not take its answers.
                return Poll::Pending;
            }
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let decoded = this.decode(buffer, before);
            // The last chance to say why it ends.
            let _unsaid = this.poll_control(cx)?;
            if decoded? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    /// Begins a frame of all that is given, or goes on with the one begun: its bytes must be
    /// given again until they are taken.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.announced == 0 {
            ready!(this.poll_control(cx))?;
            let (header, size) = data_header(bytes.len());
            (this.header, this.header_at) = (header, 0);
            this.header_end = u8::try_from(size).unwrap_or(0);
            this.announced = bytes.len();
        }
        let bytes = &bytes[..bytes.len().min(this.announced)];
        loop {
            let header = &this.header[usize::from(this.header_at)..usize::from(this.header_end)];
            let header_left = header.len();
            let parts = [IoSlice::new(header), IoSlice::new(bytes)];
            let stream = Pin::new(&mut this.stream);
            let written = if header_left == 0 {
                ready!(stream.poll_write(cx, bytes))?
            } else {
                ready!(stream.poll_write_vectored(cx, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            let of_header = written.min(header_left);
            this.header_at += u8::try_from(of_header).unwrap_or(0);
            let of_payload = written - of_header;
            if of_payload > 0 {
                this.announced -= of_payload;
                return Poll::Ready(Ok(of_payload));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    /// Says good-bye, then closes our direction.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            this.answer(&Answer::Close(Some(NORMAL)));
            this.shut = true;
        }
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

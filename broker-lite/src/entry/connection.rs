//! One client's byte stream: reads packets in batches, writes what the core has for it. Driver.
//!
//! Invariant: an idle connection holds no buffer, and a stalled one at most what the core lets it
//! accumulate.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use crate::{
    broker::{ConnectionId, Core},
    entry::call::Call,
    packet::{self, DecodeError, Expect, Packet, Version},
    shared::Shared,
};

/// Read at once; a larger packet takes several reads.
const READ_BYTES: usize = 16 * 1024;

/// Packets handled in one visit to the core, during which all others wait.
const BATCH_MAX: usize = 64;

/// A closing connection gets this long to take its last bytes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What the stream has to offer.
enum Progress {
    Read(usize),
    Wrote(usize),
    Flushed,
    /// The core has something for this connection, or reads on.
    Called,
}

/// How a visit to the core ended.
enum Visit {
    Done,
    /// Packets wait that the core would take.
    MoreToHandle,
    /// The connection is to be closed once its bytes are written.
    Closing,
    /// It is to be closed at once.
    Abandoned,
}

/// A connection's stream, with what has come in and is to go out.
pub(crate) struct Wire<S> {
    shared: Arc<Shared>,
    call: Arc<Call>,
    stream: S,
    connection: ConnectionId,
    /// Bytes of a packet whose rest has not come.
    input: BytesMut,
    /// Decoded, but not taken by the core yet.
    waiting: VecDeque<Packet>,
    /// What ends the stream once everything before it is handled.
    fault: Option<DecodeError>,
    output: BytesMut,
    unflushed: bool,
    version: Option<Version>,
    packet_size: u32,
    /// The core takes no more for now.
    paused: bool,
    /// Bytes that wait decoded, about.
    waiting_bytes: u32,
    /// Read since the last visit to the core.
    read: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        call: Arc<Call>,
        stream: S,
        connection: ConnectionId,
    ) -> Wire<S> {
        let packet_size = shared.lock().core.packet_size();
        Wire {
            shared,
            call,
            stream,
            connection,
            input: BytesMut::new(),
            waiting: VecDeque::new(),
            fault: None,
            output: BytesMut::new(),
            unflushed: false,
            version: None,
            packet_size: u32::try_from(packet_size).unwrap_or(u32::MAX),
            paused: false,
            waiting_bytes: 0,
            read: 0,
        }
    }

    /// Serves the stream until either side closes it. The caller reports the end to the core.
    pub(crate) async fn serve(&mut self) {
        if self.exchange().await {
            // Whoever does not take his last bytes in time loses them. Boxed, because nobody
            // needs the room for it before.
            let _late = Box::pin(timeout(CLOSE_PATIENCE, self.finish())).await;
        }
    }

    /// Closes the stream; whom to tell of which connection's end.
    pub(crate) fn end(self) -> (Arc<Shared>, ConnectionId) {
        (self.shared, self.connection)
    }

    /// Moves bytes both ways; true when the core wants the connection closed.
    async fn exchange(&mut self) -> bool {
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Ok(Progress::Read(0)) => return false,
                Err(error) => {
                    if error.kind() == io::ErrorKind::InvalidData {
                        let why = error.to_string();
                        let connection = self.connection;
                        self.shared
                            .visit(|core, _now| core.handle_garbled(connection, why));
                    }
                    return false;
                }
                Ok(Progress::Read(count)) => {
                    self.read += count;
                    self.decode();
                }
                Ok(Progress::Wrote(count)) => {
                    self.output.advance(count);
                    self.unflushed = true;
                    if !self.output.is_empty() {
                        continue;
                    }
                    self.output = BytesMut::new();
                }
                Ok(Progress::Flushed) => {
                    self.unflushed = false;
                    continue;
                }
                Ok(Progress::Called) => {}
            }
            loop {
                match self.consult() {
                    Visit::Done => break,
                    Visit::MoreToHandle => tokio::task::yield_now().await,
                    Visit::Closing => return true,
                    Visit::Abandoned => return false,
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Progress>> {
        if !self.output.is_empty() {
            if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, &self.output) {
                return Poll::Ready(written.and_then(|count| match count {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    count => Ok(Progress::Wrote(count)),
                }));
            }
        } else if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            return Poll::Ready(flushed.map(|()| Progress::Flushed));
        }
        if !self.paused
            && let Poll::Ready(read) = self.poll_read(cx)
        {
            return Poll::Ready(read.map(Progress::Read));
        }
        self.call.poll(cx).map(|()| Ok(Progress::Called))
    }

    /// Reads by way of the stack, so that a connection that waits holds no buffer.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        read.map_ok(|()| {
            self.input.extend_from_slice(buffer.filled());
            buffer.filled().len()
        })
    }

    /// Decodes what is complete, up to a batch.
    fn decode(&mut self) {
        let before = self.input.len();
        while self.fault.is_none() && self.waiting.len() < BATCH_MAX {
            let expect = match self.version {
                Some(version) => Expect::from_client(version, self.packet_size as usize),
                None => Expect::connect(self.packet_size as usize),
            };
            match packet::decode(&mut self.input, expect) {
                Ok(Some(packet)) => {
                    if let Packet::Connect(connect) = &packet {
                        self.version = Some(connect.version);
                    }
                    self.waiting.push_back(packet);
                }
                Ok(None) => break,
                Err(error) => self.fault = Some(error),
            }
        }
        let decoded = u32::try_from(before - self.input.len()).unwrap_or(u32::MAX);
        self.waiting_bytes = self.waiting_bytes.saturating_add(decoded);
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Bytes that its buffers occupy.
    fn buffered(&self) -> usize {
        self.input.capacity() + self.output.capacity() + self.waiting_bytes as usize
    }

    /// One visit to the core: hands over packets, takes bytes.
    fn consult(&mut self) -> Visit {
        if self.waiting.is_empty() {
            self.decode();
        }
        let shared = Arc::clone(&self.shared);
        let mut locked = shared.lock();
        let now = Instant::now();
        locked
            .core
            .handle_read(self.connection, std::mem::take(&mut self.read), now);
        self.hand_over(&mut locked.core, now);
        if self.waiting.is_empty() {
            self.waiting_bytes = 0;
        }
        locked
            .core
            .handle_buffered(self.connection, self.buffered(), now);
        let closing = locked.core.is_closing(self.connection);
        let abandoned = locked.core.is_abandoned(self.connection);
        if self.output.is_empty() {
            self.output = locked.core.take_bytes(self.connection, now);
        } else if closing {
            self.output
                .unsplit(locked.core.take_bytes(self.connection, now));
        }
        shared.drain(&mut locked, Some(self.connection), now);
        drop(locked);
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
            self.decode();
        }
        let nothing_left = self.waiting.is_empty() && self.fault.is_none();
        if abandoned {
            Visit::Abandoned
        } else if closing {
            Visit::Closing
        } else if self.paused || nothing_left {
            Visit::Done
        } else {
            Visit::MoreToHandle
        }
    }

    /// Gives the core what it takes of a batch, so that others get their turn at the lock.
    fn hand_over(&mut self, core: &mut Core, now: Instant) {
        for _ in 0..BATCH_MAX {
            let unread = |packet| core.leaves_unread(self.connection, packet, now);
            self.paused =
                self.waiting.front().is_some_and(unread) || !core.accepts(self.connection, now);
            if self.paused {
                return;
            }
            if let Some(packet) = self.waiting.pop_front() {
                core.handle_packet(self.connection, packet, now);
            } else if let Some(error) = self.fault.take() {
                core.handle_malformed(self.connection, &error, now);
            } else {
                return;
            }
        }
    }

    /// Writes the last bytes and waits for the client to close, for a socket that is closed with
    /// unread input would take the last bytes back.
    async fn finish(&mut self) -> io::Result<()> {
        self.input = BytesMut::new();
        self.stream.write_all_buf(&mut self.output).await?;
        self.stream.shutdown().await?;
        loop {
            let count = poll_fn(|cx| self.poll_read(cx)).await?;
            self.input.clear();
            if count == 0 {
                return Ok(());
            }
        }
    }
}

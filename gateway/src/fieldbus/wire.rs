//! The bytes' way out: a serial port or a TCP connection, drained where stale bytes could pass for
//! an answer. Driver.
//!
//! Invariant: a request leaves only after what came before it was read and thrown away.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

pub(crate) mod line_rate;
pub(crate) mod port;
pub(crate) mod tap;

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_serial::SerialStream;

use crate::config::{Bus, Parity};

use port::{LineSettings, PortError};
use tap::{Tap, What};

/// How long a device may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A line that is not silent after this long is not usable: something babbles on it.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// More bytes than any late answer has: what sends so many does not stop.
const DISCARD_MAX: usize = 64 * 1024;
/// Bytes thrown away at a time.
const DRAIN_CHUNK: usize = 256;

/// Why a wire cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The port cannot be opened.
    #[error(transparent)]
    Open(#[from] PortError),
    /// The connection cannot be made.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `HOST:PORT`.
        address: String,
        /// As the system says.
        source: io::Error,
    },
    /// Neither a port nor an address is configured.
    #[error("bus {0:?} has neither port nor tcp")]
    Nowhere(String),
    /// Somebody talks without end.
    #[error(
        "the line is not silent after {DRAIN_MAX:?}: is another client on it, or is the rate wrong?"
    )]
    Babble,
    /// The other end is gone.
    #[error("the connection was closed by the other end")]
    Closed,
    /// Reading fails.
    #[error("reading from the wire failed: {0}")]
    Read(#[source] io::Error),
}

/// A serial port or a TCP connection; clones are the same wire.
#[derive(Debug, Clone)]
pub(crate) struct Wire(Arc<Mutex<Medium>>, Tap);

#[derive(Debug)]
enum Medium {
    Serial(SerialStream),
    Tcp(TcpStream),
}

impl Wire {
    /// Opens the port or the connection that a bus is configured for; needs a tokio runtime.
    pub(crate) async fn open(bus: &Bus, tap: &Tap) -> Result<Wire, WireError> {
        let medium = match (&bus.port, &bus.tcp) {
            (Some(port), _) => Medium::Serial(open_serial(bus, port)?),
            (None, Some(address)) => Medium::Tcp(connect(address).await?),
            (None, None) => return Err(WireError::Nowhere(bus.name.clone())),
        };
        Ok(Wire(Arc::new(Mutex::new(medium)), tap.clone()))
    }

    /// Throws away what has arrived unasked, without waiting.
    pub(crate) async fn discard(&self) -> Result<usize, WireError> {
        let mut discarded = 0;
        while let Some(bytes) = self.read_arrived().await? {
            discarded += bytes;
            if discarded > DISCARD_MAX {
                return Err(WireError::Babble);
            }
        }
        Ok(discarded)
    }

    /// Throws away what arrives until nothing has come for `quiet`.
    pub(crate) async fn drain(&self, quiet: Duration) -> Result<usize, WireError> {
        let give_up_at = Instant::now() + DRAIN_MAX;
        let mut discarded = 0;
        while let Ok(read) = timeout(quiet, self.read_some()).await {
            discarded += read?;
            if Instant::now() >= give_up_at {
                return Err(WireError::Babble);
            }
        }
        Ok(discarded)
    }

    /// Reads what is there; `None` if nothing is.
    async fn read_arrived(&self) -> Result<Option<usize>, WireError> {
        let mut chunk = [0; DRAIN_CHUNK];
        std::future::poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut chunk);
            let read = Pin::new(&mut self.clone()).poll_read(context, &mut buffer);
            Poll::Ready(match read {
                Poll::Pending => Ok(None),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(WireError::Closed),
                Poll::Ready(Ok(())) => Ok(Some(buffer.filled().len())),
                Poll::Ready(Err(error)) => Err(WireError::Read(error)),
            })
        })
        .await
    }

    /// Waits for bytes and reads them.
    async fn read_some(&self) -> Result<usize, WireError> {
        let mut chunk = [0; DRAIN_CHUNK];
        let mut wire = self.clone();
        match tokio::io::AsyncReadExt::read(&mut wire, &mut chunk).await {
            Ok(0) => Err(WireError::Closed),
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(WireError::Read(error)),
        }
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        // One task uses a wire, so the lock is never contended; it lets a Modbus context, which
        // wants to own its transport, go without the port being closed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut *self.medium() {
            Medium::Serial(port) => Pin::new(port).poll_read(context, buffer),
            Medium::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let received = &buffer.filled()[before..];
        self.1.tell(What::Answer, received, Instant::now());
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut *self.medium() {
            Medium::Serial(port) => Pin::new(port).poll_write(context, bytes),
            Medium::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        if let Poll::Ready(Ok(count)) = written {
            self.1.tell(What::Request, &bytes[..count], Instant::now());
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.medium() {
            // tcdrain would block the runtime; the answer shows that the request went out.
            Medium::Serial(_) => Poll::Ready(Ok(())),
            Medium::Tcp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.medium() {
            Medium::Serial(_) => Poll::Ready(Ok(())),
            Medium::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

fn open_serial(bus: &Bus, path: &Path) -> Result<SerialStream, PortError> {
    let default_stop_bits = if bus.parity == Parity::None { 2 } else { 1 };
    let line = LineSettings {
        baud: bus.baud,
        parity: bus.parity,
        data_bits: 8,
        stop_bits: bus.stop_bits.unwrap_or(default_stop_bits),
    };
    port::open(path, line)
}

async fn connect(address: &str) -> Result<TcpStream, WireError> {
    let failed = |source| WireError::Connect {
        address: address.to_owned(),
        source,
    };
    let late = io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer in {CONNECT_TIMEOUT:?}"),
    );
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| failed(late))?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

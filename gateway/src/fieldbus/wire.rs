//! The bytes' way out: a serial port, a TCP connection, or TLS on one. Driver.
//!
//! Invariant: a wire belongs to who opened it; nobody else reads from it.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

pub(crate) mod line_rate;
pub(crate) mod pause;
pub(crate) mod port;
pub(crate) mod rs485;
pub(crate) mod tap;
pub(crate) mod tls;
pub(crate) mod usb;

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tokio_serial::SerialStream;

use crate::config::Bus;

use port::{LineSettings, PortError};
use tls::TlsError;

/// How long a device may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A line that is not silent after this long is not usable: something babbles on it.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// More bytes than any late answer has: what sends so many does not stop.
const STRAY_MAX: usize = 64 * 1024;
/// Bytes read at a time where they are thrown away.
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
    /// The connection is there and TLS on it is not.
    #[error("cannot set up TLS with {address}: {source}")]
    Tls {
        /// `HOST:PORT`.
        address: String,
        /// Whose fault it is.
        source: TlsError,
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
    /// Writing fails.
    #[error("writing to the wire failed: {0}")]
    Write(#[source] io::Error),
    /// A request does not leave.
    #[error("the wire takes no more bytes")]
    Stuck,
    /// The system has no timer left.
    #[error("cannot get a timer: {0}")]
    Timer(#[source] io::Error),
}

/// A serial port, a TCP connection or TLS on one.
#[derive(Debug)]
pub(crate) enum Wire {
    Serial(SerialStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Opens the port or the connection that a bus is configured for; needs a tokio runtime.
    pub(crate) async fn open(bus: &Bus) -> Result<Wire, WireError> {
        match (&bus.port, &bus.address()) {
            (Some(port), _) => Ok(Wire::Serial(open_serial(bus, port)?)),
            (None, Some(address)) => connect(bus, address).await,
            (None, None) => Err(WireError::Nowhere(bus.name.clone())),
        }
    }

    /// What has arrived unasked, without waiting.
    pub(crate) async fn arrived(&mut self) -> Result<Vec<u8>, WireError> {
        let mut arrived = Vec::new();
        let mut chunk = [0; DRAIN_CHUNK];
        while let Some(bytes) = self.poll_once(&mut chunk).await? {
            arrived.extend_from_slice(&chunk[..bytes]);
            if arrived.len() > STRAY_MAX {
                return Err(WireError::Babble);
            }
        }
        Ok(arrived)
    }

    /// What arrives until nothing has come for `quiet`.
    pub(crate) async fn drain(&mut self, quiet: Duration) -> Result<Vec<u8>, WireError> {
        let give_up_at = Instant::now() + DRAIN_MAX;
        let mut drained = Vec::new();
        let mut chunk = [0; DRAIN_CHUNK];
        while let Ok(read) = timeout(quiet, self.read_some(&mut chunk)).await {
            drained.extend_from_slice(&chunk[..read?]);
            if Instant::now() >= give_up_at || drained.len() > STRAY_MAX {
                return Err(WireError::Babble);
            }
        }
        Ok(drained)
    }

    /// Waits for bytes and reads them; safe to be dropped half-way.
    pub(crate) async fn read_some(&mut self, chunk: &mut [u8]) -> Result<usize, WireError> {
        match self.read(chunk).await {
            Ok(0) => Err(WireError::Closed),
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(self.read_error(error)),
        }
    }

    fn read_error(&self, error: io::Error) -> WireError {
        match (self, tls::failure(&error)) {
            (Wire::Tls(stream), Some(source)) => WireError::Tls {
                address: tls::peer(stream),
                source,
            },
            _ => WireError::Read(error),
        }
    }

    /// Reads what is there; `None` if nothing is.
    async fn poll_once(&mut self, chunk: &mut [u8]) -> Result<Option<usize>, WireError> {
        std::future::poll_fn(|context| {
            let mut buffer = ReadBuf::new(chunk);
            let read = Pin::new(&mut *self).poll_read(context, &mut buffer);
            Poll::Ready(match read {
                Poll::Pending => Ok(None),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(WireError::Closed),
                Poll::Ready(Ok(())) => Ok(Some(buffer.filled().len())),
                Poll::Ready(Err(error)) => Err(self.read_error(error)),
            })
        })
        .await
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Serial(port) => Pin::new(port).poll_read(context, buffer),
            Wire::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Serial(port) => Pin::new(port).poll_write(context, bytes),
            Wire::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // tcdrain would block the runtime; the answer shows that the request went out.
            Wire::Serial(_) => Poll::Ready(Ok(())),
            Wire::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Serial(_) => Poll::Ready(Ok(())),
            Wire::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

fn open_serial(bus: &Bus, path: &Path) -> Result<SerialStream, PortError> {
    let line = LineSettings {
        baud: bus.baud,
        parity: bus.parity,
        data_bits: 8,
        stop_bits: bus.stop_bits.unwrap_or(bus.parity.usual_stop_bits()),
        rs485: bus.rs485,
    };
    port::open(path, line)
}

async fn connect(bus: &Bus, address: &str) -> Result<Wire, WireError> {
    let late = io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer in {CONNECT_TIMEOUT:?}"),
    );
    let failed = |source| WireError::Connect {
        address: address.to_owned(),
        source,
    };
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| failed(late))?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let Some(settings) = &bus.tls else {
        return Ok(Wire::Tcp(stream));
    };
    match tls::connect(stream, address, settings).await {
        Ok(stream) => Ok(Wire::Tls(Box::new(stream))),
        Err(source) => Err(WireError::Tls {
            address: address.to_owned(),
            source,
        }),
    }
}

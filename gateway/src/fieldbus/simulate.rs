//! Simulated Modbus devices, on a pseudo-terminal and over TCP, with faults on demand. Driver.
//!
//! The framing is written here a second time on purpose: a device that shared the client's
//! library would share its mistakes.
//!
//! Invariant: a device answers only whole requests with a right checksum, as a real one does.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod instrument;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_serial::{SerialPort, SerialStream};
use tokio_util::sync::CancellationToken;

use crate::config::Framing;

pub use instrument::{Instrument, Kind};

/// The longest request on a serial line (Modbus over serial line 2.5.1).
const FRAME_MAX: usize = 256;
/// Bytes of an MBAP header with the unit (Modbus messaging on TCP/IP 3.1.3).
const MBAP_HEADER: usize = 7;
/// What the device takes for itself before it answers.
const TURNAROUND: Duration = Duration::from_millis(2);
/// How often a pseudo-terminal that nobody has open is looked at.
const HUNG_UP: Duration = Duration::from_millis(20);

/// How a simulated device misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// It does not answer at all.
    pub silent: bool,
    /// It answers so much later than usual.
    pub late: Duration,
}

/// A simulated device; clones are the same device.
#[derive(Debug, Clone)]
pub struct Device(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    instrument: Instrument,
    faults: Faults,
    started: Instant,
    requests: Vec<Vec<u8>>,
}

/// Requests that a device remembers for tests.
const REQUESTS_KEPT: usize = 10_000;

impl Device {
    /// A device of this kind that answers to one unit identifier.
    pub fn new(kind: Kind, unit: u8) -> Device {
        Device(Arc::new(Mutex::new(State {
            instrument: Instrument::new(kind, unit),
            faults: Faults::default(),
            started: Instant::now(),
            requests: Vec::new(),
        })))
    }

    /// Makes it misbehave, or behave again.
    pub fn misbehave(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// A holding register as it is now.
    pub fn holding(&self, address: u16) -> Option<u16> {
        self.state().instrument.holding(address)
    }

    /// The requests that it got, as protocol data units, the latest 10,000.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.state().requests.clone()
    }

    /// The answer to a request, after the time that the device takes for it.
    async fn answer(&self, unit: u8, pdu: &[u8]) -> Option<Vec<u8>> {
        let (answer, faults) = {
            let mut state = self.state();
            if unit != state.instrument.unit() {
                return None;
            }
            if state.requests.len() >= REQUESTS_KEPT {
                state.requests.remove(0);
            }
            state.requests.push(pdu.to_vec());
            let seconds = state.started.elapsed().as_secs_f64();
            (state.instrument.answer(pdu, seconds), state.faults)
        };
        sleep(TURNAROUND + faults.late).await;
        (!faults.silent).then_some(answer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts devices on one serial line and answers with its port; needs a tokio runtime.
///
/// # Errors
/// The machine has no pseudo-terminal left.
pub fn on_serial(devices: Vec<Device>, cancel: CancellationToken) -> io::Result<PathBuf> {
    // The far end is not kept open: a client wants to lock it for itself.
    let (mut wire, far) = SerialStream::pair()?;
    let path = far.name().ok_or(io::ErrorKind::NotFound)?.into();
    tokio::spawn(async move {
        let serve = async {
            loop {
                serve_rtu(&mut wire, &devices).await;
                sleep(HUNG_UP).await;
            }
        };
        cancel.run_until_cancelled(serve).await
    });
    Ok(path)
}

/// Puts devices behind one Modbus TCP address of this machine and answers with it.
///
/// # Errors
/// No port is free.
pub async fn on_tcp(devices: Vec<Device>, cancel: CancellationToken) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    serve_tcp(listener, Framing::Tcp, devices, cancel);
    Ok(address)
}

/// Puts devices behind a listener; needs a tokio runtime.
pub fn serve_tcp(
    listener: TcpListener,
    framing: Framing,
    devices: Vec<Device>,
    cancel: CancellationToken,
) {
    let devices: Arc<[Device]> = devices.into();
    tokio::spawn(async move {
        while let Some(Ok((stream, _))) = cancel.run_until_cancelled(listener.accept()).await {
            let (devices, cancel) = (Arc::clone(&devices), cancel.clone());
            tokio::spawn(async move {
                let serve = async {
                    match framing {
                        Framing::Tcp => serve_mbap(stream, &devices).await,
                        Framing::Rtu => serve_rtu(stream, &devices).await,
                    }
                };
                cancel.run_until_cancelled(serve).await
            });
        }
    });
}

/// Answers RTU requests until the wire ends.
async fn serve_rtu(mut wire: impl AsyncRead + AsyncWrite + Unpin, devices: &[Device]) {
    let mut received = Vec::with_capacity(FRAME_MAX);
    let mut chunk = [0; FRAME_MAX];
    while let Ok(bytes @ 1..) = wire.read(&mut chunk).await {
        received.extend_from_slice(&chunk[..bytes]);
        while let Some(length) = rtu_request_length(&received) {
            if received.len() < length {
                break;
            }
            let frame: Vec<u8> = received.drain(..length).collect();
            if let Some(answer) = rtu_answer(&frame, devices).await
                && wire.write_all(&answer).await.is_err()
            {
                return;
            }
        }
        if received.len() > FRAME_MAX {
            received.clear();
        }
    }
}

async fn rtu_answer(frame: &[u8], devices: &[Device]) -> Option<Vec<u8>> {
    let (body, checksum) = frame.split_at_checked(frame.len().checked_sub(2)?)?;
    if checksum != crc(body).to_le_bytes() {
        return None;
    }
    let (unit, pdu) = body.split_first()?;
    let pdu = answer_of(devices, *unit, pdu).await?;
    let mut answer = vec![*unit];
    answer.extend(pdu);
    answer.extend(crc(&answer).to_le_bytes());
    Some(answer)
}

/// Answers requests with MBAP headers until the connection ends.
async fn serve_mbap(mut stream: TcpStream, devices: &[Device]) {
    let mut header = [0; MBAP_HEADER];
    while stream.read_exact(&mut header).await.is_ok() {
        let [t1, t2, _, _, high, low, unit] = header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let mut pdu = vec![0; length.saturating_sub(1).min(FRAME_MAX)];
        if stream.read_exact(&mut pdu).await.is_err() {
            return;
        }
        let Some(answer) = answer_of(devices, unit, &pdu).await else {
            continue;
        };
        let length = u16::try_from(answer.len() + 1).unwrap_or(u16::MAX);
        let [high, low] = length.to_be_bytes();
        let mut frame = vec![t1, t2, 0, 0, high, low, unit];
        frame.extend(answer);
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn answer_of(devices: &[Device], unit: u8, pdu: &[u8]) -> Option<Vec<u8>> {
    for device in devices {
        if let Some(answer) = device.answer(unit, pdu).await {
            return Some(answer);
        }
    }
    None
}

/// Bytes of the request that begins here, checksum included, once that can be told.
fn rtu_request_length(received: &[u8]) -> Option<usize> {
    match received.get(1)? {
        0x0f | 0x10 => Some(9 + usize::from(*received.get(6)?)),
        0x16 => Some(10),
        _ => Some(8),
    }
}

/// CRC-16/MODBUS (Modbus over serial line 6.2.2).
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc: u16, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xa001
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        assert_eq!(crc(b"123456789"), 0x4b37);
        assert_eq!(crc(&[0x02, 0x07]), 0x1241);
    }

    #[tokio::test]
    async fn a_frame_with_a_wrong_checksum_or_another_unit_gets_no_answer() {
        let devices = [Device::new(Kind::Meter, 1)];
        let sealed = |unit: u8| {
            let mut frame = vec![unit, 0x04, 0, 0, 0, 2];
            frame.extend(crc(&frame).to_le_bytes());
            frame
        };
        assert!(rtu_answer(&sealed(1), &devices).await.is_some());
        assert_eq!(rtu_answer(&sealed(2), &devices).await, None);
        let mut broken = sealed(1);
        broken[7] ^= 1;
        assert_eq!(rtu_answer(&broken, &devices).await, None);
    }
}

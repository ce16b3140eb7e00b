//! Carries one command to a TPM and its answer back. Driver.
//!
//! Invariant: an answer is at most `RESPONSE_MAX` bytes and as long as it says; waiting ends with the patience given.

#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::{
        fd::AsFd,
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    time::{Duration, Instant},
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    address::Address,
    error::{Error, Result},
    wire::{HEADER, RESPONSE_MAX},
};

/// How long a simulator may take to accept.
const CONNECT: Duration = Duration::from_secs(5);

/// A way to a TPM.
pub trait Transport: Send {
    /// Sends `command` and returns the whole answer.
    ///
    /// # Errors
    /// The system's; `TimedOut` when there is no answer within `patience`. After an error the transport is of no
    /// further use.
    fn exchange(&mut self, command: &[u8], patience: Duration) -> io::Result<Vec<u8>>;

    /// Whether sessions and keys of earlier users may be left in the TPM: no resource manager stands between.
    fn is_raw(&self) -> bool;
}

/// Opens the TPM at `address`.
///
/// # Errors
/// [`Error::Open`].
pub fn open(address: &Address) -> Result<Box<dyn Transport>> {
    connect(address).map_err(|source| Error::Open {
        address: address.to_string(),
        source,
    })
}

fn connect(address: &Address) -> io::Result<Box<dyn Transport>> {
    Ok(match address {
        Address::Device(path) => {
            // Not blocking: a write returns at once, and the answer is waited for with a limit (Linux 5.1 and later).
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(OFlag::O_NONBLOCK.bits() | OFlag::O_CLOEXEC.bits())
                .open(path)?;
            let raw = !path.to_string_lossy().contains("tpmrm");
            Box::new(Device { file, raw })
        }
        Address::Tcp(peer) => {
            let peer = peer.to_socket_addrs()?.next().ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "the name has no address")
            })?;
            let stream = TcpStream::connect_timeout(&peer, CONNECT)?;
            stream.set_nodelay(true)?;
            Box::new(Socket(stream))
        }
        Address::Unix(path) => Box::new(Socket(UnixStream::connect(path)?)),
    })
}

/// A device file of the kernel: one write, one read.
struct Device {
    file: File,
    raw: bool,
}

impl Transport for Device {
    fn exchange(&mut self, command: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
        // The kernel takes a command as a whole or not at all.
        let written = self.file.write(command)?;
        if written != command.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        await_readable(&self.file, patience)?;
        let mut answer = vec![0; RESPONSE_MAX];
        let length = self.file.read(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }

    fn is_raw(&self) -> bool {
        self.raw
    }
}

fn await_readable(file: &File, patience: Duration) -> io::Result<()> {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A stream whose reads and writes end in time.
trait Timed: Read + Write + Send {
    fn set_patience(&self, patience: Duration) -> io::Result<()>;
}

impl Timed for TcpStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

impl Timed for UnixStream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }
}

/// A simulator's data channel: bare commands and answers, one after another.
struct Socket<S>(S);

impl<S: Timed> Transport for Socket<S> {
    fn exchange(&mut self, command: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
        let end = Instant::now() + patience;
        self.0.set_patience(patience)?;
        self.0.write_all(command)?;
        let mut answer = vec![0; HEADER];
        self.fill(&mut answer, end)?;
        let size = [answer[2], answer[3], answer[4], answer[5]];
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        if !(HEADER..=RESPONSE_MAX).contains(&size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("an answer of {size} bytes"),
            ));
        }
        answer.resize(size, 0);
        self.fill(&mut answer[HEADER..], end)?;
        Ok(answer)
    }

    fn is_raw(&self) -> bool {
        true
    }
}

impl<S: Timed> Socket<S> {
    fn fill(&mut self, mut buffer: &mut [u8], end: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.0.set_patience(left)?;
            match self.0.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

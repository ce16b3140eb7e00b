//! A pseudo-terminal as a serial line's near end. Driver.
//!
//! Invariant: bytes that nobody has read are not for the next one who opens the far end.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::openpty,
    sys::termios::{self, FlushArg, SetArg},
    unistd::ttyname,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    time::sleep,
};

/// How often a far end that nobody has open is looked at.
const CLOSED_POLL: Duration = Duration::from_millis(20);

/// The near end; the far one goes with it.
#[derive(Debug)]
pub(super) struct Terminal {
    near: File,
    path: PathBuf,
}

impl Terminal {
    /// Lays a line that passes every byte.
    ///
    /// # Errors
    /// The machine has no pseudo-terminal left.
    pub(super) fn lay() -> io::Result<Terminal> {
        let ends = openpty(None, None)?;
        let mut settings = termios::tcgetattr(&ends.slave)?;
        termios::cfmakeraw(&mut settings);
        termios::tcsetattr(&ends.slave, SetArg::TCSANOW, &settings)?;
        // The far end is not kept open: a client wants to lock it for itself.
        let path = ttyname(&ends.slave)?;
        let near = File::from(ends.master);
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&near, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        Ok(Terminal { near, path })
    }

    /// Where the far end is.
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Waits until somebody opens the far end; the stream ends when nobody has it open any more.
    ///
    /// # Errors
    /// The system refuses to watch it.
    pub(super) async fn opened(&self) -> io::Result<Stream> {
        if self.is_closed()? {
            let _flushed = termios::tcflush(&self.near, FlushArg::TCIOFLUSH);
        }
        while self.is_closed()? {
            sleep(CLOSED_POLL).await;
        }
        // Registered anew each time: the reactor remembers a hang-up for ever.
        #[expect(
            deprecated,
            reason = "its successor is unsafe; for a file, whose descriptor stays, this is sound"
        )]
        let watched = AsyncFd::new(self.near.try_clone()?)?;
        Ok(Stream(watched))
    }

    fn is_closed(&self) -> io::Result<bool> {
        let mut watched = [PollFd::new(self.near.as_fd(), PollFlags::empty())];
        poll(&mut watched, PollTimeout::ZERO)?;
        let events = watched[0].revents().unwrap_or(PollFlags::empty());
        Ok(events.contains(PollFlags::POLLHUP))
    }
}

/// The line while somebody has its far end open.
#[derive(Debug)]
pub(super) struct Stream(AsyncFd<File>);

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|near| near.get_ref().read(unfilled)) {
                Ok(read) => return Poll::Ready(read.map(|bytes| buffer.advance(bytes))),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|near| near.get_ref().write(bytes)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

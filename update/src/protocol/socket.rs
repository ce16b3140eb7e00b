//! Carries the messages over a Unix socket. Driver.
//!
//! Invariant: nothing is read from a peer that is neither root nor one of the users allowed, no more than one
//! message from any, and nobody holds up the updater for longer than [`PATIENCE`].

use std::{
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    time::{ClockId, clock_gettime},
};

use super::{
    ANSWER_MAX, Answer, Ask, Malformed, REQUEST_MAX, Reply, Request, VERSION, decode_answer,
    decode_length, decode_request, encode,
};

/// Longest wait for the other side's bytes.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for an answer: a commit asks the TPM, and writes to slow media.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Why nobody was asked, or nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// There is nobody at the socket.
    #[error("cannot ask the updater at {path}: {source} (is gateway-updater.socket running?)")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or took too long.
    #[error("the other side of the updater's socket broke off: {0}")]
    Broken(#[from] io::Error),
    /// Not one of the messages.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Neither root nor a user that may ask.
    #[error("user {0} may not ask the updater")]
    Stranger(u32),
}

impl SocketError {
    /// Whether the updater cannot be reached, rather than answers wrongly.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, SocketError::Connect { .. } | SocketError::Broken(_))
    }
}

/// Asks the updater at `path`, and waits for its answer.
///
/// # Errors
/// Nobody answers, or not in these messages.
pub fn ask(path: &Path, ask: Ask) -> Result<Reply, SocketError> {
    let connected = UnixStream::connect(path);
    let mut stream = connected.map_err(|source| SocketError::Connect {
        path: path.to_owned(),
        source,
    })?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let version = VERSION;
    stream.write_all(&encode(&Request { version, ask }, REQUEST_MAX)?)?;
    Ok(decode_answer(&read_frame(&mut stream, ANSWER_MAX)?)?)
}

/// A peer that may ask, and what it asks.
#[derive(Debug)]
pub struct Asked {
    /// What is wanted.
    pub ask: Ask,
    stream: UnixStream,
}

impl Asked {
    /// Answers; that the peer has gone meanwhile changes nothing.
    ///
    /// # Errors
    /// The peer takes nothing, or the answer is too long.
    pub fn answer(mut self, reply: Reply) -> Result<(), SocketError> {
        let version = VERSION;
        let frame = encode(&Answer { version, reply }, ANSWER_MAX)?;
        Ok(self.stream.write_all(&frame)?)
    }
}

/// Waits for the next request. `users` may ask, and root.
///
/// # Errors
/// A stranger knocked, or the request was none: then the next is to be waited for. [`SocketError::Broken`] also
/// when the listener itself fails.
pub fn accept(listener: &UnixListener, users: &[u32]) -> Result<Asked, SocketError> {
    let (mut stream, _) = listener.accept()?;
    let peer = getsockopt(&stream, PeerCredentials).map_err(io::Error::from)?;
    if !may_ask(peer.uid(), users) {
        return Err(SocketError::Stranger(peer.uid()));
    }
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let body = read_frame(&mut Patient::new(&mut stream), REQUEST_MAX)?;
    match decode_request(&body) {
        Ok(ask) => Ok(Asked { ask, stream }),
        Err(error) => {
            let why = error.to_string();
            let security = false;
            let version = VERSION;
            let reply = Reply::Refused { why, security };
            // Who cannot be told finds out by the end of the connection.
            let _ = stream.write_all(&encode(&Answer { version, reply }, ANSWER_MAX)?);
            Err(error.into())
        }
    }
}

fn may_ask(user: u32, users: &[u32]) -> bool {
    user == 0 || users.contains(&user)
}

/// Reads within [`PATIENCE`] altogether: a peer that sends a byte now and then does not begin it anew.
struct Patient<'s> {
    stream: &'s mut UnixStream,
    ends: Duration,
}

impl Patient<'_> {
    fn new(stream: &mut UnixStream) -> Patient<'_> {
        let ends = now() + PATIENCE;
        Patient { stream, ends }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.ends.saturating_sub(now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.expect("every Linux has this clock")
}

fn read_frame(stream: &mut impl Read, max: usize) -> Result<Vec<u8>, SocketError> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let mut body = vec![0; decode_length(prefix, max)?];
    stream.read_exact(&mut body)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn listen(folder: &Path) -> (PathBuf, UnixListener) {
        let path = folder.join("updater.sock");
        let listener = UnixListener::bind(&path).unwrap();
        (path, listener)
    }

    fn own_user() -> u32 {
        nix::unistd::getuid().as_raw()
    }

    #[test]
    fn a_question_gets_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let (path, listener) = listen(folder.path());
        let asking = thread::spawn(move || ask(&path, Ask::Commit {}).unwrap());
        let asked = accept(&listener, &[own_user()]).unwrap();
        assert_eq!(asked.ask, Ask::Commit {});
        asked.answer(Reply::Done {}).unwrap();
        assert_eq!(asking.join().unwrap(), Reply::Done {});
    }

    #[test]
    fn strangers_may_not_ask() {
        assert!(may_ask(0, &[]));
        assert!(may_ask(101, &[100, 101]));
        assert!(!may_ask(102, &[100, 101]));
    }

    #[test]
    fn what_is_no_request_is_refused_in_words_and_the_next_peer_served() {
        let folder = tempfile::tempdir().unwrap();
        let (path, listener) = listen(folder.path());
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"\0\0\0\x02{}").unwrap();
        assert!(matches!(
            accept(&listener, &[own_user()]),
            Err(SocketError::Malformed(_))
        ));
        let body = read_frame(&mut stream, ANSWER_MAX).unwrap();
        let reply = decode_answer(&body).unwrap();
        assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
        a_question_gets_its_answer();
    }

    #[test]
    fn a_length_beyond_the_bound_ends_the_connection_unread() {
        let folder = tempfile::tempdir().unwrap();
        let (path, listener) = listen(folder.path());
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&[0xff; 4]).unwrap();
        let error = accept(&listener, &[own_user()]).unwrap_err();
        assert!(error.to_string().contains("allowed"), "{error}");
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn nobody_at_the_socket_is_told_with_its_path() {
        let error = ask(Path::new("/nonexistent/updater.sock"), Ask::Status {}).unwrap_err();
        assert!(error.is_unreachable());
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}

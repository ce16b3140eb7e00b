//! The control socket: one question per connection, answered in JSON, one value or one per line.
//! Driver.
//!
//! Invariant: only who may write to the socket's file may ask; what takes long never keeps others
//! from asking.

use std::{
    fs,
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Answers a question in JSON.
pub type Answerer = Arc<dyn Fn(Question<'_>) -> Answer + Send + Sync>;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The line that was sent, without its end.
    pub text: &'a str,
    /// The system's number of the user who asks, where it tells.
    pub user: Option<u32>,
}

/// What is answered.
pub enum Answer {
    /// At once.
    Now(serde_json::Value),
    /// When it is known; whoever answers bounds how long that takes.
    Later(Pin<Box<dyn Future<Output = serde_json::Value> + Send>>),
    /// One value per line, until either side closes the connection.
    Lines(mpsc::Receiver<serde_json::Value>),
}

impl From<serde_json::Value> for Answer {
    fn from(value: serde_json::Value) -> Answer {
        Answer::Now(value)
    }
}

/// Longest question, in bytes: a write of 1,968 coils is the longest that is asked.
const QUESTION_MAX: u64 = 16 * 1024;
/// Longest answer read by the client side, in bytes.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;
/// Time for one question, and for handing over what is answered.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions served at once.
const EXCHANGES_MAX: usize = 8;
/// Answers that take long, beside those.
const LONG_MAX: usize = 16;
/// Pause after a failed accept, such as no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `path` until cancelled. A socket that cannot be made is logged: the plant goes on.
pub async fn serve(path: PathBuf, answerer: Answerer, cancel: CancellationToken) {
    let listener = match bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(path = %path.display(), %error, "no control socket; nobody can ask for the status");
            return;
        }
    };
    info!(path = %path.display(), "control socket ready");
    tokio::select! {
        () = accept(listener, answerer) => {}
        () = cancel.cancelled() => {}
    }
    if let Err(error) = fs::remove_file(&path) {
        debug!(path = %path.display(), %error, "cannot remove the control socket");
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // A socket left by a process that was killed would refuse the bind; any other file stays.
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path)?,
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, answerer: Answerer) {
    let slots = Arc::new(Semaphore::new(EXCHANGES_MAX));
    let long = Arc::new(Semaphore::new(LONG_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (answerer, long) = (answerer.clone(), long.clone());
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, answerer, slot, long).await {
                        debug!(%error, "control exchange failed");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(
    stream: UnixStream,
    answerer: Answerer,
    slot: OwnedSemaphorePermit,
    long: Arc<Semaphore>,
) -> io::Result<()> {
    let user = stream.peer_cred().ok().map(|peer| peer.uid());
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(QUESTION_MAX));
    let mut text = String::new();
    within(read.read_line(&mut text)).await?;
    let text = text.trim();
    let answer = answerer(Question { text, user });
    if let Answer::Now(value) = answer {
        return tell(&mut write, &value).await;
    }
    let Ok(_long) = long.try_acquire_owned() else {
        let busy = json!({ "error": "too many long questions are being answered; try again" });
        return tell(&mut write, &busy).await;
    };
    drop(slot);
    match answer {
        Answer::Now(value) => tell(&mut write, &value).await,
        Answer::Later(value) => tell(&mut write, &value.await).await,
        Answer::Lines(lines) => {
            tokio::select! {
                told = tell_lines(&mut write, lines) => told,
                () = gone(read.into_inner().into_inner()) => Ok(()),
            }
        }
    }
}

/// Who follows sends nothing more: the end of its side is its going away.
async fn gone(mut read: OwnedReadHalf) {
    let mut more = [0; 64];
    while read.read(&mut more).await.is_ok_and(|bytes| bytes > 0) {}
}

async fn tell_lines(
    write: &mut OwnedWriteHalf,
    mut lines: mpsc::Receiver<serde_json::Value>,
) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        within(write.write_all(format!("{line}\n").as_bytes())).await?;
    }
    write.shutdown().await
}

async fn tell(write: &mut OwnedWriteHalf, value: &serde_json::Value) -> io::Result<()> {
    within(write.write_all(value.to_string().as_bytes())).await?;
    write.shutdown().await
}

async fn within<T>(exchange: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(EXCHANGE_TIMEOUT, exchange).await?
}

/// What a service answers to one question, value by value.
#[derive(Debug)]
pub struct Answers {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// Kept open: its end would tell the service that nobody waits any more.
    _write: OwnedWriteHalf,
}

impl Answers {
    /// Asks the service behind `path`; needs a tokio runtime.
    ///
    /// # Errors
    /// Nobody listens there, or this user may not ask.
    pub async fn ask(path: &Path, question: &str) -> io::Result<Answers> {
        let (read, mut write) = UnixStream::connect(path).await?.into_split();
        within(write.write_all(format!("{question}\n").as_bytes())).await?;
        Ok(Answers {
            lines: BufReader::new(read).lines(),
            _write: write,
        })
    }

    /// The next value; `None` when the service has said all.
    ///
    /// # Errors
    /// The connection broke, or what came is no JSON.
    pub async fn next(&mut self) -> io::Result<Option<serde_json::Value>> {
        let line = self.lines.next_line().await?;
        line.map(|line| serde_json::from_str(&line).map_err(io::Error::other))
            .transpose()
    }
}

/// Asks the service behind `path`.
///
/// # Errors
/// Nobody listens there, or the answer is no JSON.
pub fn ask(path: &Path, question: &str) -> io::Result<serde_json::Value> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    serde_json::from_str(&answer).map_err(io::Error::other)
}

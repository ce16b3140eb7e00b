//! The control socket: one question per connection, one JSON answer. Driver.
//!
//! Invariant: only who may write to the socket's file may ask; nothing asked changes anything yet.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Answers a question in JSON.
pub type Answerer = Arc<dyn Fn(&str) -> serde_json::Value + Send + Sync>;

/// Longest question, in bytes.
const QUESTION_MAX: u64 = 256;
/// Longest answer read by the client side, in bytes.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;
/// Time for one question and its answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions served at once.
const EXCHANGES_MAX: usize = 8;
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
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answerer = answerer.clone();
                tokio::spawn(async move {
                    if let Ok(Err(error)) =
                        timeout(EXCHANGE_TIMEOUT, answer(stream, answerer)).await
                    {
                        debug!(%error, "control exchange failed");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, answerer: Answerer) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut question = String::new();
    BufReader::new(read.take(QUESTION_MAX))
        .read_line(&mut question)
        .await?;
    let answer = answerer(question.trim()).to_string();
    write.write_all(answer.as_bytes()).await?;
    write.shutdown().await
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

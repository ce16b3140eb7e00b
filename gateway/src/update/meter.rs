//! Counts what downloads cost, where the bytes pass: at the socket, below TLS, in both directions. Driver.
//!
//! Counted are the bytes that TCP carries and an estimate of its headers. What stays behind a process that is killed is never
//! less than what was spent: the file is ahead of the count by [`AHEAD`].
//!
//! Invariant: a read that would pass the budget's end is not made.

use std::{
    collections::HashMap,
    fs, io,
    io::Write,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tracing::warn;
use tuf::directory::replace_file;

use crate::{
    clock, config,
    upstream::{
        budget::{Account, Budget, Ledger, Limits},
        pace::Pace,
    },
};

/// Bytes that the file is ahead of the count, so that it need not be written for each packet.
const AHEAD: u64 = 1 << 20;
/// Of a connection's bytes, what the headers of IPv4 and TCP add: 52 bytes to a segment of 1,400.
const HEADERS: u64 = 1400 / 52;
/// Longest file that is read.
const FILE_MAX: u64 = 4096;

/// See the module's description. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Meter(Arc<Mutex<Count>>);

#[derive(Debug)]
struct Count {
    budget: Budget,
    pace: Pace,
    file: PathBuf,
    /// Bytes until the file is written again.
    written_until: u64,
    /// Bytes since the process started.
    total: u64,
}

impl Meter {
    /// Goes on where the file ends.
    pub(crate) fn open(config: &config::Update) -> Meter {
        let file = config.directory.join("spent.json");
        let limits = Limits {
            per_day: config.budget.per_day.map(|size| size.as_bytes()),
            per_month: config.budget.per_month.map(|size| size.as_bytes()),
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate is far below 2^52 bytes a second"
        )]
        let rate = config.bytes_per_second.map(|size| size.as_bytes() as f64);
        let ledger = Ledger::from_marks(&read(&file));
        Meter(Arc::new(Mutex::new(Count {
            budget: Budget::new(limits, Duration::MAX, ledger),
            pace: Pace::new(None, rate),
            file,
            written_until: 0,
            total: 0,
        })))
    }

    /// The budget that has less than `bytes` left.
    pub(crate) fn lacks(&self, bytes: u64) -> Option<Account> {
        let mut count = self.count();
        count.budget.tick(clock::now(), false);
        let wanted = bytes + bytes / HEADERS;
        count
            .budget
            .accounts()
            .find(|account| account.limit.saturating_sub(account.used) < wanted)
    }

    /// Bytes since the process started.
    pub(crate) fn total(&self) -> u64 {
        self.count().total
    }

    /// Writes down what was spent to the byte.
    pub(crate) fn settle(&self) {
        let mut count = self.count();
        count.written_until = 0;
        count.write(0);
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn spend(&mut self, bytes: u64) {
        let cost = bytes + bytes / HEADERS;
        self.budget.tick(clock::now(), false);
        self.budget.spend(cost);
        self.total += bytes;
        self.pace.take(bytes, clock::now().monotonic);
        match self.written_until.checked_sub(cost) {
            Some(left) => self.written_until = left,
            None => {
                self.written_until = AHEAD;
                self.write(AHEAD);
            }
        }
    }

    /// Bytes that may be read at once.
    fn allowance(&self) -> u64 {
        let left = self.budget.accounts();
        let left = left
            .map(|account| account.limit.saturating_sub(account.used))
            .min();
        left.map_or(u64::MAX, |left| left - left / (HEADERS + 1))
    }

    fn write(&mut self, ahead: u64) {
        let mut budget = self.budget.clone();
        budget.spend(ahead);
        let marks: HashMap<_, _> = budget.ledger().marks().into_iter().collect();
        let written = serde_json::to_vec(&marks)
            .map_err(io::Error::from)
            .and_then(|text| replace_file(&self.file, |file| file.write_all(&text)));
        if let Err(error) = written {
            warn!(%error, file = %self.file.display(), "what downloads cost is not written down");
        }
    }
}

fn read(file: &PathBuf) -> HashMap<String, i64> {
    let Ok(found) = fs::metadata(file) else {
        return HashMap::new();
    };
    let text = match found.len() <= FILE_MAX {
        true => fs::read(file).unwrap_or_default(),
        false => Vec::new(),
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        warn!(%error, file = %file.display(), "what downloads cost so far is not known any more");
        HashMap::new()
    })
}

/// A connection whose bytes are counted, and held to the rate.
pub(crate) struct Metered<S> {
    stream: S,
    meter: Meter,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, meter: Meter) -> Metered<S> {
        Metered {
            stream,
            meter,
            pause: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let allowed = loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let now = clock::now().monotonic;
            let (due, allowed) = {
                let mut count = self.meter.count();
                let due = match count.pace.is_ready(now) {
                    true => None,
                    false => count.pace.due(now),
                };
                (due, count.allowance())
            };
            match due {
                Some(due) => self.pause = Some(Box::pin(sleep_until(Instant::from_std(due)))),
                None => break allowed,
            }
        };
        if allowed == 0 {
            return Poll::Ready(Err(io::Error::other(BudgetEnded)));
        }
        let most = usize::try_from(allowed).unwrap_or(usize::MAX);
        let mut part = buffer.take(most);
        let before = part.filled().len();
        let stream = Pin::new(&mut self.stream);
        ready!(stream.poll_read(context, &mut part))?;
        let read = part.filled().len() - before;
        // What the part has filled is initialised in the whole.
        let filled = part.filled().to_vec();
        buffer.put_slice(&filled);
        self.meter.count().spend(read as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.meter.count().allowance() < bytes.len() as u64 {
            return Poll::Ready(Err(io::Error::other(BudgetEnded)));
        }
        let stream = Pin::new(&mut self.stream);
        let written = ready!(stream.poll_write(context, bytes))?;
        self.meter.count().spend(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Nothing may be spent any more.
#[derive(Debug, thiserror::Error)]
#[error("[update] budget is used up")]
pub(crate) struct BudgetEnded;

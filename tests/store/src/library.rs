//! The buffer as the broker uses it, without the broker: messages in, receipts out. Driver.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use broker_lite::{
    keeper::{Keeper, Kept, Receipt},
    message::Message,
    topic::TopicName,
};
use clap::Args;
use gateway::{
    buffer::Buffer,
    config::{self, Forward},
};
use serde_json::{Value, json};
use settings::Size;

/// Topics that take turns, as the points of a plant do.
const TOPICS: usize = 100;
/// The buffer's bound: larger than any run.
const GIB: u64 = 16;

#[derive(Args)]
pub(crate) struct Append {
    /// The buffer's file
    path: PathBuf,
    /// Bytes of a payload
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// Seconds that are measured
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Messages without a receipt, at most
    #[arg(long, default_value_t = 50_000)]
    window: u64,
}

#[derive(Args)]
pub(crate) struct Fill {
    /// The buffer's file
    path: PathBuf,
    /// How many
    #[arg(long)]
    messages: u64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// Messages without a receipt, at most
    #[arg(long, default_value_t = 50_000)]
    window: u64,
}

/// Receipts that came, and somebody who waits for them.
#[derive(Default)]
struct Receipts {
    committed: AtomicU64,
    refused: AtomicU64,
    turn: Mutex<()>,
    came: Condvar,
}

impl Receipts {
    fn receipt(self: &Arc<Self>) -> Receipt {
        let receipts = Arc::clone(self);
        Receipt::new(move |kept| {
            let count = match kept {
                Kept::Committed => &receipts.committed,
                _ => &receipts.refused,
            };
            count.fetch_add(1, Ordering::Relaxed);
            receipts.came.notify_one();
        })
    }

    fn count(&self) -> u64 {
        self.committed.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed)
    }

    /// Until at most `window` of `sent` messages have no receipt.
    fn wait(&self, sent: u64, window: u64) {
        while sent - self.count() > window {
            let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            // A receipt between the look and the wait costs this long once.
            let waited = self.came.wait_timeout(turn, Duration::from_millis(1));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Messages on their way into a buffer.
struct Feed {
    buffer: Buffer,
    receipts: Arc<Receipts>,
    topics: Vec<TopicName>,
    payload: Vec<u8>,
    sent: u64,
    window: u64,
}

impl Feed {
    fn open(path: &Path, payload: usize, window: u64) -> Result<Feed> {
        let config = config::Buffer {
            path: path.to_owned(),
            max_size: Size::from_gib(GIB),
            ..config::Buffer::default()
        };
        let rule: Forward = serde_json::from_value(json!({ "filter": "#" }))?;
        let topics = (0..TOPICS).map(|topic| TopicName::parse(&format!("telemetry/load/{topic}")));
        Ok(Feed {
            buffer: Buffer::open(&config, &[rule])?,
            receipts: Arc::default(),
            topics: topics.collect::<Result<_, _>>()?,
            payload: vec![b'x'; payload],
            sent: 0,
            window,
        })
    }

    fn push(&mut self) {
        let topic = &self.topics[self.sent as usize % TOPICS];
        let message = Message::new(topic.clone(), self.payload.clone());
        self.buffer.keep(&message, self.receipts.receipt());
        self.sent += 1;
        self.receipts.wait(self.sent, self.window);
    }

    /// All receipts, then a file that is closed in order.
    fn finish(self) -> Result<()> {
        self.receipts.wait(self.sent, 0);
        let refused = self.receipts.refused.load(Ordering::Relaxed);
        ensure!(refused == 0, "{refused} messages were refused");
        Ok(())
    }
}

/// Appends as fast as receipts come.
pub(crate) fn append(plan: &Append) -> Result<Value> {
    let mut feed = Feed::open(&plan.path, plan.payload, plan.window)?;
    let (begun, written) = (Instant::now(), written_bytes()?);
    let time = Duration::from_secs_f64(plan.seconds);
    while begun.elapsed() < time {
        // The clock is read now and then.
        for _ in 0..100 {
            feed.push();
        }
    }
    let acknowledged = feed.receipts.count();
    let seconds = begun.elapsed().as_secs_f64();
    feed.receipts.wait(feed.sent, 0);
    let written = written_bytes()? - written;
    let (sent, memory_kb) = (feed.sent, memory_kb()?);
    feed.finish()?;
    Ok(json!({
        "rate": acknowledged as f64 / seconds,
        "written_ratio": written as f64 / (sent as f64 * plan.payload as f64),
        "memory_kb": memory_kb,
    }))
}

/// Makes a file in which so many messages wait.
pub(crate) fn fill(plan: &Fill) -> Result<Value> {
    let mut feed = Feed::open(&plan.path, plan.payload, plan.window)?;
    for _ in 0..plan.messages {
        feed.push();
    }
    feed.finish()?;
    Ok(json!({ "messages": plan.messages }))
}

/// What this process has had written to storage.
fn written_bytes() -> Result<u64> {
    proc("/proc/self/io", "write_bytes:")
}

fn memory_kb() -> Result<u64> {
    proc("/proc/self/status", "VmRSS:")
}

fn proc(path: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .with_context(|| format!("{path} has no number behind {key}"))
}

//! What goes over a bus, for those who look on. Driver.
//!
//! Invariant: nobody who looks on can hold the bus up; who is too slow loses the oldest frames and
//! is told how many (`RecvError::Lagged`).

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::{clock, reading::Stamp};

/// Frames that somebody who looks on may be behind: some seconds of a fast line.
const BEHIND_MAX: usize = 1_024;

/// Bytes that went over a bus together.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// What they were.
    pub what: What,
    /// The bytes as they stood on the wire: CRC or MBAP header included.
    pub bytes: Bytes,
    /// When the last of them was sent to or read from the wire.
    pub stamp: Stamp,
    /// How long before that the first of them was.
    pub took: Duration,
}

/// What bytes on a bus were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A request, sent by us.
    Request,
    /// The answer to it.
    Answer,
    /// The request, come back through an adapter that hears itself.
    Echo,
    /// Received, and neither of them: noise, a late answer, another client's frames.
    Stray,
}

/// A bus' tap; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Tap(broadcast::Sender<Traced>);

impl Tap {
    /// A tap that nobody listens at.
    pub(crate) fn new() -> Tap {
        Tap(broadcast::Sender::new(BEHIND_MAX))
    }

    /// What goes over the bus from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Traced> {
        self.0.subscribe()
    }

    /// Tells those who listen of bytes whose first was seen at `first` and whose last now. Costs
    /// one look at a counter when nobody does.
    pub(crate) fn tell(&self, what: What, bytes: &[u8], first: Instant) {
        if bytes.is_empty() || self.0.receiver_count() == 0 {
            return;
        }
        let stamp = clock::now();
        // The last listener may have gone meanwhile.
        let _heard = self.0.send(Traced {
            what,
            bytes: Bytes::copy_from_slice(bytes),
            took: stamp.monotonic.saturating_duration_since(first),
            stamp,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_hears_what_comes_after_and_is_told_what_it_missed() {
        let tap = Tap::new();
        let first = clock::now().monotonic;
        tap.tell(What::Request, &[1], first);
        let mut listener = tap.subscribe();
        tap.tell(What::Answer, &[2, 3], first);
        let heard = listener.try_recv().unwrap();
        assert_eq!((heard.what, &heard.bytes[..]), (What::Answer, &[2, 3][..]));
        for _ in 0..BEHIND_MAX + 5 {
            tap.tell(What::Stray, &[0], first);
        }
        let lagged = broadcast::error::TryRecvError::Lagged(5);
        assert_eq!(listener.try_recv(), Err(lagged));
        assert_eq!(listener.try_recv().unwrap().what, What::Stray);
    }
}

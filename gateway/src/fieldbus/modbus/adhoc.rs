//! The way of a tool's request to the bus and of its outcome back. Driver.
//!
//! Invariant: who asks gets one answer, at the latest when the bus stops.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use crate::fieldbus::{
    poll::schedule::{ADHOC_MAX, Adhoc, AdhocId, AdhocOutcome},
    transaction::Request,
};

/// A request of a tool and where its outcome goes.
#[derive(Debug)]
pub(super) struct Ask {
    unit: u8,
    request: Request,
    response_timeout: Duration,
    send_by: Instant,
    outcome: oneshot::Sender<AdhocOutcome>,
}

/// Lets tools ask; clones ask the same bus.
#[derive(Debug, Clone)]
pub(super) struct Asker(mpsc::Sender<Ask>);

impl Asker {
    /// Asks and waits for the outcome; `None`: the bus has stopped.
    pub(super) async fn ask(
        &self,
        unit: u8,
        request: Request,
        response_timeout: Duration,
        send_by: Instant,
    ) -> Option<AdhocOutcome> {
        let (outcome, answer) = oneshot::channel();
        let ask = Ask {
            unit,
            request,
            response_timeout,
            send_by,
            outcome,
        };
        self.0.send(ask).await.ok()?;
        answer.await.ok()
    }
}

/// The bus' end: what tools ask, and who waits for which outcome.
#[derive(Debug)]
pub(super) struct Asked {
    incoming: mpsc::Receiver<Ask>,
    waiting: HashMap<AdhocId, oneshot::Sender<AdhocOutcome>>,
    numbers: u64,
}

/// Both ends.
pub(super) fn channel() -> (Asker, Asked) {
    let (sender, incoming) = mpsc::channel(ADHOC_MAX);
    let asked = Asked {
        incoming,
        waiting: HashMap::new(),
        numbers: 0,
    };
    (Asker(sender), asked)
}

impl Asked {
    /// The next request; waits for ever when nobody can ask any more.
    pub(super) async fn next(&mut self) -> Adhoc {
        match self.incoming.recv().await {
            Some(ask) => self.number(ask),
            None => std::future::pending().await,
        }
    }

    /// The next request if there is one.
    pub(super) fn try_next(&mut self) -> Option<Adhoc> {
        let ask = self.incoming.try_recv().ok()?;
        Some(self.number(ask))
    }

    /// Takes no more requests.
    pub(super) fn close(&mut self) {
        self.incoming.close();
    }

    /// Hands an outcome to who asked; it may have gone.
    pub(super) fn answer(&mut self, id: AdhocId, outcome: AdhocOutcome) {
        if let Some(asker) = self.waiting.remove(&id) {
            let _gone = asker.send(outcome);
        }
    }

    fn number(&mut self, ask: Ask) -> Adhoc {
        self.numbers += 1;
        let id = AdhocId(self.numbers);
        self.waiting.insert(id, ask.outcome);
        Adhoc {
            id,
            unit: ask.unit,
            request: ask.request,
            response_timeout: ask.response_timeout,
            send_by: ask.send_by,
        }
    }
}

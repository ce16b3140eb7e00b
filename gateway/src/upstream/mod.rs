//! The link to the upstream broker: what the buffer holds goes up, what it allows comes down.
//!
//! ```text
//!  buffer ──rows──▶ rules ──▶ forwarder ──▶ packer ──▶ session (rumqttc) ──▶ reach ──mTLS──▶ upstream
//!    ◀──delete────────────────────┘◀─────────┘◀─acknowledgement──┘
//!  local broker ◀── incoming ◀── rules ◀── session ◀── upstream
//! ```
//!
//! Invariant: nothing local waits for the upstream. A link that cannot be says why, and tries again.
//! Shell of the link: joins its cores and drivers.

mod rules;

mod outbound;

mod forwarder;
mod intake;
mod lanes;

pub(crate) mod budget;
mod gate;
pub(crate) mod pace;
mod progress;
pub(crate) mod window;

mod suspect;

mod batch;
mod compress;
mod packer;

pub mod sparkplug;

mod link;

pub(crate) mod backoff;
mod endpoints;

pub(crate) mod reach;

mod proxy;

mod candidate;
mod identities;
mod renewing;
mod tls;

mod session;

mod cause;
mod status;

use std::sync::Arc;

use broker_lite::message::Message;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use budget::{Account, Period};
pub use cause::Cause;
pub use gate::Brake;
pub use status::{Certificate, State, Status};
pub use tls::TlsError;

use self::{link::Link, renewing::Renewing, status::Board};
use crate::{
    buffer::{Arrival, Buffer},
    config,
};

/// A message from upstream, to be published locally.
#[derive(Debug)]
pub struct Incoming {
    /// Already on its local topic.
    pub message: Message,
    /// To be called when the local broker has it; dropped, the upstream sends it again later.
    pub ack: Ack,
}

/// Acknowledges a message to the upstream.
#[derive(Debug)]
pub struct Ack(Option<Owed>);

/// What an acknowledgement needs to get to the upstream, or to be welcome again.
#[derive(Debug)]
struct Owed {
    receipts: mpsc::UnboundedSender<Receipt>,
    receipt: Receipt,
    arrival: Arrival,
    buffer: Buffer,
}

/// Names a message from upstream: packet identifiers mean nothing on the next connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Receipt {
    connection: u64,
    packet_id: u16,
}

impl Ack {
    /// The local broker has it.
    pub fn acknowledge(mut self) {
        if let Some(owed) = self.0.take() {
            owed.buffer.handed_over(owed.arrival);
            // Over a link that is gone the upstream sends the message again, and it is recognised.
            let _gone = owed.receipts.send(owed.receipt);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(owed) = self.0.take() {
            owed.buffer.forget_arrival(owed.arrival.packet_id);
        }
    }
}

/// A running link; clones share it.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    board: Arc<Board>,
    cancel: CancellationToken,
    task: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl LinkHandle {
    /// What it does, since when, and what it has done.
    pub fn status(&self) -> Status {
        self.board.status()
    }

    /// Ends the link in order; what is not acknowledged stays in the buffer.
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.stopped().await;
    }

    /// Waits until the link has ended.
    pub async fn stopped(&self) {
        if let Some(task) = self.task.lock().await.take()
            && task.await.is_err()
        {
            tracing::error!("the upstream link ended by a bug");
        }
    }
}

/// What of the configuration a link is made from.
#[derive(Debug)]
pub struct Settings<'a> {
    /// The `[upstream]` table.
    pub upstream: &'a config::Upstream,
    /// The `[identity]` table.
    pub identity: &'a config::Identity,
    /// The TPM's signing key, for `identity = "tpm"`.
    pub tpm: Option<&'a tpm::DeviceKey>,
    /// The gateway's name.
    pub gateway: &'a str,
    /// What goes up.
    pub forwards: &'a [config::Forward],
    /// What comes down.
    pub receives: &'a [config::Receive],
}

/// What the link joins to the upstream.
#[derive(Debug)]
pub struct Here {
    /// What waits.
    pub buffer: Buffer,
    /// Where what comes down goes.
    pub incoming: mpsc::Sender<Incoming>,
    /// The devices, for Sparkplug alone.
    pub plant: Option<sparkplug::Plant>,
}

/// Starts the link. A configuration that cannot work shows as its state; it is not an error here,
/// since the plant side must run in any case.
pub fn start(settings: &Settings<'_>, here: Here, cancel: CancellationToken) -> LinkHandle {
    let endpoint = settings.upstream.url.iter().next().unwrap_or_default();
    let board = Arc::new(Board::new(endpoint));
    let task = match Link::new(settings, &board) {
        Ok(link) => {
            let renewing = Renewing::of(settings, &here, &board);
            let run = link.run(here, Arc::clone(&board), cancel.clone());
            let renew = renew_until(cancel.clone(), renewing);
            Some(tokio::spawn(async { tokio::join!(run, renew).0 }))
        }
        Err(cause) => {
            tracing::error!(%cause, "there is no upstream link");
            board.set(State::Unusable { cause });
            None
        }
    };
    LinkHandle {
        board,
        cancel,
        task: Arc::new(tokio::sync::Mutex::new(task)),
    }
}

/// Renews for as long as the link lives.
async fn renew_until(cancel: CancellationToken, renewing: Option<Renewing>) {
    if let Some(renewing) = renewing {
        cancel.run_until_cancelled(renewing.run()).await;
    }
}

#[cfg(test)]
mod tests;

//! Has the identity renewed beside the link, and tells how that stands: status, and an alert when
//! it keeps failing.
//!
//! Invariant: it ends with the link, and the link never waits for it. Layer: driver.

use std::sync::Arc;

use broker_lite::{message::Message, packet::QoS, topic::TopicName};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::{Ack, Here, Incoming, Settings, reach::Reach, status::Board};
use crate::{
    config::{KeyPlace, Renew},
    identity::{Directory, Renewal, Renewer},
};

/// Where clients of the plant see that the certificate is not renewed; retained, empty when it is.
const ALERT: &str = "alert/certificate/upstream";
/// Attempts that fail in a row before somebody is told: one may be anything.
const ALERT_AFTER: u32 = 3;

/// The renewal that the configuration wants.
pub(super) struct Renewing {
    renewer: Renewer,
    board: Arc<Board>,
    incoming: mpsc::Sender<Incoming>,
}

impl Renewing {
    /// `None` when nothing is to be renewed, or the proxy's address makes no sense, which the link
    /// tells.
    pub(super) fn of(settings: &Settings<'_>, here: &Here, board: &Arc<Board>) -> Option<Renewing> {
        if settings.identity.renew == Renew::Off {
            return None;
        }
        let at = &settings.identity.directory;
        let directory = match (settings.upstream.identity?, settings.tpm) {
            (KeyPlace::File, _) => Directory::new(at),
            // Without [tpm] the link says what is missing.
            (KeyPlace::Tpm, tpm) => Directory::in_tpm(at, tpm?.clone()),
        };
        let reach = Reach::of(settings.upstream).ok()?;
        let floor = here.buffer.clock_floor();
        Some(Renewing {
            renewer: Renewer::new(settings.identity, directory, settings.gateway, reach, floor),
            board: Arc::clone(board),
            incoming: here.incoming.clone(),
        })
    }

    /// Renews until it is dropped.
    pub(super) async fn run(self) {
        let (told, renewal) = watch::channel(Renewal::default());
        tokio::join!(
            self.renewer.run(told),
            follow(renewal, self.board, self.incoming)
        );
    }
}

async fn follow(
    mut renewal: watch::Receiver<Renewal>,
    board: Arc<Board>,
    incoming: mpsc::Sender<Incoming>,
) {
    let mut alerted = None;
    loop {
        let now = renewal.borrow_and_update().clone();
        let why = now.why.clone().filter(|_| now.failures >= ALERT_AFTER);
        if why != alerted {
            let message = alert(&now, why.is_some());
            // Only a gateway that stops takes nothing any more.
            let _stopping = incoming.send(message).await;
            alerted = why;
        }
        board.update(|status| status.renewal = Some(now));
        if renewal.changed().await.is_err() {
            return;
        }
    }
}

fn alert(renewal: &Renewal, is_on: bool) -> Incoming {
    let payload = match is_on {
        true => json!({
            "reason": renewal.why,
            "failures": renewal.failures,
            "since": renewal.failing_since.map(|since| since.to_string()),
        })
        .to_string(),
        false => String::new(),
    };
    let topic = TopicName::parse(ALERT).expect("a constant that is a topic");
    let mut message = Message::new(topic, payload).with_qos(QoS::AtLeastOnce);
    message.retain = true;
    Incoming {
        message,
        ack: Ack(None),
    }
}

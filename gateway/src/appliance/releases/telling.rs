//! Tells the plant and the upstream how releases stand: a retained state, one alert for a roll-back, the
//! TPM's receipt. Shell.
//!
//! Invariant: a roll-back and a receipt count as told only once whoever keeps messages for the upstream has
//! them on disk; told twice is possible, never is not.

use std::time::{Duration, Instant};

use broker_lite::{
    keeper::Published, message::Message, packet::QoS, server::LocalClient, topic::TopicName,
};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tracing::{info, warn};
use update::{
    journal::{Content, Release},
    protocol::Reply,
};

use crate::{
    clock,
    update::record::{Records, Told},
};

use super::super::{audit, release_status::ReleaseStatus};

/// How releases stand; retained.
const STATE: &str = "state/gateway/update";
/// The TPM's signed word for what is installed; retained.
const RECEIPT: &str = "state/gateway/receipt";
/// A release was rolled back, and why.
const ROLLED_BACK: &str = "alert/update/rolled-back";

/// Changes of a state that stays what it is are told no more often.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// See the module's description.
pub(super) struct Teller {
    client: LocalClient,
    records: Records,
    told: Told,
    state: Option<(Instant, &'static str, Value)>,
    /// The release whose receipt was asked for in this run.
    asked_for: Option<String>,
}

impl Teller {
    pub(super) fn new(client: LocalClient, records: Records) -> Teller {
        Teller {
            client,
            told: records.told(),
            records,
            state: None,
            asked_for: None,
        }
    }

    /// Publishes how things stand, where that is news.
    pub(super) async fn state(&mut self, status: &ReleaseStatus, now: Instant) {
        let (word, fresh) = (status.word(), status.announcement());
        if let Some((at, last, told)) = &self.state {
            let rests = now.saturating_duration_since(*at) < TELL_EVERY;
            if *told == fresh || (*last == word && rests) {
                return;
            }
        }
        self.publish(STATE, &fresh, true).await;
        self.state = Some((now, word, fresh));
    }

    /// Tells of a release that was rolled back, once.
    pub(super) async fn rolled_back(&mut self, status: &ReleaseStatus) {
        let other = status.updater.as_ref().and_then(|updater| updater.other());
        let Some(Content::Bad { release, reason }) = other else {
            return;
        };
        let this = (release.root.clone(), reason.clone());
        if self.told.rolled_back.as_ref() == Some(&this) {
            return;
        }
        let Release {
            version,
            epoch,
            root,
        } = release;
        audit::rolled_back(version, reason);
        let alert = json!({
            "version": version,
            "epoch": epoch,
            "root": root,
            "reason": reason,
            "time": clock::now().wall.to_string(),
        });
        if self.publish(ROLLED_BACK, &alert, false).await {
            self.told.rolled_back = Some(this);
            self.remember().await;
        }
    }

    /// The receipt of the running release, where it was published.
    pub(super) fn published(&self, status: &ReleaseStatus) -> Option<&Value> {
        let (root, receipt) = self.told.receipt.as_ref()?;
        (committed(status) == Some(root)).then_some(receipt)
    }

    /// Whether the running release has stayed, and no receipt of it was published or asked for in this run.
    pub(super) fn wants_receipt(&mut self, status: &ReleaseStatus) -> bool {
        let Some(root) = committed(status) else {
            return false;
        };
        if self.published(status).is_some() || self.asked_for.as_deref() == Some(root) {
            return false;
        }
        self.asked_for = Some(root.to_owned());
        true
    }

    /// Publishes the receipt that was asked for.
    pub(super) async fn receipt(
        &mut self,
        status: &mut ReleaseStatus,
        answer: Result<Reply, String>,
    ) {
        let receipt = match answer {
            Ok(Reply::Receipt { receipt }) => receipt,
            Ok(Reply::Refused { why, .. }) | Err(why) => {
                info!(%why, "there is no receipt for the running release");
                return;
            }
            Ok(other) => return warn!(?other, "the updater's answer is not understood"),
        };
        let Ok(receipt) = serde_json::from_str::<Value>(&receipt) else {
            return warn!("the updater's receipt is no JSON");
        };
        if self.publish(RECEIPT, &receipt, true).await {
            let root = committed(status).map(str::to_owned);
            self.told.receipt = root.map(|root| (root, receipt.clone()));
            self.remember().await;
        }
        status.receipt = Some(receipt);
    }

    /// Whether whoever wants to keep the message has done so.
    async fn publish(&self, topic: &'static str, payload: &Value, retained: bool) -> bool {
        let Ok(topic) = TopicName::parse(topic) else {
            return false;
        };
        let message = Message::new(topic, payload.to_string()).with_qos(QoS::AtLeastOnce);
        let message = if retained {
            message.retained()
        } else {
            message
        };
        self.client.publish(message).await != Published::Refused
    }

    async fn remember(&self) {
        let (records, told) = (self.records.clone(), self.told.clone());
        let written = spawn_blocking(move || records.tell(&told)).await;
        if let Ok(Err(error)) = written {
            warn!(%error, "what was told of releases was not written down: it is told again after a restart");
        }
    }
}

/// The Merkle root of the running release, where it is no longer on trial.
fn committed(status: &ReleaseStatus) -> Option<&str> {
    let updater = status.updater.as_ref()?;
    match updater.slots.of(updater.booted?) {
        Content::Good { release } => Some(&release.root),
        _ => None,
    }
}

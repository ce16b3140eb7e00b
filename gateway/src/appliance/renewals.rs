//! Takes clients' requests for a new certificate over the broker, and answers them. Shell.
//!
//! Invariant: a client gets a certificate for its own name alone, while one of its certificates
//! counts, and no more of them in an hour than configured.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use broker_lite::{
    packet::QoS,
    server::{Delivery, LocalClient},
    topic::TopicFilter,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    audit::{self, Audit, ClientEvent},
    clients::Desk,
};
use crate::{
    clients::ClientName,
    payload::renewal::{self, Envelope, Outcome},
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Serves requests until cancelled, one after the other.
pub(super) async fn serve(mut client: LocalClient, desk: Desk, cancel: CancellationToken) {
    match TopicFilter::parse(renewal::REQUESTS) {
        Ok(filter) => client.subscribe(filter, QoS::AtLeastOnce),
        Err(error) => return warn!(%error, "no certificates are renewed"),
    }
    let (mut pace, mut audit) = (Pace::default(), Audit::default());
    loop {
        let delivery = tokio::select! {
            () = cancel.cancelled() => return,
            delivery = client.recv() => delivery,
        };
        let Some(delivery) = delivery else { return };
        let envelope = match envelope(&delivery) {
            Ok(envelope) => envelope,
            Err(reason) => {
                let topic = delivery.message.topic.as_ref();
                audit.renewal_refused(topic, user(&delivery), &reason, Instant::now());
                continue;
            }
        };
        let outcome = renew(&desk, &mut pace, &envelope, &delivery.message.payload).await;
        let name = envelope.name.as_str();
        match &outcome {
            Ok(certified) => {
                let came_of_it = format!("a certificate until {}", certified.ends);
                audit::client(ClientEvent::Renewed, name, Some(name), &came_of_it);
            }
            Err(reason) => audit.renewal_refused(name, Some(name), reason, Instant::now()),
        }
        for message in renewal::answers(&envelope, &outcome) {
            // Whoever does not hear it asks again.
            drop(client.publish(message));
        }
    }
}

fn envelope(delivery: &Delivery) -> Result<Envelope, String> {
    match delivery.retained {
        true => Err("a retained request may be of any age".to_owned()),
        false => renewal::envelope(&delivery.message, user(delivery)),
    }
}

/// Who sent it, by the broker's word.
fn user(delivery: &Delivery) -> Option<&str> {
    delivery.publisher.as_ref()?.user.as_deref()
}

async fn renew(desk: &Desk, pace: &mut Pace, envelope: &Envelope, payload: &[u8]) -> Outcome {
    let request = renewal::request(envelope, payload)?;
    let per_hour = desk.may_renew(&envelope.name).await?;
    pace.admits(&envelope.name, per_hour, Instant::now())?;
    desk.renew(&envelope.name, request).await
}

/// Requests of the hour that runs, by client. Only clients that are known get here.
#[derive(Debug, Default)]
struct Pace(HashMap<ClientName, (Instant, u32)>);

impl Pace {
    fn admits(&mut self, name: &ClientName, per_hour: u32, now: Instant) -> Result<(), String> {
        let runs = |begun: Instant| now.saturating_duration_since(begun) < HOUR;
        self.0.retain(|_, (begun, _)| runs(*begun));
        let (_, count) = self.0.entry(name.clone()).or_insert((now, 0));
        *count = count.saturating_add(1);
        match *count > per_hour {
            true => Err(format!(
                "{per_hour} requests in an hour are taken of one client ([clients] renewals_per_hour)"
            )),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_asks_so_often_in_an_hour() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let admitted = |pace: &mut Pace, name: &str, now| {
            let name = name.parse().unwrap();
            (0..10)
                .filter(|_| pace.admits(&name, 4, now).is_ok())
                .count()
        };
        assert_eq!(admitted(&mut pace, "a", now), 4);
        assert_eq!(admitted(&mut pace, "b", now), 4);
        assert_eq!(admitted(&mut pace, "a", now + HOUR), 4);
        assert_eq!(pace.0.len(), 1, "whose hour is over is forgotten");
    }
}

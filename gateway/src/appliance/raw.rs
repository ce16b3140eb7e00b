//! Takes requests that technicians write down themselves to a bus, where the configuration permits
//! that, and their responses back. Shell.
//!
//! Invariant: a request reaches a bus only with `raw_requests = true`, no faster than
//! [`PER_SECOND`], and after every command and poll that is due.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use broker_lite::{
    packet::QoS,
    server::{Delivery, LocalClient},
    topic::TopicFilter,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    clock,
    fieldbus::{
        modbus::BusHandle,
        poll::schedule::AdhocOutcome,
        raw::{RawOutcome, RawRequest},
        transaction::Reply,
    },
    payload::raw,
};

use super::{
    audit::{self, Asked, Audit},
    commands,
    field::Field,
};

/// Requests that a bus takes in a second: as fast as a person reads, or a script goes on without
/// hurry.
const PER_SECOND: u32 = 10;
/// Requests whose response is awaited at once, of all buses.
const UNDER_WAY_MAX: usize = 16;
/// How long a request waits for a bus that is busy with its polls.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time that a unit may be given to answer.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// What is said of a request that the bus no longer took.
const STOPPING: &str = "the bus is being stopped";

/// Serves requests until cancelled.
pub(super) async fn serve(mut client: LocalClient, field: Arc<Field>, cancel: CancellationToken) {
    match TopicFilter::parse(raw::REQUESTS) {
        Ok(filter) => client.subscribe(filter, QoS::AtLeastOnce),
        Err(error) => return warn!(%error, "no requests are taken"),
    }
    let (mut pace, mut audit) = (Pace::default(), Audit::default());
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            Some(ended) = under_way.join_next() => match ended {
                Ok(asked) => answer(&client, &mut audit, &asked),
                Err(error) => warn!(%error, "a request has no response"),
            },
            delivery = client.recv() => {
                let Some(delivery) = delivery else { return };
                if delivery.retained {
                    audit::ignored(&delivery.message.topic, &delivery.message.payload);
                    continue;
                }
                let (asked, accepted) = accept(&delivery, &field, &mut pace, under_way.len());
                match accepted {
                    Ok((bus, request)) => {
                        under_way.spawn(ask(asked, bus, request));
                    }
                    Err(reason) => {
                        let refused = asked.ended(RawOutcome::Refused(reason));
                        answer(&client, &mut audit, &refused);
                    }
                }
            }
        }
    }
}

fn accept(
    delivery: &Delivery,
    field: &Field,
    pace: &mut Pace,
    under_way: usize,
) -> (Asked, Result<(BusHandle, RawRequest), String>) {
    let (envelope, request) = raw::request(&delivery.message);
    let bus = field.open_to_requests(&envelope.bus);
    let accepted = bus.and_then(|bus| {
        let request = request?;
        if under_way >= UNDER_WAY_MAX {
            return Err(format!(
                "{UNDER_WAY_MAX} requests wait for their responses already"
            ));
        }
        if !pace.admits(&envelope.bus, Instant::now()) {
            return Err(format!("a bus takes {PER_SECOND} such requests a second"));
        }
        Ok((bus, request))
    });
    let asked = Asked {
        envelope,
        payload: delivery.message.payload.clone(),
        sender: delivery.publisher.as_ref().map(commands::sender),
        outcome: RawOutcome::Refused(STOPPING.to_owned()),
    };
    (asked, accepted)
}

async fn ask(asked: Asked, bus: BusHandle, request: RawRequest) -> Asked {
    let timeout = request.timeout.map(|timeout| timeout.min(TIMEOUT_MAX));
    let timeout = timeout.unwrap_or_else(|| bus.response_timeout());
    let outcome = bus.ask(request.unit, request.request, timeout, PATIENCE);
    asked.ended(in_words(outcome.await))
}

/// What came of a request; `None`: the bus has stopped.
fn in_words(outcome: Option<AdhocOutcome>) -> RawOutcome {
    let doubtful = |what: &str| {
        RawOutcome::Failed(format!(
            "{what}; if it writes, it may or may not have been executed"
        ))
    };
    match outcome {
        Some(AdhocOutcome::Replied(Reply::Answer(answer))) => RawOutcome::Answered(answer),
        Some(AdhocOutcome::Replied(Reply::Exception(exception))) => {
            RawOutcome::Exception(exception.0, exception.to_string())
        }
        Some(AdhocOutcome::Replied(Reply::TimedOut)) => doubtful("no answer"),
        Some(AdhocOutcome::Replied(Reply::Garbled(what)) | AdhocOutcome::Lost(what)) => {
            doubtful(&what)
        }
        Some(AdhocOutcome::Refused(refusal)) => RawOutcome::Refused(refusal.to_string()),
        None => RawOutcome::Refused(STOPPING.to_owned()),
    }
}

fn answer(client: &LocalClient, audit: &mut Audit, asked: &Asked) {
    let now = clock::now();
    audit.raw(asked, now.monotonic);
    for message in raw::responses(&asked.envelope, &asked.outcome, now) {
        // The buffer counts and names what it refuses; nobody waits here.
        drop(client.publish(message));
    }
}

/// The requests of the second that runs, by bus. Only buses that are open to requests get here.
#[derive(Debug, Default)]
struct Pace(HashMap<Arc<str>, (Instant, u32)>);

impl Pace {
    fn admits(&mut self, bus: &Arc<str>, now: Instant) -> bool {
        let (begun, count) = self.0.entry(Arc::clone(bus)).or_insert((now, 0));
        if now.saturating_duration_since(*begun) >= Duration::from_secs(1) {
            (*begun, *count) = (now, 0);
        }
        *count += 1;
        *count <= PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bus_takes_so_many_requests_a_second() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let admitted = |pace: &mut Pace, bus: &str, now| {
            let bus = Arc::from(bus);
            (0..50).filter(|_| pace.admits(&bus, now)).count()
        };
        assert_eq!(admitted(&mut pace, "a", now), 10);
        assert_eq!(admitted(&mut pace, "b", now), 10);
        let later = now + Duration::from_secs(1);
        assert_eq!(admitted(&mut pace, "a", later), 10);
    }
}

//! An upstream by itself: what it accepts from rumqttc with nothing around it, and what it says has passed. Driver.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions, mqttbytes::QoS};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Whoever does not answer in this time never will.
const PATIENCE: Duration = Duration::from_secs(20);
/// Mosquitto's own count of what it was sent, renewed each second.
const COUNT: &str = "$SYS/broker/publish/messages/received";

#[derive(Args)]
pub(crate) struct Bare {
    /// The broker's port on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// Bytes of a payload
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// Seconds that are measured
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Unacknowledged messages, at most
    #[arg(long, default_value_t = 100)]
    in_flight: u16,
}

#[derive(Args)]
pub(crate) struct Passed {
    /// The broker's port on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// Ends when so many have come
    #[arg(long)]
    messages: u64,
}

pub(crate) fn options(name: &str, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(60));
    options
}

/// Publishes a window ahead of the acknowledgements; counts these.
pub(crate) async fn bare(plan: &Bare) -> Result<Value> {
    let mut options = options("bare", plan.port);
    options.set_outgoing_inflight_upper_limit(plan.in_flight);
    let (client, mut events) = AsyncClient::new(options, usize::from(plan.in_flight));
    let time = Duration::from_secs_f64(plan.seconds);
    let payload = vec![b'x'; plan.payload];
    let publishing = async {
        let mut number = 0_usize;
        loop {
            let topic = format!("plant-7/telemetry/load/{}", number % 100);
            client
                .publish(topic, QoS::AtLeastOnce, false, payload.clone())
                .await?;
            number += 1;
        }
    };
    let counting = async {
        let (mut acknowledged, mut begun) = (0_u64, None);
        loop {
            let Ok(event) = timeout(PATIENCE, events.poll()).await else {
                bail!("the broker does not answer");
            };
            if let Event::Incoming(Incoming::PubAck(_)) = event? {
                acknowledged += 1;
                let begun = *begun.get_or_insert_with(Instant::now);
                if begun.elapsed() >= time {
                    return Ok(acknowledged as f64 / begun.elapsed().as_secs_f64());
                }
            }
        }
    };
    let rate = tokio::select! {
        rate = counting => rate?,
        ended = publishing => return ended,
    };
    Ok(json!({ "rate": rate }))
}

/// The rate from the first message that the broker counts to the last.
pub(crate) async fn passed(plan: &Passed) -> Result<Value> {
    let (client, mut events) = AsyncClient::new(options("passed", plan.port), 10);
    client.subscribe(COUNT, QoS::AtMostOnce).await?;
    let mut first: Option<(u64, Instant)> = None;
    loop {
        let Ok(event) = timeout(PATIENCE, events.poll()).await else {
            bail!("the broker's count does not go on");
        };
        let Event::Incoming(Incoming::Publish(publish)) = event? else {
            continue;
        };
        let Ok(count) = str::from_utf8(&publish.payload).unwrap_or_default().parse() else {
            continue;
        };
        let Some((before, since)) = first else {
            // The count begins with the first second in which something came.
            first = (count > 0).then(|| (count, Instant::now()));
            continue;
        };
        if count >= plan.messages {
            let rate = (count - before) as f64 / since.elapsed().as_secs_f64();
            return Ok(json!({ "rate": rate }));
        }
    }
}

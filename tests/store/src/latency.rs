//! How long a message takes from its publisher, or a reading from its sensor, to a subscriber behind the upstream.
//! Driver.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use jiff::Timestamp;
use rumqttc::v5::{AsyncClient, Event, EventLoop, Incoming, mqttbytes::QoS};
use serde_json::{Value, json};
use tokio::time::{Instant, interval, timeout};

use crate::client::options;

/// Local topics.
const PROBE: &str = "telemetry/probe";
const LOAD: &str = "telemetry/load";
/// Messages of the load under way at once.
const LOAD_WINDOW: u16 = 100;
/// The load is sent in portions of this often.
const TICK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct Plan {
    /// Port of the gateway's broker on 127.0.0.1
    #[arg(long)]
    local: u16,
    /// Port of the upstream on 127.0.0.1
    #[arg(long)]
    upstream: u16,
    /// What is subscribed to upstream
    #[arg(long)]
    filter: String,
    /// Probes published each second; 0: the messages are a sensor's
    #[arg(long, default_value_t = 0)]
    probes: u32,
    /// Other messages published each second
    #[arg(long, default_value_t = 0)]
    load: u32,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

/// Median and the 99th percentile, in milliseconds.
pub(crate) async fn run(plan: &Plan) -> Result<Value> {
    let mut upstream = subscribed(plan).await?;
    let (probes, probing) = AsyncClient::new(options("probes", plan.local), 1000);
    let mut loading_options = options("load", plan.local);
    loading_options.set_outgoing_inflight_upper_limit(LOAD_WINDOW);
    let (load, loading) = AsyncClient::new(loading_options, 1000);
    let send_probes = async {
        if plan.probes == 0 {
            return std::future::pending().await;
        }
        let mut ticks = interval(Duration::from_secs(1) / plan.probes);
        loop {
            ticks.tick().await;
            probes
                .publish(
                    PROBE,
                    QoS::AtLeastOnce,
                    false,
                    now()?.as_nanos().to_be_bytes().to_vec(),
                )
                .await?;
        }
    };
    let send_load = async {
        if plan.load == 0 {
            return std::future::pending().await;
        }
        let mut ticks = interval(TICK);
        let portion = f64::from(plan.load) * TICK.as_secs_f64();
        let mut due = 0.0;
        loop {
            ticks.tick().await;
            due += portion;
            while due >= 1.0 {
                load.publish(LOAD, QoS::AtLeastOnce, false, vec![b'x'; 100])
                    .await?;
                due -= 1.0;
            }
        }
    };
    let times = tokio::select! {
        times = listen(&mut upstream, plan) => times?,
        ended = send_probes => return ended,
        ended = send_load => return ended,
        ended = keep_going(probing) => return ended,
        ended = keep_going(loading) => return ended,
    };
    report(times)
}

async fn subscribed(plan: &Plan) -> Result<EventLoop> {
    let (client, mut events) = AsyncClient::new(options("listener", plan.upstream), 10);
    client.subscribe(&plan.filter, QoS::AtMostOnce).await?;
    loop {
        let event = timeout(PATIENCE, events.poll()).await;
        match event.context("the upstream does not answer")?? {
            Event::Incoming(Incoming::SubAck(_)) => return Ok(events),
            _ => continue,
        }
    }
}

async fn keep_going(mut events: EventLoop) -> Result<Value> {
    loop {
        events.poll().await?;
    }
}

async fn listen(events: &mut EventLoop, plan: &Plan) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    // What comes in the first second shows how everybody started.
    let warm = Instant::now() + Duration::from_secs(1);
    let end = warm + Duration::from_secs_f64(plan.seconds);
    while Instant::now() < end {
        let Ok(event) = timeout(PATIENCE, events.poll()).await else {
            bail!("nothing arrives");
        };
        if let Event::Incoming(Incoming::Publish(publish)) = event?
            && Instant::now() >= warm
        {
            times.push(now()?.saturating_sub(sent(&publish.payload)?));
        }
    }
    Ok(times)
}

/// Since 1970, by the one clock of this machine.
fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// When a probe was published, or a sensor answered.
fn sent(payload: &[u8]) -> Result<Duration> {
    if let Ok(nanoseconds) = payload.try_into().map(u128::from_be_bytes) {
        return Ok(Duration::from_nanos(u64::try_from(nanoseconds)?));
    }
    let reading: Value = serde_json::from_slice(payload).context("neither probe nor reading")?;
    let time: Timestamp = reading["time"].as_str().context("no time")?.parse()?;
    Ok(Duration::try_from(time.as_duration())?)
}

fn report(mut times: Vec<Duration>) -> Result<Value> {
    ensure!(!times.is_empty(), "nothing arrived");
    times.sort();
    let milliseconds = |share: f64| {
        let at = ((times.len() - 1) as f64 * share).round() as usize;
        times[at].as_secs_f64() * 1e3
    };
    Ok(json!({ "p50_ms": milliseconds(0.5), "p99_ms": milliseconds(0.99), "count": times.len() }))
}

//! What works, what does not, and since when, as `gateway status` and its JSON show it. Shell.
//!
//! Invariant: taking a status never holds up a reading, a message or a command.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use broker_lite::{
    observe::report::{ClientReport, StoreReport},
    server::Broker,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    buffer::{self, Buffer},
    clients::Listing,
    clock,
    config::KeyPlace,
    control::{Answer, Answerer, Question},
    fieldbus::{self, DeviceState, modbus, serial},
    payload,
    reading::Stamp,
    upstream::{self, LinkHandle},
};

use super::{
    buffer_stats::{self, BufferStats},
    bus_tools,
    clients::{self, Desk},
    dead_letters, downloads,
    drain_status::{self, DrainStatus},
    field::Field,
    release_status::ReleaseStatus,
    releases::ReleaseBoard,
    trusted::{TpmStatus, Trusted},
    wear::{OwnEstimateStatus, StorageStatus, WearStatus},
};

/// The appliance at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's name.
    pub gateway: String,
    /// Its version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The local broker.
    pub broker: BrokerStatus,
    /// Modbus buses.
    pub buses: Vec<BusStatus>,
    /// Other serial lines.
    pub serials: Vec<SerialStatus>,
    /// The store-and-forward buffer.
    pub buffer: BufferStatus,
    /// The upstream link, where one is configured.
    pub upstream: Option<UpstreamStatus>,
    /// The TPM.
    #[serde(default)]
    pub tpm: TpmStatus,
    /// Releases of this system; absent without `[update]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<ReleaseStatus>,
    /// Local clients that were added, and the authority that certifies them.
    #[serde(default)]
    pub clients: ClientsStatus,
}

/// Local clients at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientsStatus {
    /// Who they are, and who certifies them.
    #[serde(flatten)]
    pub listing: Listing,
    /// What could not be signed or stored; absent: all is in order.
    pub trouble: Option<String>,
}

/// The local broker at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Addresses served.
    pub listeners: Vec<String>,
    /// Clients connected over the network.
    pub clients: Vec<ClientReport>,
    /// Messages published since the start.
    pub received: u64,
    /// Messages handed to subscribers since the start.
    pub delivered: u64,
    /// Things refused since the start, all reasons together.
    pub refused: u64,
    /// Retained messages.
    pub retained: usize,
    /// The broker's sessions on disk; absent without persistence.
    #[serde(default)]
    pub store: Option<StoreReport>,
}

/// One bus at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BusStatus {
    /// Its name.
    pub name: String,
    /// Its port or address.
    pub port: String,
    /// Why it cannot be used; absent: it can.
    pub down: Option<String>,
    /// Since when, RFC 3339.
    pub since: String,
    /// Requests sent since the start.
    pub requests: u64,
    /// Of those, without an answer in time.
    pub time_outs: u64,
    /// Whether the adapter returns what is sent, which is taken off; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<bool>,
    /// Bytes received that belonged to no answer.
    #[serde(default)]
    pub stray_bytes: u64,
    /// Share of time it was busy lately, 0 to 1.
    pub utilisation: f64,
    /// Share of time that its requests book; above 1 some are read later than their intervals.
    #[serde(default)]
    pub load: f64,
    /// Requests that are read later than their intervals.
    #[serde(default)]
    pub late: Vec<String>,
    /// Its devices.
    pub devices: Vec<DeviceStatus>,
}

/// One device at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Its unit identifier.
    pub unit: u8,
    /// Whether it answers; absent before that is known.
    pub online: Option<bool>,
    /// Why it does not.
    pub reason: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// Points that answer with an exception.
    pub parked: Vec<String>,
    /// How long it thinks before it answers, in milliseconds; absent until that is measured.
    #[serde(default)]
    pub turnaround_ms: Option<f64>,
    /// Its points with their last values.
    #[serde(default)]
    pub points: Vec<PointStatus>,
}

/// One point at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointStatus {
    /// Its name.
    pub name: String,
    /// The last value, published or not.
    pub value: serde_json::Value,
    /// Unit of the value.
    pub unit: Option<String>,
    /// When the device gave it, RFC 3339; absent before the first answer.
    pub time: Option<String>,
    /// What it is worth; absent before the first answer.
    pub quality: Option<String>,
    /// Why it is not good.
    pub reason: Option<String>,
}

/// One serial line at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SerialStatus {
    /// The device's name.
    pub name: String,
    /// Its port.
    pub port: String,
    /// Whether it is heard; absent before that is known.
    pub online: Option<bool>,
    /// Why it is not.
    pub reason: Option<String>,
    /// Frames decoded since the start.
    pub frames: u64,
    /// Frames that could not be.
    pub bad_frames: u64,
    /// Requests and commands sent since the start.
    #[serde(default)]
    pub sent: u64,
    /// Requests without a good answer.
    #[serde(default)]
    pub unanswered: u64,
    /// What it measures, with the last values.
    #[serde(default)]
    pub points: Vec<PointStatus>,
}

/// The buffer at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BufferStatus {
    /// Messages waiting for the upstream.
    pub messages: u64,
    /// Of those, in memory: of memory-first rules.
    #[serde(default)]
    pub in_memory: u64,
    /// Bytes that these take there.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Bytes that they take, in the file and in memory, about.
    #[serde(default)]
    pub message_bytes: u64,
    /// Bytes on disk, log included.
    pub bytes: u64,
    /// Most it may take.
    pub max_bytes: u64,
    /// When the oldest was received, RFC 3339.
    pub oldest: Option<String>,
    /// Messages kept since the start.
    pub kept: u64,
    /// Messages put on disk after they waited in memory, since the start.
    #[serde(default)]
    pub spilled: u64,
    /// Messages acknowledged by the upstream since the start.
    pub forwarded: u64,
    /// Messages refused since the start.
    pub refused: u64,
    /// Messages dropped by policy since the start, each in a gap marker.
    pub dropped: u64,
    /// Messages that the upstream will never take, since the start, each in a gap marker.
    pub dead_letters: u64,
    /// Whether forwarding is paused, until it is resumed or the service starts anew.
    #[serde(default)]
    pub paused: bool,
    /// What storing costs the medium.
    #[serde(default)]
    pub wear: WearStatus,
    /// What keeps them from going up, and what the link has cost.
    #[serde(default)]
    pub drain: DrainStatus,
    /// Why nothing can be written; absent: it can.
    pub fault: Option<String>,
}

/// The upstream link at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Where it leads.
    pub endpoint: String,
    /// Whether it is up.
    pub connected: bool,
    /// What it does, or why it is down.
    pub state: String,
    /// Seconds since it is so.
    pub since_s: u64,
    /// Messages under way.
    pub in_flight: usize,
    /// Our certificate that it let in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// How its renewal stands; absent: nothing renews it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<RenewalStatus>,
}

/// How the renewal of our certificate stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenewalStatus {
    /// When it is to be renewed, in seconds since 1970; absent: there is none yet.
    pub due_s: Option<i64>,
    /// The same as a time.
    pub due: Option<String>,
    /// Attempts that failed since the last one that did not.
    pub failures: u32,
    /// Since when they fail.
    pub failing_since: Option<String>,
    /// Why the last one failed.
    pub why: Option<String>,
}

impl RenewalStatus {
    /// One line: `renewal due 2027-01-20T10:00:00Z`, or since when and why it fails.
    pub fn summary(&self) -> String {
        match (&self.why, &self.failing_since, &self.due) {
            (Some(why), Some(since), _) => format!(
                "renewal fails since {since}, {} times: {why}",
                self.failures
            ),
            (_, _, Some(due)) => format!("renewal due {due}"),
            _ => "to be enrolled".to_owned(),
        }
    }
}

/// Our certificate for the upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// When it ends.
    pub ends: String,
    /// The same, in seconds since 1970.
    pub ends_s: i64,
    /// Whole days until then by this machine's clock; negative when it has ended.
    pub days_left: i64,
    /// Its generation, where `[identity]` keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Where its key is: `file` or `tpm`.
    pub key: KeyPlace,
    /// Why a newer one is not in use; absent: there is none, or it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl CertificateStatus {
    /// One line: `certificate until 2027-02-20T10:00:00Z (89 days), its key in the TPM`.
    pub fn summary(&self) -> String {
        let trouble = self.trouble.as_ref();
        let trouble = trouble.map_or_else(String::new, |why| {
            format!("; a newer one cannot be used: {why}")
        });
        let place = match self.key {
            KeyPlace::File => "a file",
            KeyPlace::Tpm => "the TPM",
        };
        format!(
            "certificate until {} ({} days), its key in {place}{trouble}",
            self.ends, self.days_left
        )
    }
}

impl UpstreamStatus {
    /// One line: `connected to cloud:8883 for 12 s, 3 in flight`.
    pub fn summary(&self) -> String {
        if self.connected {
            format!(
                "connected to {}, {} in flight",
                self.endpoint, self.in_flight
            )
        } else {
            format!("down for {} s: {}", self.since_s, self.state)
        }
    }
}

/// Where statuses come from; clones share it.
#[derive(Clone)]
pub struct StatusSource(Arc<Sources>);

struct Sources {
    id: Arc<str>,
    started: Instant,
    broker: Broker,
    buffer: Buffer,
    max_bytes: u64,
    field: Arc<Field>,
    trusted: Trusted,
    releases: ReleaseBoard,
    clients: Desk,
    link: RwLock<Option<LinkHandle>>,
}

impl StatusSource {
    /// Sources of an appliance that starts now, without a link yet.
    pub(super) fn new(
        id: Arc<str>,
        broker: Broker,
        buffer: Buffer,
        max_bytes: u64,
        field: Arc<Field>,
        trusted: Trusted,
        clients: Desk,
    ) -> StatusSource {
        let started = clock::now().monotonic;
        let link = RwLock::new(None);
        StatusSource(Arc::new(Sources {
            id,
            started,
            broker,
            buffer,
            max_bytes,
            field,
            trusted,
            releases: ReleaseBoard::default(),
            clients,
            link,
        }))
    }

    /// Takes the link that runs now.
    pub(super) fn set_link(&self, link: Option<LinkHandle>) {
        *self.0.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Answers what the control socket may be asked.
    pub(super) fn answerer(&self) -> Answerer {
        let source = self.clone();
        Arc::new(move |question| match question.text {
            "status" => json!(source.status()).into(),
            "update" => json!(source.releases().read()).into(),
            "buffer" => json!(source.buffer_stats()).into(),
            "buffer pause" => json!(source.pause(true)).into(),
            "buffer resume" => json!(source.pause(false)).into(),
            text => source.answer(text, question),
        })
    }

    fn clients(&self) -> ClientsStatus {
        let (listing, trouble) = self.0.clients.listing();
        ClientsStatus { listing, trouble }
    }

    /// Answers what is asked in more words.
    fn answer(&self, text: &str, question: Question<'_>) -> Answer {
        if let Some(wish) = text.strip_prefix(dead_letters::WORDS) {
            return dead_letters::answer(&self.0.buffer, wish, question.user);
        }
        if let Some(wish) = text.strip_prefix(downloads::WORDS) {
            return downloads::answer(self.releases().agent(), wish, question.user);
        }
        match text.strip_prefix(clients::WORDS) {
            Some(wish) => self.0.clients.answer(wish, question.user),
            None => bus_tools::answer(&self.0.field, question),
        }
    }

    /// The appliance now.
    pub fn status(&self) -> Status {
        let now = clock::now();
        Status {
            gateway: self.0.id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now
                .monotonic
                .saturating_duration_since(self.0.started)
                .as_secs(),
            broker: broker(&self.0.broker),
            buses: self.0.field.buses().into_iter().map(bus).collect(),
            serials: self.0.field.serials().into_iter().map(serial).collect(),
            buffer: self.buffer(),
            upstream: self.upstream(),
            tpm: self.0.trusted.status(),
            update: self.0.releases.read(),
            clients: self.clients(),
        }
    }

    fn buffer_stats(&self) -> BufferStats {
        buffer_stats::of(&self.0.buffer, self.0.max_bytes, self.link().as_ref())
    }

    fn pause(&self, paused: bool) -> BufferStats {
        self.0.buffer.pause(paused);
        self.buffer_stats()
    }

    /// The local broker now, as it tells of itself.
    pub(super) fn broker(&self) -> broker_lite::observe::status::Status {
        self.0.broker.status()
    }

    /// The buffer now.
    pub(super) fn buffer(&self) -> BufferStatus {
        buffer(
            self.0.buffer.status(),
            self.0.max_bytes,
            self.link().as_ref(),
        )
    }

    /// Where it stands how releases stand.
    pub(super) fn releases(&self) -> ReleaseBoard {
        self.0.releases.clone()
    }

    /// The upstream link now, where one is configured.
    pub(super) fn upstream(&self) -> Option<UpstreamStatus> {
        Some(upstream(self.link()?, clock::now()))
    }

    fn link(&self) -> Option<upstream::Status> {
        let link = self.0.link.read().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().map(LinkHandle::status)
    }
}

fn broker(broker: &Broker) -> BrokerStatus {
    let report = broker.report();
    BrokerStatus {
        listeners: report.listeners,
        received: report.received,
        delivered: report.delivered,
        refused: report.refused.values().sum(),
        retained: report.retained,
        clients: report.clients,
        store: report.store,
    }
}

fn bus(status: modbus::BusStatus) -> BusStatus {
    BusStatus {
        name: status.name,
        port: status.port,
        down: status.down,
        since: second(status.since.wall),
        requests: status.requests,
        time_outs: status.time_outs,
        echo: status.echo,
        stray_bytes: status.stray_bytes,
        utilisation: status.utilisation,
        load: status.load,
        late: status.late.iter().map(ToString::to_string).collect(),
        devices: status
            .devices
            .into_iter()
            .map(|device| {
                let (online, reason) = online(device.state.as_ref().map(|(state, _)| state));
                let since = device.state.map(|(_, stamp)| second(stamp.wall));
                DeviceStatus {
                    name: device.name,
                    unit: device.unit,
                    online,
                    reason,
                    since,
                    parked: device.parked,
                    turnaround_ms: device.turnaround.map(|time| time.as_secs_f64() * 1_000.0),
                    points: device.points.into_iter().map(point).collect(),
                }
            })
            .collect(),
    }
}

fn point(status: fieldbus::PointStatus) -> PointStatus {
    PointStatus {
        name: status.name.to_string(),
        value: payload::json(status.value.as_ref()),
        unit: status.unit.as_deref().map(str::to_owned),
        time: status.known.map(|(stamp, _)| format!("{:.3}", stamp.wall)),
        quality: status.known.map(|(_, quality)| quality.word().to_owned()),
        reason: status.reason.as_deref().map(str::to_owned),
    }
}

fn serial(status: serial::SerialStatus) -> SerialStatus {
    let (online, reason) = online(status.state.as_ref());
    SerialStatus {
        name: status.device,
        port: status.port.display().to_string(),
        online,
        reason,
        frames: status.frames,
        bad_frames: status.bad_frames,
        sent: status.sent,
        unanswered: status.unanswered,
        points: status.points.into_iter().map(point).collect(),
    }
}

/// RFC 3339 to the second, as people read times.
pub(super) fn second(time: Timestamp) -> String {
    format!("{time:.0}")
}

fn online(state: Option<&DeviceState>) -> (Option<bool>, Option<String>) {
    match state {
        None => (None, None),
        Some(DeviceState::Online) => (Some(true), None),
        Some(DeviceState::Offline { reason }) => (Some(false), Some(reason.clone())),
    }
}

pub(super) fn buffer(
    status: buffer::Status,
    max_bytes: u64,
    link: Option<&upstream::Status>,
) -> BufferStatus {
    BufferStatus {
        drain: drain_status::of(&status, link),
        messages: status.rows,
        in_memory: status.in_memory,
        memory_bytes: status.memory_bytes,
        message_bytes: status.bytes,
        bytes: status.bytes_on_disk,
        max_bytes,
        oldest: status.oldest.map(second),
        kept: status.appended,
        spilled: status.spilled,
        forwarded: status.forwarded,
        refused: status.refused,
        dropped: status.evicted + status.left_out + status.over_quota + status.expired,
        dead_letters: status.dead_letters,
        paused: status.paused,
        wear: wear(status.wear),
        fault: status
            .fault
            .map(|fault| format!("{}, since {}", fault.cause, second(fault.since))),
    }
}

fn wear(wear: buffer::Wear) -> WearStatus {
    let share = || wear.written as f64 / wear.payload as f64;
    WearStatus {
        payload_bytes: wear.payload,
        written_bytes: wear.written,
        written_per_payload_byte: (wear.payload > 0).then(share),
        life_payload_bytes: wear.life_payload,
        life_written_bytes: wear.life_written,
        device: wear.device.map(storage),
    }
}

fn storage(device: buffer::DeviceWear) -> StorageStatus {
    let own = |own: buffer::OwnEstimate| OwnEstimateStatus {
        used_percent: own.used_percent,
        spare_blocks: own.spare.as_str().to_owned(),
    };
    StorageStatus {
        name: device.name,
        size_bytes: device.size,
        written_bytes: device.written,
        watched_s: device.observed.as_secs(),
        bytes_per_day: device.per_day,
        endurance_bytes: device.endurance,
        endurance_assumed: device.assumed,
        days_left: device.days_left,
        own_estimate: device.own.map(own),
    }
}

fn upstream(status: upstream::Status, now: Stamp) -> UpstreamStatus {
    UpstreamStatus {
        endpoint: status.endpoint.to_string(),
        connected: status.is_connected(),
        state: status.state.to_string(),
        since_s: now
            .monotonic
            .saturating_duration_since(status.since.monotonic)
            .as_secs(),
        in_flight: status.in_flight,
        certificate: status
            .certificate
            .map(|certificate| shown(certificate, now)),
        renewal: status.renewal.map(|renewal| RenewalStatus {
            due_s: renewal.due.map(Timestamp::as_second),
            due: renewal.due.map(second),
            failures: renewal.failures,
            failing_since: renewal.failing_since.map(second),
            why: renewal.why,
        }),
    }
}

fn shown(certificate: upstream::Certificate, now: Stamp) -> CertificateStatus {
    let ends_s = certificate.ends.as_second();
    CertificateStatus {
        ends: certificate.ends.to_string(),
        ends_s,
        days_left: (ends_s - now.wall.as_second()).div_euclid(86_400),
        generation: certificate.generation,
        key: certificate.key,
        trouble: certificate.trouble,
    }
}

#[cfg(test)]
mod tests {
    use crate::reading::{Quality, Value};

    use super::*;

    #[test]
    fn a_point_is_shown_with_its_last_value_its_time_and_what_it_is_worth() {
        let mut stamp = clock::now();
        stamp.wall = Timestamp::UNIX_EPOCH;
        let shown = point(fieldbus::PointStatus {
            name: "voltage".into(),
            unit: Some("V".into()),
            value: Some(Value::F32(231.4)),
            known: Some((stamp, Quality::Stale)),
            reason: Some("no answer in 1s".into()),
        });
        assert_eq!(
            serde_json::to_value(&shown).ok(),
            Some(json!({
                "name": "voltage",
                "value": 231.4,
                "unit": "V",
                "time": "1970-01-01T00:00:00.000Z",
                "quality": "stale",
                "reason": "no answer in 1s",
            }))
        );
    }
}

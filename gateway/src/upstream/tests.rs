//! The link's promises, against a real Mosquitto over mutual TLS.
#![expect(clippy::disallowed_methods, reason = "tests measure time")]

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use broker_lite::{
    keeper::{Keeper, Kept, Receipt},
    packet::QoS,
    topic::{TopicFilter, TopicName},
};
use nix::{sys::signal, unistd::Pid};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use settings::Period;
use tempfile::TempDir;
use tokio::time::sleep;

use super::*;
use crate::config::{Forward, Priority, Protocol, Receive, Upstream, Url, Urls};

/// Long enough for a slow, shared machine; reached only by a failing test.
const PATIENCE: Duration = Duration::from_secs(40);
const TOPICS: [&str; 3] = ["telemetry/a", "telemetry/b", "telemetry/c"];

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_in_order_with_their_number_and_leave_the_buffer() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let observer = plant.observe(&broker, "gw-1/#").await;
    let link = plant.link(&broker, |_| {});
    plant.keep(0..600).await;
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    observer.has_all(600).await;

    let seen = observer.messages.lock().unwrap();
    let (topic, payload, properties) = &seen[0];
    assert_eq!(
        (topic.as_str(), payload.as_str()),
        ("gw-1/telemetry/a", "0")
    );
    assert_eq!(properties[0], ("seq".to_owned(), "1".to_owned()));
    assert_eq!(properties[1].0, "time");
    properties[1].1.parse::<jiff::Timestamp>().unwrap();
    let status = link.status();
    assert!(status.is_connected());
    assert_eq!(status.acknowledged, 600);
    assert!(status.latency.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_goes_and_comes_back_misses_nothing() {
    let plant = Plant::new();
    let mut broker = plant.broker(MUTUAL).await;
    let observer = plant.observe(&broker, "gw-1/#").await;
    let link = plant.link(&broker, |_| {});
    let mut sent = 0;
    for _ in 0..3 {
        plant.keep(sent..sent + 300).await;
        broker.stop();
        plant.keep(sent + 300..sent + 600).await;
        sent += 600;
        wait_until("the loss is noticed", || !link.status().is_connected()).await;
        assert!(plant.buffer.status().rows >= 300);
        broker.start().await;
        wait_until("the backlog drains", || plant.buffer.status().rows == 0).await;
    }
    observer.has_all(sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_upstream_is_used_while_the_first_is_away() {
    let plant = Plant::new();
    let mut first = plant.broker(MUTUAL).await;
    let second = plant
        .broker(&format!("{MUTUAL}persistence_file second.db\n"))
        .await;
    let urls = [&first, &second].map(|broker| format!("mqtts://127.0.0.1:{}", broker.port));
    let link = plant.link(&first, |config| {
        config.url = Urls::Several(urls.iter().cloned().map(Url).collect());
    });
    let is_at = |broker: &Mosquitto| {
        let status = link.status();
        status.is_connected() && status.endpoint == format!("127.0.0.1:{}", broker.port)
    };
    wait_until("the first is used", || is_at(&first)).await;
    first.stop();
    wait_until("the second is used", || is_at(&second)).await;
    plant.keep(0..30).await;
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    first.start().await;
    wait_until("the first is used again", || is_at(&first)).await;
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_3_1_1_works_as_well() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let observer = plant.observe(&broker, "gw-1/#").await;
    let _link = plant.link(&broker, |config| config.protocol = Protocol::V3);
    plant.keep(0..200).await;
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    observer.has_all(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sent_while_away_arrives_and_is_sent_again_until_acknowledged() {
    let mut plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let link = plant.link(&broker, |_| {});
    wait_until("connected", || link.status().is_connected()).await;
    // The subscription is in place once something comes in by it.
    plant.command(&broker, "gw-1/command/m/first", "0");
    plant.next_incoming().await.ack.acknowledge();
    link.stop().await;
    assert_eq!(link.status().state, State::Stopped);
    plant.command(&broker, "gw-1/command/m/voltage", "230");

    let link = plant.link(&broker, |_| {});
    let unacknowledged = plant.next_incoming().await;
    assert_eq!(unacknowledged.message.topic.as_str(), "command/m/voltage");
    assert_eq!(&unacknowledged.message.payload[..], b"230");
    link.stop().await;
    drop(unacknowledged);

    let link = plant.link(&broker, |_| {});
    let again = plant.next_incoming().await;
    assert_eq!(&again.message.payload[..], b"230");
    again.ack.acknowledge();
    plant.command(&broker, "gw-1/command/m/last", "1");
    let last = plant.next_incoming().await;
    assert_eq!(last.message.topic.as_str(), "command/m/last");
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_acknowledgement_was_lost_is_not_taken_twice() {
    let mut plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let link = plant.link(&broker, |_| {});
    wait_until("connected", || link.status().is_connected()).await;
    plant.command(&broker, "gw-1/command/m/voltage", "230");
    let taken = plant.next_incoming().await;
    // The link ends before the acknowledgement is sent, as in a crash the process would.
    link.stop().await;
    taken.ack.acknowledge();
    plant.reopen_buffer().await;

    let link = plant.link(&broker, |_| {});
    wait_until("connected", || link.status().is_connected()).await;
    plant.command(&broker, "gw-1/command/m/voltage", "230");
    let next = plant.next_incoming().await;
    assert_eq!(
        &next.message.payload[..],
        b"230",
        "an equal command is another"
    );
    next.ack.acknowledge();
    plant.command(&broker, "gw-1/command/m/last", "1");
    let last = plant.next_incoming().await;
    assert_eq!(last.message.topic.as_str(), "command/m/last");
    wait_until("both were counted", || link.status().received == 2).await;
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_authorised_goes_to_the_dead_letters_and_blocks_nothing() {
    let plant = Plant::new();
    let acl = plant.path("acl");
    fs::write(
        &acl,
        "user gw-1\ntopic read #\ntopic write gw-1/telemetry/b\ntopic write gw-1/telemetry/c\n",
    )
    .unwrap();
    let broker = plant
        .broker(&format!("{MUTUAL}acl_file {}\n", acl.display()))
        .await;
    let link = plant.link(&broker, |_| {});
    plant.keep(0..30).await;
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    assert_eq!(plant.buffer.status().dead_letters, 10);
    assert_eq!(plant.buffer.status().forwarded, 20);
    assert_eq!(link.status().buried, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_message_over_which_the_upstream_closes_goes_to_the_dead_letters() {
    // 5.0 tells its limit and then refuses a payload in words that few clients know; 3.1.1 closes.
    for (protocol, option) in [
        (Protocol::V3, "max_packet_size 1000\n"),
        (Protocol::V5, "message_size_limit 500\n"),
    ] {
        let plant = Plant::new();
        let broker = plant.broker(&format!("{MUTUAL}{option}")).await;
        let link = plant.link(&broker, |config| {
            config.protocol = protocol;
            config.retry = Period::from_millis(20);
            config.retry_max = Period::from_millis(40);
        });
        plant.keep_one("telemetry/a", vec![0; 2000]).await;
        wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
        let letters = plant.buffer.dead_letters(10).unwrap();
        assert_eq!((letters.kept, letters.bytes), (1, 2000));
        assert_eq!(letters.newest[0].topic, "telemetry/a");
        assert!(letters.newest[0].buried > letters.newest[0].received);
        let reason = &letters.newest[0].reason;
        assert!(reason.contains("closed the link over it"), "{reason}");
        plant.keep(0..30).await;
        wait_until("the rest drains", || plant.buffer.status().rows == 0).await;
        assert_eq!(plant.buffer.status().forwarded, 30);
        assert_eq!(link.status().buried, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_upstreams_limit_is_announced_as_a_gap() {
    let plant = Plant::new();
    let broker = plant
        .broker(&format!("{MUTUAL}max_packet_size 1000\n"))
        .await;
    let observer = plant.observe(&broker, "gw-1/alert/gap/#").await;
    let _link = plant.link(&broker, |_| {});
    plant.keep_one("telemetry/a", vec![0; 2000]).await;
    wait_until("the gap arrives", || {
        let seen = observer.messages.lock().unwrap();
        seen.iter().any(|(topic, payload, _)| {
            topic == "gw-1/alert/gap/telemetry/a" && payload.contains("dead-letter")
        })
    })
    .await;
    let letters = plant.buffer.dead_letters(10).unwrap();
    let reason = &letters.newest[0].reason;
    assert!(reason.contains("the upstream takes 1000"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_buffer_keeps_what_comes_and_lets_commands_in() {
    let mut plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    plant.buffer.pause(true);
    let link = plant.link(&broker, |_| {});
    plant.keep(0..30).await;
    wait_until("connected", || link.status().is_connected()).await;
    plant.command(&broker, "gw-1/command/m/voltage", "230");
    plant.next_incoming().await.ack.acknowledge();
    let status = plant.buffer.status();
    assert!(status.paused);
    assert_eq!((status.rows, status.waiting), (30, [0, 30, 0]));
    assert_eq!(link.status().sent, 0);
    plant.buffer.pause(false);
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_for_no_link_is_told_apart() {
    let plant = Plant::new();
    let mut broker = plant.broker(MUTUAL).await;
    let other = Pki::new(plant.directory.path(), "other");

    let cases: [(&str, Change); 4] = [
        ("server-certificate", |c| {
            c.server_name = Some("elsewhere".to_owned())
        }),
        ("credentials", |c| c.key = None),
        ("unreachable", |c| {
            c.url = "mqtts://no-such-host.invalid:1".to_owned().into()
        }),
        ("configuration", |c| {
            c.url = "mqtt:nowhere".to_owned().into()
        }),
    ];
    for (expected, change) in cases {
        let cause = plant.cause(&broker, change).await;
        assert_eq!(cause.as_str(), expected, "{cause:?}");
    }

    let anchors = other.ca.clone();
    let server = plant
        .cause(&broker, move |config| config.ca = Some(anchors))
        .await;
    assert!(matches!(server, Cause::ServerCertificate(_)), "{server:?}");
    let (certificate, key) = other.issue("stranger");
    let ours = plant
        .cause(&broker, move |config| {
            config.certificate = Some(certificate);
            config.key = Some(key);
        })
        .await;
    // With TLS 1.3 the refusal comes after the handshake; the reset may overtake the alert.
    assert!(
        matches!(ours, Cause::OurCertificate(_) | Cause::Closed(_)),
        "{ours:?}"
    );

    broker.stop();
    let gone = plant.cause(&broker, |_| {}).await;
    assert!(matches!(gone, Cause::Unreachable(_)), "{gone:?}");
    let strict = plant
        .broker("require_certificate true\nallow_anonymous false\n")
        .await;
    let refused = plant.cause(&strict, |_| {}).await;
    assert!(matches!(refused, Cause::NotAuthorised(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_server_name_counts_instead_of_the_address() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let named = |config: &mut Upstream| config.server_name = Some("cloud.example".to_owned());
    let link = plant.link(&broker, named);
    wait_until("connected", || link.status().is_connected()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_may_read_is_refused_and_a_repaired_file_is_picked_up() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    fs::set_permissions(&plant.key, fs::Permissions::from_mode(0o644)).unwrap();
    let link = plant.link(&broker, |_| {});
    wait_until("refused", || {
        matches!(link.status().state, State::Down { .. })
    })
    .await;
    let state = link.status().state.to_string();
    assert!(state.contains("chmod o-rwx"), "{state}");
    fs::set_permissions(&plant.key, fs::Permissions::from_mode(0o600)).unwrap();
    wait_until("connected", || link.status().is_connected()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_our_certificate_has_expired_is_the_upstreams_to_decide() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let (expired, key) = plant.pki.issue_until("late", 2020);
    let late = |config: &mut Upstream| {
        config.certificate = Some(expired.clone());
        config.key = Some(key.clone());
    };
    let mut config = plant.config("mqtts://localhost");
    assert_eq!(tls::expired(&config), None);
    late(&mut config);
    let end = tls::expired(&config).unwrap().to_string();
    assert!(end.starts_with("2020-01-01"), "{end}");
    let cause = plant.cause(&broker, late).await;
    // The reset may overtake the alert.
    assert!(
        ["our-certificate", "closed"].contains(&cause.as_str()),
        "{cause}"
    );
}

#[test]
fn a_foreign_key_and_a_missing_file_are_told_in_words() {
    let plant = Plant::new();
    let mut config = plant.config("mqtts://localhost");
    config.certificate = Some(plant.pki.issue("one").0);
    config.key = Some(plant.pki.issue("two").1);
    let error = tls::client_config(&config, jiff::Timestamp::UNIX_EPOCH)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("does not belong to the certificate"),
        "{error}"
    );

    config.ca = Some(plant.path("nothing.pem"));
    let error = tls::client_config(&config, jiff::Timestamp::UNIX_EPOCH)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot read ca "), "{error}");
}

const MUTUAL: &str = "require_certificate true\nuse_identity_as_username true\n";

type Change = fn(&mut Upstream);

/// A buffer, certificates and what comes down.
struct Plant {
    directory: TempDir,
    pki: Pki,
    certificate: PathBuf,
    key: PathBuf,
    buffer: Buffer,
    incoming: mpsc::Sender<Incoming>,
    received: mpsc::Receiver<Incoming>,
    cancel: CancellationToken,
}

impl Plant {
    fn new() -> Plant {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::new(directory.path(), "plant");
        let (certificate, key) = pki.issue("gw-1");
        let config = config::Buffer {
            path: directory.path().join("buffer.db"),
            commit_delay: Period::from_millis(2),
            ..config::Buffer::default()
        };
        let buffer = Buffer::open(&config, &[forward()]).unwrap();
        let (incoming, received) = mpsc::channel(4);
        Plant {
            directory,
            pki,
            certificate,
            key,
            buffer,
            incoming,
            received,
            cancel: CancellationToken::new(),
        }
    }

    async fn reopen_buffer(&mut self) {
        self.buffer.close().await;
        let config = config::Buffer {
            path: self.path("buffer.db"),
            ..config::Buffer::default()
        };
        self.buffer = Buffer::open(&config, &[forward()]).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self, url: &str) -> Upstream {
        let mut config: Upstream = upstream_with_defaults(url);
        config.ca = Some(self.pki.ca.clone());
        config.certificate = Some(self.certificate.clone());
        config.key = Some(self.key.clone());
        config
    }

    fn link(&self, broker: &Mosquitto, change: impl FnOnce(&mut Upstream)) -> LinkHandle {
        let mut config = self.config(&format!("mqtts://127.0.0.1:{}", broker.port));
        change(&mut config);
        let receive = Receive {
            filter: TopicFilter::parse("command/#").unwrap(),
            topic: "{gateway}/{topic}".to_owned(),
        };
        let buffer = self.buffer.clone();
        let cancel = self.cancel.child_token();
        start(
            &config,
            "gw-1",
            &[forward()],
            &[receive],
            buffer,
            self.incoming.clone(),
            cancel,
        )
    }

    async fn cause(&self, broker: &Mosquitto, change: impl FnOnce(&mut Upstream)) -> Cause {
        let link = self.link(broker, change);
        let down = || match link.status().state {
            State::Down { cause, .. } | State::Unusable { cause } => Some(cause),
            _ => None,
        };
        wait_until("there is no link", || down().is_some()).await;
        let cause = down().unwrap();
        link.stop().await;
        cause
    }

    /// A broker that listens.
    async fn broker(&self, options: &str) -> Mosquitto {
        let (certificate, key) = self.pki.issue("server");
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {}/\n\
             cafile {}\ncertfile {}\nkeyfile {}\nmax_queued_messages 0\n{options}",
            self.directory.path().display(),
            self.pki.ca.display(),
            certificate.display(),
            key.display(),
        );
        let path = self.path(&format!("mosquitto-{port}.conf"));
        fs::write(&path, config).unwrap();
        let mut broker = Mosquitto {
            config: path,
            port,
            child: None,
        };
        broker.start().await;
        broker
    }

    async fn keep_one(&self, topic: &str, payload: Vec<u8>) {
        let (answer, mut answers) = mpsc::unbounded_channel();
        let receipt = Receipt::new(move |kept| answer.send(kept).unwrap());
        let topic = TopicName::parse(topic).unwrap();
        self.buffer.keep(&Message::new(topic, payload), receipt);
        assert_eq!(answers.recv().await, Some(Kept::Committed));
    }

    /// Keeps numbered messages, spread over the topics.
    async fn keep(&self, numbers: std::ops::Range<usize>) {
        let (answer, mut answers) = mpsc::unbounded_channel();
        let count = numbers.len();
        for number in numbers {
            let topic = TopicName::parse(TOPICS[number % TOPICS.len()]).unwrap();
            let answer = answer.clone();
            let receipt = Receipt::new(move |kept| answer.send(kept).unwrap());
            self.buffer
                .keep(&Message::new(topic, number.to_string()), receipt);
        }
        for _ in 0..count {
            assert_eq!(answers.recv().await, Some(Kept::Committed));
        }
    }

    async fn next_incoming(&mut self) -> Incoming {
        let next = tokio::time::timeout(PATIENCE, self.received.recv()).await;
        next.expect("nothing came from upstream").unwrap()
    }

    /// Publishes as someone in the cloud.
    fn command(&self, broker: &Mosquitto, topic: &str, payload: &str) {
        let (certificate, key) = self.pki.issue("operator");
        let arguments = ["-h", "127.0.0.1", "-q", "1", "-t", topic, "-m", payload];
        let status = Command::new("mosquitto_pub")
            .args(arguments)
            .args(["-p", &broker.port.to_string(), "--cafile"])
            .arg(&self.pki.ca)
            .arg("--cert")
            .arg(certificate)
            .arg("--key")
            .arg(key)
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Someone in the cloud who sees everything below `filter`.
    async fn observe(&self, broker: &Mosquitto, filter: &str) -> Observer {
        use rumqttc::v5;
        let (certificate, key) = self.pki.issue("observer");
        let mut config = self.config(&format!("mqtts://127.0.0.1:{}", broker.port));
        config.certificate = Some(certificate);
        config.key = Some(key);
        let tls = tls::client_config(&config, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let mut options = v5::MqttOptions::new("observer", "127.0.0.1", broker.port);
        options
            .set_clean_start(false)
            .set_session_expiry_interval(Some(3600))
            .set_keep_alive(Duration::from_secs(5))
            .set_transport(rumqttc::Transport::tls_with_config(
                rumqttc::TlsConfiguration::Rustls(Arc::new(tls)),
            ));
        let (client, mut events) = v5::AsyncClient::new(options, 100);
        let qos = v5::mqttbytes::QoS::AtLeastOnce;
        client.subscribe(filter, qos).await.unwrap();
        let messages: Seen = Arc::default();
        let (seen, ready) = (Arc::clone(&messages), Arc::new(tokio::sync::Notify::new()));
        let subscribed = Arc::clone(&ready);
        tokio::spawn(async move {
            loop {
                use v5::{Event, mqttbytes::v5::Packet};
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                        let properties = publish.properties.unwrap_or_default().user_properties;
                        seen.lock().unwrap().push((topic, payload, properties));
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => subscribed.notify_one(),
                    Ok(_) => {}
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        });
        tokio::time::timeout(PATIENCE, ready.notified())
            .await
            .unwrap();
        Observer {
            messages,
            _client: client,
        }
    }
}

type Seen = Arc<Mutex<Vec<(String, String, Vec<(String, String)>)>>>;

struct Observer {
    messages: Seen,
    _client: rumqttc::v5::AsyncClient,
}

impl Observer {
    /// Waits for the messages 0 to `count`, and checks their order within each topic.
    async fn has_all(&self, count: usize) {
        wait_until("all have arrived", || {
            let seen = self.messages.lock().unwrap();
            let mut numbers: Vec<_> = seen.iter().map(|(_, payload, _)| payload.clone()).collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers.len() == count
        })
        .await;
        let mut arrivals = BTreeMap::<String, Vec<usize>>::new();
        for (topic, payload, _) in self.messages.lock().unwrap().iter() {
            let arrived = arrivals.entry(topic.clone()).or_default();
            let number = payload.parse().unwrap();
            if !arrived.contains(&number) {
                arrived.push(number);
            }
        }
        for (topic, arrived) in arrivals {
            assert!(arrived.is_sorted(), "{topic} out of order: {arrived:?}");
        }
    }
}

struct Mosquitto {
    config: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    async fn start(&mut self) {
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's mosquitto is installed");
        self.child = Some(child);
        wait_until("the broker listens", || self.listens()).await;
    }

    fn listens(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// In order, so that it keeps what it has acknowledged.
    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            signal::kill(pid, signal::Signal::SIGTERM).unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A certificate authority and its files.
struct Pki {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
    ca: PathBuf,
}

impl Pki {
    fn new(directory: &Path, name: &str) -> Pki {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let ca = directory.join(format!("{name}-ca.pem"));
        fs::write(&ca, issuer.pem()).unwrap();
        Pki {
            directory: directory.to_owned(),
            issuer,
            ca,
        }
    }

    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue_until(name, 2090)
    }

    fn issue_until(&self, name: &str, year: i32) -> (PathBuf, PathBuf) {
        let names = ["127.0.0.1", "localhost", "cloud.example"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = ["pem", "key"].map(|kind| self.directory.join(format!("{name}.{kind}")));
        fs::write(&paths[0], certificate.pem()).unwrap();
        fs::write(&paths[1], key.serialize_pem()).unwrap();
        fs::set_permissions(&paths[1], fs::Permissions::from_mode(0o600)).unwrap();
        let [certificate, key] = paths;
        (certificate, key)
    }
}

fn forward() -> Forward {
    Forward {
        filter: TopicFilter::parse("telemetry/#").unwrap(),
        topic: "{gateway}/{topic}".to_owned(),
        qos: QoS::AtLeastOnce,
        priority: Priority::Normal,
        quota: None,
    }
}

fn upstream_with_defaults(url: &str) -> Upstream {
    Upstream {
        retry: Period::from_millis(50),
        retry_max: Period::from_millis(200),
        ..serde_json::from_value(serde_json::json!({ "url": url })).unwrap()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

//! Clients that others wrote, over real sockets: mosquitto_pub and mosquitto_sub, both versions,
//! plain and with certificates. Every wait is for a condition, with a deadline.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use broker_lite::{
    config::{
        AccessRule, CertificateName, ClientAuth, Config, Limits, Listener, ListenerTls,
        TopicPattern,
    },
    keeper::{Keeper, Kept, Receipt},
    message::Message,
    packet::QoS,
    server::{Broker, Published, StartError},
    topic::{TopicFilter, TopicName},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

fn plain() -> Config {
    Config {
        listeners: vec![listener(None)],
        access: vec![AccessRule::everything()],
        ..Config::default()
    }
}

fn listener(tls: Option<ListenerTls>) -> Listener {
    Listener {
        tls,
        ..Listener::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }
}

async fn started(config: &Config) -> (Broker, u16) {
    let broker = Broker::start(config, None).await.unwrap();
    let port = broker.addresses()[0].address.port();
    (broker, port)
}

/// A mosquitto_sub that runs, line by line.
struct Subscriber {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Subscriber {
    fn start(port: u16, arguments: &[&str]) -> Subscriber {
        let mut child = Command::new("mosquitto_sub")
            .args([
                "-h",
                "localhost",
                "-p",
                &port.to_string(),
                "-F",
                "%t %q %r %p",
            ])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto-clients is installed");
        let lines = read_lines(child.stdout.take().unwrap());
        Subscriber { child, lines }
    }

    async fn line(&mut self) -> String {
        wait_for("a line of mosquitto_sub", || self.lines.try_recv().ok()).await
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn read_lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn publish(port: u16, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new("mosquitto_pub");
    command
        .args(["-h", "localhost", "-p", &port.to_string()])
        .args(arguments);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    output.expect("mosquitto_pub ends in time").unwrap()
}

async fn publishes(port: u16, arguments: &[&str]) -> bool {
    publish(port, arguments).await.status.success()
}

async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(met) = condition() {
                return met;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let met = tokio::time::timeout(PATIENCE, waiting).await;
    met.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn subscriptions(broker: &Broker, count: usize) {
    let reached = || (broker.status().subscriptions == count).then_some(());
    wait_for("subscriptions", reached).await;
}

fn topic(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_at_every_qos_and_in_both_versions() {
    let (broker, port) = started(&plain()).await;
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let mut subscriber = Subscriber::start(port, &["-V", version, "-t", "t/#", "-q", qos]);
            subscriptions(&broker, 1).await;
            for other in VERSIONS {
                assert!(publishes(port, &["-V", other, "-t", "t/x", "-q", qos, "-m", other]).await);
                assert_eq!(subscriber.line().await, format!("t/x {qos} 0 {other}"));
            }
            drop(subscriber);
            subscriptions(&broker, 0).await;
        }
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_session_gets_what_came_while_it_was_away() {
    let (broker, port) = started(&plain()).await;
    for (version, id) in VERSIONS.into_iter().zip(["first", "second"]) {
        let mut session = vec!["-V", version, "-i", id, "-c", "-t", id, "-q", "2"];
        if version == "mqttv5" {
            session.extend(["-x", "3600"]);
        }
        let subscriber = Subscriber::start(port, &session);
        wait_for("its subscription", || {
            let status = broker.status();
            (status.clients.len() == 1 && status.subscriptions == status.sessions).then_some(())
        })
        .await;
        drop(subscriber);
        wait_for("its end", || {
            broker.status().clients.is_empty().then_some(())
        })
        .await;
        assert!(publishes(port, &["-t", id, "-q", "2", "-m", "kept"]).await);
        let mut subscriber = Subscriber::start(port, &session);
        assert_eq!(
            subscriber.line().await,
            format!("{id} 2 0 kept"),
            "{version}"
        );
        drop(subscriber);
        wait_for("its end", || {
            broker.status().clients.is_empty().then_some(())
        })
        .await;
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_and_many_small_ones_arrive_whole_and_in_order() {
    let (broker, port) = started(&plain()).await;
    let mut subscriber = Subscriber::start(port, &["-t", "t", "-q", "1"]);
    subscriptions(&broker, 1).await;
    let directory = tempfile::tempdir().unwrap();
    let lines = directory.path().join("lines");
    std::fs::write(&lines, numbered_lines(2_000)).unwrap();
    let mut publisher = Command::new("mosquitto_pub")
        .args([
            "-h",
            "localhost",
            "-p",
            &port.to_string(),
            "-t",
            "t",
            "-q",
            "1",
            "-l",
        ])
        .stdin(std::fs::File::open(&lines).unwrap())
        .spawn()
        .unwrap();
    for n in 0..2_000 {
        assert_eq!(subscriber.line().await, format!("t 1 0 {n}"));
    }
    let ended = wait_for("mosquitto_pub's end", || publisher.try_wait().unwrap()).await;
    assert!(ended.success());
    let large = "y".repeat(200_000);
    let file = directory.path().join("large");
    std::fs::write(&file, &large).unwrap();
    assert!(publishes(port, &["-t", "t", "-q", "1", "-f", file.to_str().unwrap()]).await);
    assert_eq!(subscriber.line().await, format!("t 1 0 {large}"));
    broker.shutdown().await;
}

fn numbered_lines(count: u32) -> String {
    (0..count).map(|n| format!("{n}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_and_wills_reach_other_peoples_clients() {
    let (broker, port) = started(&plain()).await;
    assert!(publishes(port, &["-t", "state", "-r", "-m", "on"]).await);
    let mut subscriber = Subscriber::start(port, &["-t", "state", "-t", "will"]);
    assert_eq!(subscriber.line().await, "state 0 1 on");
    subscriptions(&broker, 2).await;
    let doomed = Subscriber::start(
        port,
        &["-t", "x", "--will-topic", "will", "--will-payload", "gone"],
    );
    subscriptions(&broker, 3).await;
    drop(doomed);
    assert_eq!(subscriber.line().await, "will 0 0 gone");
    broker.shutdown().await;
}

/// Holds receipts until told; wants everything below `kept/`.
#[derive(Default)]
struct Slow(Mutex<Vec<Receipt>>);

impl Keeper for Slow {
    fn wants(&self, topic: &TopicName) -> bool {
        topic.as_str().starts_with("kept/")
    }

    fn keep(&self, _message: &Message, receipt: Receipt) {
        self.0.lock().unwrap().push(receipt);
    }
}

impl Slow {
    async fn receipt(&self) -> Receipt {
        wait_for("a message to be handed over", || {
            let mut held = self.0.lock().unwrap();
            (!held.is_empty()).then(|| held.remove(0))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_waits_for_the_keeper_and_nobody_else_does() {
    let keeper = Arc::new(Slow::default());
    let broker = Broker::start(&plain(), Some(keeper.clone())).await.unwrap();
    let port = broker.addresses()[0].address.port();
    for qos in ["1", "2"] {
        let waiting =
            tokio::spawn(
                async move { publishes(port, &["-t", "kept/x", "-q", qos, "-m", "x"]).await },
            );
        let receipt = keeper.receipt().await;
        assert!(publishes(port, &["-t", "free", "-q", qos, "-m", "x"]).await);
        assert!(
            !waiting.is_finished(),
            "no acknowledgement before the commit"
        );
        thread::spawn(move || receipt.answer(Kept::Committed));
        assert!(waiting.await.unwrap());
    }
    let local = broker.local("field");
    let publishing = local.publish(Message::new(topic("kept/y"), "y"));
    keeper.receipt().await.answer(Kept::Refused);
    assert_eq!(publishing.await, Published::Refused);
    assert_eq!(
        local.publish(Message::new(topic("free"), "y")).await,
        Published::Routed
    );
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_to_a_slow_keeper_is_held_back_and_nothing_of_it_is_lost() {
    let keeper = Arc::new(Slow::default());
    let config = Config {
        limits: Limits {
            in_flight: 4,
            ..Limits::default()
        },
        ..plain()
    };
    let broker = Broker::start(&config, Some(keeper.clone())).await.unwrap();
    let port = broker.addresses()[0].address.port();
    let mut publisher = Command::new("mosquitto_pub")
        .args([
            "-h",
            "localhost",
            "-p",
            &port.to_string(),
            "-t",
            "kept/x",
            "-q",
            "1",
            "-l",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    publisher
        .stdin
        .take()
        .unwrap()
        .write_all(numbered_lines(100).as_bytes())
        .unwrap();
    for _ in 0..100 {
        let receipt = keeper.receipt().await;
        assert!(
            keeper.0.lock().unwrap().len() <= 4,
            "more are held than the window allows"
        );
        receipt.answer(Kept::Committed);
    }
    let ended = wait_for("mosquitto_pub's end", || publisher.try_wait().unwrap()).await;
    assert!(ended.success());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_the_process_and_on_sockets_hear_each_other() {
    let (broker, port) = started(&plain()).await;
    let mut local = broker.local("inside");
    local.subscribe(TopicFilter::parse("to/inside").unwrap(), QoS::AtLeastOnce);
    let mut subscriber = Subscriber::start(port, &["-t", "to/outside", "-q", "1"]);
    subscriptions(&broker, 2).await;
    drop(local.publish(Message::new(topic("to/outside"), "out")));
    assert_eq!(subscriber.line().await, "to/outside 1 0 out");
    assert!(publishes(port, &["-t", "to/inside", "-q", "1", "-m", "in"]).await);
    let delivery = tokio::time::timeout(PATIENCE, local.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&delivery.message.payload[..], b"in");
    let waiting = tokio::spawn(async move { local.recv().await.is_none() });
    broker.shutdown().await;
    assert!(
        waiting.await.unwrap(),
        "a stopped broker ends its consumers"
    );
}

/// A throwaway authority with a server and clients.
struct Pki {
    directory: tempfile::TempDir,
    authority: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Pki {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        let pki = Pki {
            directory,
            authority: Issuer::new(params, key),
        };
        pki.issue(
            "server",
            &CertificateParams::new(vec!["localhost".to_owned()]).unwrap(),
        );
        pki
    }

    fn client(&self, name: &str) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        self.issue(name, &params);
    }

    fn client_by_uri(&self, file: &str, uri: &str) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        self.issue(file, &params);
    }

    fn issue(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.path(name, "crt"), certificate.pem()).unwrap();
        std::fs::write(self.path(name, "key"), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.{kind}"))
    }

    fn tls(&self, client_auth: Option<ClientAuth>) -> ListenerTls {
        ListenerTls {
            certificate: self.path("server", "crt"),
            key: self.path("server", "key"),
            client_ca: Some(self.path("ca", "crt")),
            client_auth,
            ..ListenerTls::default()
        }
    }

    fn arguments(&self, client: Option<&str>) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut arguments = vec!["--cafile".to_owned(), text(&self.path("ca", "crt"))];
        if let Some(client) = client {
            arguments.extend(["--cert".to_owned(), text(&self.path(client, "crt"))]);
            arguments.extend(["--key".to_owned(), text(&self.path(client, "key"))]);
        }
        arguments
    }
}

fn rule(user: &str, publish: &str, subscribe: &str) -> AccessRule {
    AccessRule {
        user: Some(user.to_owned()),
        client: None,
        publish: vec![TopicPattern(publish.to_owned())],
        subscribe: vec![TopicPattern(subscribe.to_owned())],
    }
}

async fn publishes_with(port: u16, tls: &[String], arguments: &[&str]) -> bool {
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    publishes(port, &[&tls[..], arguments].concat()).await
}

fn refused(broker: &Broker, rule: &str) -> u64 {
    broker
        .status()
        .counters
        .refused
        .get(rule)
        .copied()
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_names_its_client_and_none_is_no_way_in() {
    let pki = Pki::new();
    pki.client("press-3");
    pki.client_by_uri("by-uri", "urn:plant:robot");
    let config = Config {
        listeners: vec![
            listener(Some(pki.tls(None))),
            Listener {
                certificate_name: CertificateName::Uri,
                ..listener(Some(pki.tls(None)))
            },
        ],
        access: vec![
            rule("press-3", "telemetry/%u/#", "telemetry/#"),
            rule("urn:plant:robot", "robot", "robot"),
        ],
        ..Config::default()
    };
    let (broker, port) = started(&config).await;
    let press = pki.arguments(Some("press-3"));
    let mut arguments: Vec<&str> = press.iter().map(String::as_str).collect();
    arguments.extend(["-t", "telemetry/#", "-q", "1"]);
    let mut subscriber = Subscriber::start(port, &arguments);
    subscriptions(&broker, 1).await;
    assert_eq!(
        broker.status().clients[0].identity.as_deref(),
        Some("press-3")
    );

    assert!(
        publishes_with(
            port,
            &press,
            &["-t", "telemetry/press-3/x", "-q", "1", "-m", "1"]
        )
        .await
    );
    assert_eq!(subscriber.line().await, "telemetry/press-3/x 1 0 1");
    publishes_with(
        port,
        &press,
        &["-t", "telemetry/press-4/x", "-q", "1", "-m", "1"],
    )
    .await;
    assert_eq!(refused(&broker, "publish-not-allowed"), 1);

    let uri = pki.arguments(Some("by-uri"));
    let by_uri = broker.addresses()[1].address.port();
    assert!(publishes_with(by_uri, &uri, &["-t", "robot", "-q", "1", "-m", "1"]).await);
    assert_eq!(refused(&broker, "publish-not-allowed"), 1);

    let nobody = pki.arguments(None);
    assert!(!publishes_with(port, &nobody, &["-t", "telemetry/press-3/x", "-m", "1"]).await);
    assert_eq!(
        wait_for("the refusal", || Some(refused(&broker, "handshake"))
            .filter(|n| *n > 0))
        .await,
        1
    );
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_swaps_rules_and_listeners_without_a_pause_for_the_rest() {
    let pki = Pki::new();
    let everyone = AccessRule {
        user: None,
        ..rule("", "#", "#")
    };
    let mut config = Config {
        access: vec![everyone],
        ..plain()
    };
    let (broker, port) = started(&config).await;
    let mut subscriber = Subscriber::start(port, &["-t", "t", "-q", "1"]);
    subscriptions(&broker, 1).await;

    config
        .listeners
        .push(listener(Some(pki.tls(Some(ClientAuth::None)))));
    let reloaded = broker.reload(&config).await.unwrap();
    assert_eq!(
        (
            reloaded.opened.len(),
            reloaded.closed.len(),
            reloaded.disconnected
        ),
        (1, 0, 0)
    );
    assert!(publishes(port, &["-t", "t", "-q", "1", "-m", "still here"]).await);
    assert_eq!(subscriber.line().await, "t 1 0 still here");

    let mut bad = config.clone();
    let unreadable = ListenerTls {
        certificate: "/none".into(),
        ..pki.tls(None)
    };
    bad.listeners.push(listener(Some(unreadable)));
    assert!(matches!(
        broker.reload(&bad).await,
        Err(StartError::Tls { .. })
    ));
    assert_eq!(broker.addresses().len(), 2);

    // mosquitto_pub has ended; the broker may not have seen that yet.
    wait_for("the subscriber to be the only client", || {
        (broker.status().clients.len() == 1).then_some(())
    })
    .await;
    config.access = vec![rule("nobody", "#", "#")];
    config.listeners.pop();
    let reloaded = broker.reload(&config).await.unwrap();
    assert_eq!((reloaded.closed.len(), reloaded.disconnected), (1, 1));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_broker_frees_its_address_at_once() {
    let (broker, port) = started(&plain()).await;
    let subscriber = Subscriber::start(port, &["-t", "t"]);
    subscriptions(&broker, 1).await;
    broker.shutdown().await;
    let mut again = plain();
    again.listeners[0].address = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let (second, _) = started(&again).await;
    let taken = Broker::start(&again, None).await;
    assert!(matches!(taken, Err(StartError::Bind { .. })));
    second.shutdown().await;
    drop(subscriber);
}

//! Clients that others wrote, over real sockets: mosquitto_pub and mosquitto_sub, both versions.
//! Every wait is for a condition, with a deadline.
#![expect(clippy::unwrap_used, reason = "tests")]

mod peers;

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use broker_lite::{
    config::{AccessRule, Config, Limits, Listener},
    keeper::{Keeper, Kept, Receipt},
    message::Message,
    packet::QoS,
    server::{Broker, Published, StartError},
    topic::{TopicFilter, TopicName},
};
use peers::{PATIENCE, Subscriber, publishes, subscriptions, wait_for};

const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

fn plain() -> Config {
    Config {
        listeners: vec![Listener::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))],
        access: vec![AccessRule::everything()],
        ..Config::default()
    }
}

async fn started(config: &Config) -> (Broker, u16) {
    let broker = Broker::start(config, None).await.unwrap();
    let port = broker.addresses()[0].address.port();
    (broker, port)
}

fn topic(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

/// 3.1.1: [MQTT-7.0.0-2] [MQTT-7.1.1-1]
/// 5.0: [MQTT-4.2.0-1]
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
    let publisher = delivery.publisher.expect("who published it");
    assert_eq!(
        (publisher.user, publisher.address.is_loopback()),
        (None, true)
    );
    assert!(
        !publisher.client.is_empty(),
        "the identifier that was assigned"
    );
    drop(local.publish(Message::new(topic("to/inside"), "own")));
    let own = tokio::time::timeout(PATIENCE, local.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(own.publisher.expect("itself").client, "inside");
    let waiting = tokio::spawn(async move { local.recv().await.is_none() });
    broker.shutdown().await;
    assert!(
        waiting.await.unwrap(),
        "a stopped broker ends its consumers"
    );
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

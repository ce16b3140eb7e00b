//! The link's promises, against a real Mosquitto over mutual TLS.
#![expect(clippy::disallowed_methods, reason = "tests measure time")]

mod drain;
mod plant;
mod proxies;
mod reaching;
mod rotation;

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
    topic::{TopicFilter, TopicName},
};
use nix::{sys::signal, unistd::Pid};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use settings::Period;
use tempfile::TempDir;
use tokio::time::sleep;

use super::*;
use crate::{
    config::{Forward, Protocol, Receive, Upstream, Url, Urls},
    payload,
};
use plant::*;

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
async fn a_command_that_a_crash_may_have_kept_from_the_broker_comes_again_and_says_so() {
    let mut plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let link = plant.link(&broker, |_| {});
    wait_until("connected", || link.status().is_connected()).await;
    plant.command(&broker, "gw-1/command/m/voltage", "230");
    let first = plant.next_incoming().await;
    assert!(!payload::is_repeated(&first.message));
    link.stop().await;
    // In a crash neither an acknowledgement nor the lack of one is told.
    std::mem::forget(first);
    plant.reopen_buffer().await;

    let link = plant.link(&broker, |_| {});
    let again = plant.next_incoming().await;
    assert_eq!(&again.message.payload[..], b"230");
    assert!(payload::is_repeated(&again.message));
    again.ack.acknowledge();
    plant.command(&broker, "gw-1/command/m/voltage", "230");
    let next = plant.next_incoming().await;
    assert!(
        !payload::is_repeated(&next.message),
        "an equal command is another"
    );
    next.ack.acknowledge();
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
    assert_eq!(offer(&config).unwrap().expired(), None);
    late(&mut config);
    let end = offer(&config).unwrap().expired().unwrap().to_string();
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
    let error = offer(&config).unwrap_err().to_string();
    assert!(
        error.contains("does not belong to the certificate"),
        "{error}"
    );

    config.ca = Some(plant.path("nothing.pem"));
    let error = offer(&config).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ca "), "{error}");
}

//! Promise: a reload takes effect as a whole or not at all; who remains allowed stays connected, and
//! who does not is sent away.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use broker_lite::{
    config::{AccessRule, ClientAuth, Config, IdentitySource, Listener, ListenerTls},
    server::{Broker, StartError},
};

use crate::{
    loopback, open_to_all,
    peers::{Subscriber, publishes, subscriptions, wait_for},
    pki::Pki,
    port, refusals,
};

/// The client identifiers that are connected.
fn present(broker: &Broker) -> Vec<String> {
    let clients = broker.status().clients;
    clients.into_iter().map(|client| client.id).collect()
}

async fn only(broker: &Broker, expected: &[&str]) {
    wait_for(&format!("{expected:?} to be the only clients"), || {
        (present(broker) == expected).then_some(())
    })
    .await;
}

/// A subscriber that shows a certificate of this name, and whose identifier it is.
fn with_certificate(pki: &Pki, port: u16, name: &str) -> Subscriber {
    let arguments = pki.arguments(Some(name));
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["-i", name, "-t", "t"]);
    Subscriber::start(port, &arguments)
}

async fn publishes_as(pki: &Pki, port: u16, name: &str) -> bool {
    let arguments = pki.arguments(Some(name));
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["-t", "u", "-q", "1", "-m", "x"]);
    publishes(port, &arguments).await
}

fn secured(pki: &Pki, crl: Vec<PathBuf>) -> Config {
    let tls = ListenerTls {
        crl,
        ..pki.tls(None)
    };
    open_to_all(vec![Listener {
        tls: Some(tls),
        ..loopback()
    }])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_swaps_rules_and_listeners_without_a_pause_for_the_rest() {
    let pki = Pki::new();
    let mut config = open_to_all(vec![loopback()]);
    let broker = Broker::start(&config, None).await.unwrap();
    let plain = port(&broker, 0);
    let mut subscriber = Subscriber::start(plain, &["-i", "here", "-t", "t", "-q", "1"]);
    subscriptions(&broker, 1).await;

    config.listeners.push(Listener {
        tls: Some(pki.tls(Some(ClientAuth::None))),
        ..loopback()
    });
    let reloaded = broker.reload(&config).await.unwrap();
    assert_eq!((reloaded.opened.len(), reloaded.disconnected), (1, 0));
    assert!(reloaded.closed.is_empty());
    assert!(publishes(plain, &["-t", "t", "-q", "1", "-m", "still here"]).await);
    assert_eq!(subscriber.line().await, "t 1 0 still here");

    // mosquitto_pub has ended; the broker may not have seen that yet.
    only(&broker, &["here"]).await;
    config.access = vec![AccessRule {
        user: Some("nobody".to_owned()),
        ..AccessRule::everything()
    }];
    config.listeners.pop();
    let reloaded = broker.reload(&config).await.unwrap();
    assert_eq!((reloaded.closed.len(), reloaded.disconnected), (1, 1));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_configuration_it_changes_nothing() {
    let pki = Pki::new();
    pki.client("good", 2);
    let revoked = pki.revoke(&[]);
    let config = secured(&pki, vec![revoked.clone()]);
    let broker = Broker::start(&config, None).await.unwrap();
    let _good = with_certificate(&pki, port(&broker, 0), "good");
    subscriptions(&broker, 1).await;
    let socket = pki.path("broker", "sock");

    type Damage<'a> = &'a dyn Fn(&mut ListenerTls);
    let unreadable = PathBuf::from("/none");
    let no_list = pki.path("ca", "crt");
    let damages: [Damage<'_>; 5] = [
        &|tls| tls.certificate = unreadable.clone(),
        &|tls| tls.key = pki.path("good", "key"),
        &|tls| tls.client_ca = Some(unreadable.clone()),
        &|tls| tls.crl = vec![unreadable.clone()],
        &|tls| tls.crl = vec![no_list.clone()],
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut bad = config.clone();
        bad.access = Vec::new();
        // Bound first, and given back.
        bad.listeners.insert(0, Listener::on(&socket));
        damage(bad.listeners[1].tls.as_mut().unwrap());
        let refused = broker.reload(&bad).await;
        assert!(
            matches!(refused, Err(StartError::Tls { .. })),
            "{number}: {refused:?}"
        );
        assert!(!socket.exists(), "{number}");
        assert_eq!(broker.addresses().len(), 1);
        only(&broker, &["good"]).await;
        assert!(
            publishes_as(&pki, port(&broker, 0), "good").await,
            "{number}"
        );
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_client_is_refused_and_sent_away_and_the_others_stay() {
    let pki = Pki::new();
    pki.client("good", 2);
    pki.client("stolen", 3);
    let config = secured(&pki, vec![pki.revoke(&[9])]);
    let broker = Broker::start(&config, None).await.unwrap();
    let place = port(&broker, 0);
    let _good = with_certificate(&pki, place, "good");
    let _stolen = with_certificate(&pki, place, "stolen");
    subscriptions(&broker, 2).await;
    assert_eq!(broker.reload(&config).await.unwrap().disconnected, 0);

    pki.revoke(&[9, 3]);
    assert_eq!(broker.reload(&config).await.unwrap().disconnected, 1);
    only(&broker, &["good"]).await;
    refusals(&broker, "certificate-revoked", 1).await;
    assert!(!publishes_as(&pki, place, "stolen").await);
    refusals(&broker, "certificate-revoked", 2).await;
    assert!(publishes_as(&pki, place, "good").await);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_removed_is_no_longer_trusted() {
    let (old, new) = (Pki::new(), Pki::new());
    old.client("of-old", 2);
    new.client("of-new", 2);
    let both = old.path("both", "crt");
    let certificates =
        [&old, &new].map(|pki| std::fs::read_to_string(pki.path("ca", "crt")).unwrap());
    std::fs::write(&both, certificates.concat()).unwrap();
    let mut config = secured(&new, Vec::new());
    config.listeners[0].tls.as_mut().unwrap().client_ca = Some(both);
    let broker = Broker::start(&config, None).await.unwrap();
    let place = port(&broker, 0);
    let _new = with_certificate(&new, place, "of-new");
    let arguments = old.arguments(Some("of-old"));
    let authority = new.path("ca", "crt").display().to_string();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments[1] = &authority;
    let _old = Subscriber::start(
        place,
        &[&arguments[..], &["-i", "of-old", "-t", "t"]].concat(),
    );
    subscriptions(&broker, 2).await;

    config.listeners[0].tls.as_mut().unwrap().client_ca = Some(new.path("ca", "crt"));
    assert_eq!(broker.reload(&config).await.unwrap().disconnected, 1);
    only(&broker, &["of-new"]).await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_certificates_become_required_those_without_one_are_sent_away() {
    let pki = Pki::new();
    pki.client("good", 2);
    let mut config = open_to_all(vec![Listener {
        tls: Some(pki.tls(Some(ClientAuth::Optional))),
        anonymous: Some(true),
        ..loopback()
    }]);
    let broker = Broker::start(&config, None).await.unwrap();
    let port = port(&broker, 0);
    let _good = with_certificate(&pki, port, "good");
    subscriptions(&broker, 1).await;
    let arguments = pki.arguments(None);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["-i", "without", "-t", "t"]);
    let _without = Subscriber::start(port, &arguments);
    subscriptions(&broker, 2).await;

    config.listeners[0].tls = Some(pki.tls(Some(ClientAuth::Required)));
    let reloaded = broker.reload(&config).await.unwrap();
    assert_eq!(reloaded.disconnected, 1);
    only(&broker, &["good"]).await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_whom_a_listener_no_longer_lets_in_is_sent_away() {
    let pki = Pki::new();
    pki.client("named", 2);
    let tls = pki.tls(Some(ClientAuth::Optional));
    let mut config = secured(&pki, Vec::new());
    config.listeners[0].anonymous = Some(true);
    config.listeners[0].tls = Some(tls);
    let broker = Broker::start(&config, None).await.unwrap();
    let place = port(&broker, 0);
    let _named = with_certificate(&pki, place, "named");
    let arguments = pki.arguments(None);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["-i", "unknown", "-t", "t"]);
    let _unknown = Subscriber::start(place, &arguments);
    subscriptions(&broker, 2).await;

    config.listeners[0].connections = Some(100);
    assert_eq!(broker.reload(&config).await.unwrap().disconnected, 0);
    config.listeners[0].anonymous = Some(false);
    assert_eq!(broker.reload(&config).await.unwrap().disconnected, 1);
    only(&broker, &["named"]).await;
    config.listeners[0].identity = IdentitySource::Password;
    assert_eq!(broker.reload(&config).await.unwrap().disconnected, 1);
    broker.shutdown().await;
}

/// Whether openssl resumes the session that it keeps; if not, it keeps the new one.
async fn resumes(pki: &Pki, port: u16, version: &str) -> bool {
    let path = |name: &str, kind: &str| pki.path(name, kind).display().to_string();
    let (stored, fresh) = (pki.path("session", "pem"), pki.path("fresh", "pem"));
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            version,
            "-connect",
            &format!("localhost:{port}"),
        ])
        .args([
            "-CAfile",
            &path("ca", "crt"),
            "-sess_out",
            &path("fresh", "pem"),
        ])
        .args([
            "-cert",
            &path("client", "crt"),
            "-key",
            &path("client", "key"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if stored.exists() {
        command.args(["-sess_in", &path("session", "pem")]);
    }
    let mut child = command.spawn().expect("openssl is installed");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let kind = lines
        .map_while(Result::ok)
        .find(|line| line.starts_with("New, ") || line.starts_with("Reused, "));
    let resumed = kind.expect("a handshake").starts_with("Reused");
    if !resumed {
        // TLS 1.3 sends its ticket after the handshake.
        wait_for("a ticket", || {
            fresh
                .metadata()
                .is_ok_and(|file| file.len() > 0)
                .then_some(())
        })
        .await;
        std::fs::rename(fresh, stored).unwrap();
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    resumed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_resumes_a_session_until_the_next_reload() {
    for version in ["-tls1_2", "-tls1_3"] {
        let pki = Pki::new();
        pki.client("client", 2);
        let config = secured(&pki, vec![pki.revoke(&[])]);
        let broker = Broker::start(&config, None).await.unwrap();
        let place = port(&broker, 0);
        assert!(
            !resumes(&pki, place, version).await,
            "{version}: there is nothing to resume"
        );
        assert!(
            resumes(&pki, place, version).await,
            "{version}: it saves a handshake"
        );
        broker.reload(&config).await.unwrap();
        assert!(
            !resumes(&pki, place, version).await,
            "{version}: all is checked anew"
        );
        broker.shutdown().await;
    }
}

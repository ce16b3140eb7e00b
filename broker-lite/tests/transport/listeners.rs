//! Promise: each listener lets in whom its configuration says, over whatever it is reached, and
//! knows them by what it says.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    os::unix::net::UnixListener,
    path::Path,
};

use broker_lite::{
    config::{
        AccessRule, CertificateName, ClientAuth, Config, IdentitySource, Limits, Listener,
        TopicPattern, User,
    },
    observe::status::Address,
    server::{Broker, StartError},
};
use rcgen::DnValue;

use crate::{
    loopback, open_to_all,
    peers::{Subscriber, publishes, publishes_at, subscriptions},
    pki::Pki,
    port, refusals, refused,
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_this_machine_talk_over_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let listener = Listener {
        mode: "0600".parse().unwrap(),
        ..Listener::on(&path)
    };
    let broker = Broker::start(&open_to_all(vec![listener]), None)
        .await
        .unwrap();
    let place = ["--unix", text(&path)];
    let mut subscriber = Subscriber::at(&place, &["-t", "t", "-q", "2"]);
    subscriptions(&broker, 1).await;
    assert!(publishes_at(&place, &["-t", "t", "-q", "2", "-m", "x"]).await);
    assert_eq!(subscriber.line().await, "t 2 0 x");
    let address = broker.status().clients[0].address;
    assert!(matches!(address, Address::Unix { .. }), "{address}");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    broker.shutdown().await;
    assert!(!path.exists(), "a stopped broker leaves no socket behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_nobody_answers_is_replaced_and_no_other_file_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let config = open_to_all(vec![Listener::on(&path)]);
    // Closed without removing its file, as by a kill.
    drop(UnixListener::bind(&path).unwrap());
    let broker = Broker::start(&config, None).await.unwrap();
    assert!(publishes_at(&["--unix", text(&path)], &["-t", "t", "-q", "1", "-m", "x"]).await);

    let second = Broker::start(&config, None).await;
    assert!(matches!(second, Err(StartError::Bind { .. })));
    assert!(publishes_at(&["--unix", text(&path)], &["-t", "t", "-q", "1", "-m", "x"]).await);
    broker.shutdown().await;

    std::fs::write(&path, "precious").unwrap();
    let third = Broker::start(&config, None).await;
    assert!(matches!(third, Err(StartError::Bind { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_over_a_unix_socket_lock_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    let config = Config {
        limits: Limits {
            authentication_failures: 1,
            connections_per_address: 1,
            ..Limits::default()
        },
        ..open_to_all(vec![Listener::on(&path)])
    };
    let broker = Broker::start(&config, None).await.unwrap();
    let place = ["--unix", text(&path)];
    let _present = Subscriber::at(&place, &["-t", "t"]);
    subscriptions(&broker, 1).await;
    for _ in 0..3 {
        assert!(!publishes_at(&place, &["-u", "ann", "-P", "guess", "-t", "t", "-m", "x"]).await);
    }
    assert!(publishes_at(&place, &["-t", "t", "-q", "1", "-m", "x"]).await);
    assert_eq!(refused(&broker, "authentication"), 3);
    assert_eq!(refused(&broker, "banned"), 0);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_listener_takes_nothing_from_another() {
    let narrow = Listener {
        connections: Some(1),
        ..loopback()
    };
    let broker = Broker::start(&open_to_all(vec![narrow, loopback()]), None)
        .await
        .unwrap();
    let only = Subscriber::start(port(&broker, 0), &["-t", "t"]);
    subscriptions(&broker, 1).await;
    assert!(!publishes(port(&broker, 0), &["-t", "t", "-m", "x"]).await);
    assert_eq!(refused(&broker, "too-many-connections-on-listener"), 1);
    assert!(publishes(port(&broker, 1), &["-t", "t", "-q", "1", "-m", "x"]).await);
    drop(only);
    subscriptions(&broker, 0).await;
    assert!(publishes(port(&broker, 0), &["-t", "t", "-q", "1", "-m", "x"]).await);
    broker.shutdown().await;
}

/// `press-3` with a password, and its own topic.
fn with_users(pki: &Pki, listeners: Vec<Listener>) -> Config {
    let secret = pki.path("password", "txt");
    std::fs::write(&secret, "right").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let user = |name: &str| User {
        name: name.to_owned(),
        password: settings::Secret::File(secret.clone()),
    };
    let own = AccessRule {
        publish: vec![TopicPattern("of/%u".to_owned())],
        ..AccessRule::default()
    };
    Config {
        listeners,
        access: vec![own],
        users: vec![user("press-3"), user("ann")],
        ..Config::default()
    }
}

fn identified_by(pki: &Pki, identity: IdentitySource) -> Listener {
    Listener {
        identity,
        tls: Some(pki.tls(Some(ClientAuth::Optional))),
        ..loopback()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_known_by_what_its_listener_goes_by() {
    let pki = Pki::new();
    pki.client("press-3", 2);
    use IdentitySource::{Both, Certificate, Either, Password};
    let sources = [Either, Certificate, Password, Both];
    let listeners = sources.map(|source| identified_by(&pki, source)).to_vec();
    let broker = Broker::start(&with_users(&pki, listeners), None)
        .await
        .unwrap();

    let certificate = Some("press-3");
    for (client, user, admitted_as) in [
        (
            certificate,
            None,
            [Some("press-3"), Some("press-3"), None, None],
        ),
        (None, None, [None; 4]),
        (None, Some("ann"), [Some("ann"), None, Some("ann"), None]),
        (
            certificate,
            Some("ann"),
            [Some("press-3"), Some("press-3"), Some("ann"), None],
        ),
        (certificate, Some("press-3"), [Some("press-3"); 4]),
    ] {
        let mut arguments = pki.arguments(client);
        if let Some(user) = user {
            arguments.extend(["-u", user, "-P", "right"].map(str::to_owned));
        }
        for (listener, expected) in admitted_as.into_iter().enumerate() {
            let before = refused(&broker, "publish-not-allowed");
            let topic = format!("of/{}", expected.unwrap_or("nobody"));
            let own = ["-V", "mqttv5", "-q", "1", "-m", "x", "-t", &topic];
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let done = publishes(port(&broker, listener), &[&arguments[..], &own].concat()).await;
            let source = sources[listener];
            assert_eq!(
                done,
                expected.is_some(),
                "{client:?} {user:?} by {source:?}"
            );
            assert_eq!(
                refused(&broker, "publish-not-allowed"),
                before,
                "{client:?} {user:?} by {source:?} is someone else than {expected:?}"
            );
        }
    }
    let mut wrong = pki.arguments(certificate);
    wrong.extend(
        [
            "-u",
            "press-3",
            "-P",
            "wrong",
            "-t",
            "of/press-3",
            "-m",
            "x",
        ]
        .map(str::to_owned),
    );
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    assert!(!publishes(port(&broker, 3), &wrong).await);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_one_plain_name_is_refused_by_name() {
    let pki = Pki::new();
    let bmp = DnValue::BmpString("press".try_into().unwrap());
    let names: [(&str, Vec<DnValue>); 5] = [
        ("none", vec![]),
        ("empty", vec!["".into()]),
        ("wildcard", vec!["press/+".into()]),
        ("control", vec!["press\n3".into()]),
        ("not-utf8", vec![bmp]),
    ];
    let listener = identified_by(&pki, IdentitySource::Certificate);
    let mut config = with_users(&pki, vec![listener]);
    config.access = vec![AccessRule::everything()];
    let broker = Broker::start(&config, None).await.unwrap();
    for (serial, (file, names)) in (2..).zip(names) {
        pki.client_named(file, serial, &names);
        let before = refused(&broker, "handshake");
        let mut arguments = pki.arguments(Some(file));
        arguments.extend(["-t", "t", "-q", "1", "-m", "x"].map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert!(!publishes(port(&broker, 0), &arguments).await, "{file}");
        refusals(&broker, "handshake", before + 1).await;
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_names_its_client_and_none_is_no_way_in() {
    let pki = Pki::new();
    pki.client("press-3", 2);
    pki.client_by_uri("by-uri", 3, "urn:plant:robot");
    let tls = || Listener {
        tls: Some(pki.tls(None)),
        ..loopback()
    };
    let by_uri = Listener {
        certificate_name: CertificateName::Uri,
        ..tls()
    };
    let config = Config {
        access: vec![
            rule("press-3", "telemetry/%u/#", "telemetry/#"),
            rule("urn:plant:robot", "robot", "robot"),
        ],
        ..open_to_all(vec![tls(), by_uri])
    };
    let broker = Broker::start(&config, None).await.unwrap();
    let by_name = port(&broker, 0);
    let press = pki.arguments(Some("press-3"));
    let mut arguments: Vec<&str> = press.iter().map(String::as_str).collect();
    arguments.extend(["-t", "telemetry/#", "-q", "1"]);
    let mut subscriber = Subscriber::start(by_name, &arguments);
    subscriptions(&broker, 1).await;
    let identity = broker.status().clients[0].identity.clone();
    assert_eq!(identity.as_deref(), Some("press-3"));

    for version in ["tlsv1.2", "tlsv1.3"] {
        let own = [
            "--tls-version",
            version,
            "-t",
            "telemetry/press-3/x",
            "-q",
            "1",
            "-m",
            version,
        ];
        assert!(publishes_with(by_name, &press, &own).await);
        let line = subscriber.line().await;
        assert_eq!(line, format!("telemetry/press-3/x 1 0 {version}"));
    }
    let foreign = ["-t", "telemetry/press-4/x", "-q", "1", "-m", "1"];
    publishes_with(by_name, &press, &foreign).await;
    assert_eq!(refused(&broker, "publish-not-allowed"), 1);

    let uri = pki.arguments(Some("by-uri"));
    let robot = ["-t", "robot", "-q", "1", "-m", "1"];
    assert!(publishes_with(port(&broker, 1), &uri, &robot).await);
    assert!(
        !publishes_with(by_name, &uri, &robot).await,
        "it has no common name"
    );
    refusals(&broker, "handshake", 1).await;

    let nobody = pki.arguments(None);
    assert!(!publishes_with(by_name, &nobody, &robot).await);
    refusals(&broker, "handshake", 2).await;
    broker.shutdown().await;
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

/// A ClientHello that offers TLS 1.1 at most, which openssl's own clients no longer send.
const TLS_1_1: &[u8] = &[
    0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0, 0, 2, 0xC0, 0x13, 1, 0,
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_tls_1_2_is_refused_with_an_alert() {
    let pki = Pki::new();
    let listener = identified_by(&pki, IdentitySource::Either);
    let broker = Broker::start(&open_to_all(vec![listener]), None)
        .await
        .unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port(&broker, 0))).unwrap();
    stream.write_all(TLS_1_1).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:02x?}");
    refusals(&broker, "handshake", 1).await;
    broker.shutdown().await;
}

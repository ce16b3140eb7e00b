//! Attacks on the way in: AUTH out of turn, and passwords by the hundred.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use broker_lite::packet::{
    Auth, Authentication, Connect, Credential, Packet, ReasonCode, Text, Version,
};

use crate::{
    bytes_on_the_wire::{Client, ELSEWHERE, End, HERE, connect},
    victim::{LONGEST_WAIT, Victim},
};

/// Puts a user into a password file, as its owner would.
pub(crate) fn add_user(file: &Path, name: &str, password: &str) {
    let secret = file.with_extension("secret");
    fs::write(&secret, password).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let added = Command::new(env!("CARGO_BIN_EXE_broker-lite"))
        .args(["passwd", "add"])
        .arg(file)
        .args([name, "--scram", "--password-file"])
        .arg(&secret)
        .output()
        .unwrap();
    assert!(added.status.success(), "{added:?}");
}

/// A plain listener that knows users with hashed passwords, and anonymous clients too.
pub(crate) fn with_passwords(file: &Path) -> String {
    format!(
        "password_file = {:?}\n[[listener]]\naddress = \"127.0.0.1:0\"\nanonymous = true\n\
         [[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n",
        file.display().to_string()
    )
}

pub(crate) fn login(user: &str, password: &[u8]) -> Connect {
    Connect {
        user_name: Some(Text::parse(user).unwrap()),
        password: Some(Credential(password.to_vec().into())),
        ..connect(&format!("of-{user}"), Version::V5)
    }
}

fn step(method: &str, data: &[u8]) -> Authentication {
    Authentication {
        method: Text::parse(method).unwrap(),
        data: (!data.is_empty()).then(|| Credential(data.to_vec().into())),
    }
}

fn auth(reason: ReasonCode, data: &[u8]) -> Packet {
    Packet::Auth(Auth {
        reason,
        authentication: Some(step("SCRAM-SHA-256", data)),
        details: None,
    })
}

/// A client that has asked to prove itself.
fn asking(victim: &Victim, method: &str, data: &[u8]) -> Client {
    let mut client = Client::silent(victim.address());
    let mut connect = connect("asking", Version::V5);
    connect.properties.authentication = Some(step(method, data));
    client.send(&Packet::Connect(Box::new(connect)));
    client
}

#[test]
fn auth_out_of_turn_without_end_or_of_absurd_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    add_user(&file, "press", "secret");
    let config = with_passwords(&file);
    Victim::start(folder, &config).survives("AUTH abuse", |victim| {
        let go_on = ReasonCode::ContinueAuthentication;
        let mut first = Client::silent(victim.address());
        first.send(&auth(go_on, b"n,,n=press,r=abc"));
        first.end();

        let mut uninvited = Client::connected(victim.address(), "uninvited");
        uninvited.send(&auth(ReasonCode::ReAuthenticate, b"n,,n=press,r=abc"));
        assert_eq!(uninvited.end(), End::Told(ReasonCode::ProtocolError));

        let mut endless = asking(victim, "SCRAM-SHA-256", b"");
        for _ in 0..100 {
            endless.send(&auth(go_on, b""));
        }
        assert_eq!(endless.end(), End::Told(ReasonCode::NotAuthorized));

        for absurd in [
            &[b'n'; 60_000][..],
            &[0xFF; 100],
            b"n,,n=,r=",
            b"p=x,,n=press,r=a",
            b",,,,,",
        ] {
            let mut client = asking(victim, "SCRAM-SHA-256", absurd);
            assert_eq!(
                client.end(),
                End::Told(ReasonCode::NotAuthorized),
                "{absurd:?}"
            );
            let mut client = asking(victim, "SCRAM-SHA-256", b"n,,n=press,r=abc");
            assert!(matches!(client.next(), Ok(Packet::Auth(_))));
            client.send(&auth(go_on, absurd));
            assert_eq!(
                client.end(),
                End::Told(ReasonCode::NotAuthorized),
                "{absurd:?}"
            );
        }
        let unknown = "M".repeat(60_000);
        assert_eq!(
            asking(victim, &unknown, b"x").end(),
            End::Told(ReasonCode::BadAuthenticationMethod)
        );
    });
}

/// Each costs 19 MiB and a processor for a moment.
#[test]
fn a_flood_of_logins_delays_that_of_another_address_by_one_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    add_user(&file, "press", "secret");
    let config = with_passwords(&file) + "[limits]\npassword_checks_waiting = 20\n";
    Victim::start(folder, &config).survives("login flood", |victim| {
        let mut flood: Vec<Client> = (0..150)
            .map(|number| {
                let mut client = Client::silent_from(ELSEWHERE, victim.address());
                let guess = login("press", format!("guess-{number}").as_bytes());
                client.send(&Packet::Connect(Box::new(guess)));
                client
            })
            .collect();
        let start = Instant::now();
        let own = Client::silent_from(HERE, victim.address()).welcomed(login("press", b"secret"));
        own.unwrap().round_trip_of_its_own("healthy/press");
        let wait = start.elapsed();
        println!("attack login flood: a login from another address waited {wait:?}");
        assert!(wait < LONGEST_WAIT, "{wait:?}");
        let ends: Vec<End> = flood.iter_mut().map(Client::end).collect();
        let told = |reason| ends.iter().filter(|end| **end == End::Told(reason)).count();
        let (wrong, busy) = (
            told(ReasonCode::BadUserNameOrPassword),
            told(ReasonCode::ServerBusy),
        );
        assert_eq!(wrong + busy, ends.len(), "{ends:?}");
        assert!(busy > 20, "{busy}");
        assert!(start.elapsed() < Duration::from_secs(30));
    });
}

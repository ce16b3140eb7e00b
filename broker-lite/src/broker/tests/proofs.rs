//! What MQTT and we promise: enhanced authentication (4.12).

use base64ct::{Base64, Encoding};
use ring::{digest, hmac, pbkdf2};

use super::*;
use crate::{
    login::password::{ScramKeys, Verifier},
    login::{Login, Logins},
    packet::Auth,
};

const METHOD: &str = "SCRAM-SHA-256";

/// "ann" with the password "secret", and "bob" who has no keys for SCRAM.
fn sim() -> Sim {
    let mut sim = Sim::new();
    sim.core.replace_rules(rules_with("secret"), sim.now);
    sim
}

fn rules_with(password: &str) -> crate::broker::Rules {
    let keys = ScramKeys::new(password, [3; 16]);
    let hash =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    let logins = vec![
        Login::kept("ann", None, Some(keys)),
        Login::kept("bob", Some(Verifier::parse(hash).unwrap()), None),
    ];
    crate::broker::Rules {
        logins: Logins::new(logins, [7; 32]),
        ..rules(Limits::default(), vec![allow(None, &["#"], &["#"])])
    }
}

fn step(method: &str, data: &str) -> Authentication {
    Authentication {
        method: Text::parse(method).unwrap(),
        data: (!data.is_empty()).then(|| Credential(data.to_owned().into())),
    }
}

fn asking(data: &str) -> Connect {
    let mut connect = hello(V5, "c");
    connect.properties.authentication = Some(step(METHOD, data));
    connect
}

fn auth(reason: ReasonCode, data: &str) -> Packet {
    Packet::Auth(Auth {
        reason,
        authentication: Some(step(METHOD, data)),
        details: None,
    })
}

fn first(user: &str) -> String {
    format!("n,,n={user},r=abcdefgh")
}

/// The data of the AUTH or CONNACK that came.
fn answer(sim: &mut Sim, client: Client) -> (ReasonCode, String) {
    let packet = sim.take(client).pop().expect("an answer");
    let (reason, step) = match packet {
        Packet::Auth(Auth {
            reason,
            authentication,
            ..
        }) => (reason, authentication),
        Packet::ConnAck(ack) => (ack.reason, ack.properties.authentication),
        other => panic!("no answer but {other:?}"),
    };
    let step = step.expect("the method is named");
    assert_eq!(step.method.as_str(), METHOD);
    let data = step.data.map_or(Vec::new(), |data| data.0.to_vec());
    (reason, String::from_utf8(data).unwrap())
}

/// What a client answers to `server-first-message`, and what it expects of the server then.
fn prove(user: &str, password: &str, server_first: &str) -> (String, String) {
    let field = |name: &str| {
        let fields = server_first.split(',');
        fields
            .filter_map(|field| field.strip_prefix(name))
            .next()
            .unwrap()
    };
    let salt = Base64::decode_vec(field("s=")).unwrap();
    let iterations = field("i=").parse().unwrap();
    let mut salted = [0; 32];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(
        algorithm,
        iterations,
        &salt,
        password.as_bytes(),
        &mut salted,
    );
    let sign = |key: &[u8], data: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, data).as_ref().to_vec()
    };
    let client_key = sign(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, &client_key);
    let bare = format!("c=biws,r={}", field("r="));
    let said = format!("n={user},r=abcdefgh,{server_first},{bare}");
    let signature = sign(stored_key.as_ref(), said.as_bytes());
    let proof: Vec<u8> = client_key
        .iter()
        .zip(signature)
        .map(|(a, b)| a ^ b)
        .collect();
    let server = sign(&sign(&salted, b"Server Key"), said.as_bytes());
    (
        format!("{bare},p={}", Base64::encode_string(&proof)),
        format!("v={}", Base64::encode_string(&server)),
    )
}

/// Lets "ann" in, and checks that the server has proved itself too.
fn let_in(sim: &mut Sim) -> Client {
    let client = sim.try_connect(asking(&first("ann")));
    let (reason, server_first) = answer(sim, client);
    assert_eq!(reason, ReasonCode::ContinueAuthentication);
    let (last, expected) = prove("ann", "secret", &server_first);
    sim.send(client, auth(ReasonCode::ContinueAuthentication, &last));
    assert_eq!(answer(sim, client), (ReasonCode::Success, expected));
    client
}

/// 5.0: [MQTT-4.12.0-2] [MQTT-4.12.0-5]
#[test]
fn a_client_that_proves_itself_is_let_in_as_that_user() {
    let mut sim = sim();
    let client = let_in(&mut sim);
    let status = sim.core.status(sim.now);
    assert_eq!(status.clients[0].identity.as_deref(), Some("ann"));
    assert_eq!(sim.subscribe(client, "t", at(0)), ReasonCode::Success);
}

#[test]
fn a_client_may_leave_its_first_message_to_auth() {
    let mut sim = sim();
    let client = sim.try_connect(asking(""));
    let empty = (ReasonCode::ContinueAuthentication, String::new());
    assert_eq!(answer(&mut sim, client), empty);
    sim.send(
        client,
        auth(ReasonCode::ContinueAuthentication, &first("ann")),
    );
    let (_, server_first) = answer(&mut sim, client);
    assert!(server_first.starts_with("r=abcdefgh"), "{server_first}");
}

#[test]
fn nonces_never_come_twice() {
    let mut sim = sim();
    let one = sim.try_connect(asking(&first("ann")));
    let other = sim.try_connect(asking(&first("ann")));
    assert_ne!(answer(&mut sim, one), answer(&mut sim, other));
}

/// 5.0: [MQTT-4.12.0-1]
#[test]
fn a_method_that_is_not_offered_is_refused() {
    let mut sim = sim();
    let mut connect = asking("x");
    connect.properties.authentication = Some(step("GSSAPI", "x"));
    let client = sim.try_connect(connect);
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::BadAuthenticationMethod)
    );
    assert!(sim.is_closed(client));
}

/// 5.0: [MQTT-4.12.0-4]
#[test]
fn strangers_and_wrong_passwords_are_refused_at_the_same_step_and_counted() {
    let mut sim = sim();
    for (user, password) in [("ann", "wrong"), ("nobody", "secret"), ("bob", "password")] {
        let client = sim.try_connect(asking(&first(user)));
        let (reason, server_first) = answer(&mut sim, client);
        assert_eq!(reason, ReasonCode::ContinueAuthentication, "{user}");
        let (last, _) = prove(user, password, &server_first);
        sim.send(client, auth(ReasonCode::ContinueAuthentication, &last));
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::NotAuthorized)
        );
        assert!(sim.is_closed(client));
    }
    assert_eq!(sim.refusals, [Refusal::Authentication; 3]);
}

/// 5.0: [MQTT-3.1.2-30] [MQTT-4.12.0-3]
#[test]
fn nothing_but_auth_and_disconnect_comes_before_connack() {
    let mut sim = sim();
    let other = step("OTHER", "x");
    for packet in [
        once("t", "x"),
        Packet::PingReq,
        Packet::Connect(Box::new(hello(V5, "c"))),
        auth(ReasonCode::ReAuthenticate, &first("ann")),
        Packet::Auth(Auth {
            reason: ReasonCode::ContinueAuthentication,
            authentication: Some(other),
            details: None,
        }),
    ] {
        let client = sim.try_connect(asking(&first("ann")));
        sim.send(client, packet.clone());
        assert!(sim.is_closed(client), "{packet:?} was taken");
    }
    assert_eq!(sim.refusals, [Refusal::ProtocolViolation; 5]);
    let client = sim.try_connect(asking(&first("ann")));
    sim.send(client, goodbye());
    assert!(sim.is_closed(client));
    assert_eq!(sim.refusals.len(), 5, "leaving is no violation");
}

#[test]
fn an_exchange_that_is_not_ended_ends_with_its_time() {
    let mut sim = sim();
    let client = sim.try_connect(asking(&first("ann")));
    sim.pass(Duration::from_secs(9));
    assert!(!sim.is_closed(client));
    sim.pass(Duration::from_secs(2));
    assert!(sim.is_closed(client));
}

#[test]
fn the_user_name_of_connect_must_be_the_one_that_is_proved() {
    let mut sim = sim();
    let mut connect = asking(&first("ann"));
    connect.user_name = Some(Text::parse("bob").unwrap());
    let client = sim.try_connect(connect);
    let (_, server_first) = answer(&mut sim, client);
    let (last, _) = prove("ann", "secret", &server_first);
    sim.send(client, auth(ReasonCode::ContinueAuthentication, &last));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::NotAuthorized)
    );
}

#[test]
fn a_login_that_changes_during_the_exchange_lets_nobody_in() {
    let mut sim = sim();
    let client = sim.try_connect(asking(&first("ann")));
    let (_, server_first) = answer(&mut sim, client);
    sim.core.replace_rules(rules_with("other"), sim.now);
    let (last, _) = prove("ann", "secret", &server_first);
    sim.send(client, auth(ReasonCode::ContinueAuthentication, &last));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::NotAuthorized)
    );
}

/// 5.0: [MQTT-4.12.0-5]
#[test]
fn a_client_may_prove_itself_again_and_is_served_meanwhile() {
    let mut sim = sim();
    let client = let_in(&mut sim);
    for _ in 0..2 {
        sim.send(client, auth(ReasonCode::ReAuthenticate, &first("ann")));
        let (reason, server_first) = answer(&mut sim, client);
        assert_eq!(reason, ReasonCode::ContinueAuthentication);
        assert_eq!(sim.subscribe(client, "t", at(0)), ReasonCode::Success);
        let (last, expected) = prove("ann", "secret", &server_first);
        sim.send(client, auth(ReasonCode::ContinueAuthentication, &last));
        assert_eq!(answer(&mut sim, client), (ReasonCode::Success, expected));
    }
    assert!(!sim.is_closed(client));
}

/// 5.0: [MQTT-4.12.1-2]
#[test]
fn whoever_fails_to_prove_itself_again_is_disconnected() {
    let mut sim = sim();
    let client = let_in(&mut sim);
    sim.send(client, auth(ReasonCode::ReAuthenticate, &first("ann")));
    let (_, server_first) = answer(&mut sim, client);
    let (last, _) = prove("ann", "wrong", &server_first);
    sim.send(client, auth(ReasonCode::ContinueAuthentication, &last));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::NotAuthorized)
    );
    assert!(sim.is_closed(client));
}

/// 5.0: [MQTT-4.12.0-7] [MQTT-4.12.1-1]
#[test]
fn auth_out_of_turn_ends_the_connection() {
    let mut sim = sim();
    let plain = sim.client(V5, "p");
    sim.send(plain, auth(ReasonCode::ReAuthenticate, &first("ann")));
    assert!(sim.is_closed(plain), "it named no method in CONNECT");
    for out_of_turn in [ReasonCode::ContinueAuthentication, ReasonCode::Success] {
        let client = let_in(&mut sim);
        sim.send(client, auth(out_of_turn, &first("ann")));
        assert!(sim.is_closed(client), "{out_of_turn}");
    }
    let client = let_in(&mut sim);
    sim.send(client, auth(ReasonCode::ReAuthenticate, &first("ann")));
    sim.send(client, auth(ReasonCode::ReAuthenticate, &first("ann")));
    assert!(sim.is_closed(client), "it began twice");
}

#[test]
fn a_client_of_scram_alone_may_also_send_its_password() {
    let mut sim = sim();
    let client = sim.try_connect(named("ann", "secret", "c"));
    assert!(sim.end_check());
    assert_eq!(last_reason(&mut sim, client), Some(ReasonCode::Success));
}

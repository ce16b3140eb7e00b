//! Attacks by way of what lies on the disk, and what outlives a right.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use broker_lite::packet::{Delivery, Packet, PacketId, ReasonCode};

use crate::{
    bytes_on_the_wire::{Client, publish},
    logins::{add_user, login, with_passwords},
    victim::Victim,
};

/// CVE-2018-12551: a user whose line was malformed was let in with any password.
#[test]
fn a_password_file_with_a_malformed_line_lets_nobody_in_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    add_user(&file, "press", "secret");
    let sound = fs::read_to_string(&file).unwrap();
    let config = with_passwords(&file);
    Victim::start(folder, &config).survives("CVE-2018-12551", |victim| {
        for line in [
            "intruder",
            "intruder:",
            "intruder:plain",
            "intruder:$7$",
            "intruder:$argon2id$",
            ":",
        ] {
            fs::write(&file, format!("{sound}{line}\n")).unwrap();
            let started = Command::new(env!("CARGO_BIN_EXE_broker-lite"))
                .arg("--config")
                .arg(victim.path("broker.toml"))
                .output()
                .unwrap();
            assert!(!started.status.success(), "{line}");
            victim.reload(&config, "configuration not applied");
            for password in [&b""[..], b"plain", b"secret"] {
                let intruder = Client::try_connected(victim.address(), login("intruder", password));
                assert!(intruder.is_err(), "{line}");
            }
            let press = Client::try_connected(victim.address(), login("press", b"secret"));
            assert!(press.is_ok(), "{line}");
        }
    });
}

/// CVE-2017-9868: everybody on the machine could read what the broker kept.
#[test]
fn files_that_others_may_read_are_refused_or_closed_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let (file, database) = (
        folder.path().join("passwords"),
        folder.path().join("broker.db"),
    );
    add_user(&file, "press", "secret");
    fs::write(&database, "").unwrap();
    fs::set_permissions(&database, Permissions::from_mode(0o644)).unwrap();
    let config = format!(
        "{}[persistence]\npath = {:?}\n",
        with_passwords(&file),
        database.display().to_string()
    );
    Victim::start(folder, &config).survives("CVE-2017-9868", |victim| {
        Client::connected(victim.address(), "somebody").round_trip_of_its_own("kept");
        let kept = fs::read_dir(victim.path(".")).unwrap().map(Result::unwrap);
        let of_store =
            kept.filter(|entry| entry.file_name().to_string_lossy().starts_with("broker.db"));
        let modes: Vec<u32> = of_store
            .map(|entry| entry.metadata().unwrap().permissions().mode() & 0o777)
            .collect();
        assert!(!modes.is_empty());
        assert!(modes.iter().all(|mode| mode & 0o077 == 0), "{modes:?}");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let refusal = victim.reload(&config, "configuration not applied");
        assert!(refusal.contains("every user may read"), "{refusal}");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        victim.reload(&config, "configuration reloaded");
    });
}

/// CVE-2018-12546: what a client had left went on being delivered.
#[test]
fn a_retained_message_goes_with_the_right_of_its_publisher() {
    let rules = |of_press: &str| {
        format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[access]]\nclient = \"press\"\npublish = [\"{of_press}\"]\n\
             [[access]]\nclient = \"reader\"\nsubscribe = [\"left/#\"]\n\
             [[access]]\npublish = [\"healthy/#\"]\nsubscribe = [\"healthy/#\"]\n"
        )
    };
    let victim = Victim::start(tempfile::tempdir().unwrap(), &rules("left/#"));
    victim.survives("CVE-2018-12546", |victim| {
        let mut press = Client::connected(victim.address(), "press");
        let delivery = Delivery::AtLeastOnce(PacketId::new(1).unwrap());
        let mut message = publish("left/behind", delivery, b"x");
        message.retain = true;
        press.send(&Packet::Publish(message));
        assert!(matches!(press.next(), Ok(Packet::PubAck(ack)) if ack.reason != ReasonCode::NotAuthorized));
        let read = || {
            let mut reader = Client::connected(victim.address(), "reader");
            reader.subscribe("left/#");
            reader.send(&Packet::PingReq);
            reader.next().unwrap()
        };
        assert!(matches!(read(), Packet::Publish(_)));
        victim.reload(&rules("other/#"), "configuration reloaded");
        assert!(matches!(read(), Packet::PingResp));
    });
}

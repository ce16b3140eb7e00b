//! Clients that come, and then take their time.

use std::{
    thread,
    time::{Duration, Instant},
};

use broker_lite::packet::{Delivery, Packet, PacketId, QoS, Version};

use crate::{
    bytes_on_the_wire::{Client, bytes_of, connect, publish, subscribe},
    victim::Victim,
};

/// What the broker under attack grants for CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two bytes of a client that only wants to stay.
const DRIP: Duration = Duration::from_millis(100);

fn impatient() -> Victim {
    Victim::with(
        "[[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
         [limits]\nconnect_timeout = \"1s\"\n",
    )
}

#[test]
fn clients_that_say_nothing_are_sent_away() {
    impatient().survives("slow-loris at TCP", |victim| {
        let mut silent: Vec<Client> = (0..200).map(|_| Client::silent(victim.address())).collect();
        let start = Instant::now();
        for client in &mut silent {
            client.end();
        }
        assert!(
            start.elapsed() < CONNECT_TIMEOUT * 5,
            "{:?}",
            start.elapsed()
        );
    });
}

/// Each byte must not buy more time.
#[test]
fn a_connect_that_comes_byte_by_byte_is_sent_away() {
    impatient().survives("slow-loris at CONNECT", |victim| {
        let whole = bytes_of(
            &Packet::Connect(Box::new(connect("a-name-of-some-length", Version::V5))),
            Version::V5,
        );
        assert!(DRIP * u32::try_from(whole.len()).unwrap() > CONNECT_TIMEOUT * 3);
        let mut clients: Vec<Client> = (0..50).map(|_| Client::silent(victim.address())).collect();
        let start = Instant::now();
        for byte in whole {
            thread::sleep(DRIP);
            for client in &mut clients {
                client.send_bytes(&[byte]);
            }
            if start.elapsed() > CONNECT_TIMEOUT * 2 {
                break;
            }
        }
        for client in &mut clients {
            assert_ne!(client.sooner_than(Duration::from_secs(5)), None);
        }
    });
}

/// Subscribers who do not read cost the publisher nothing, and the broker no more than their queues.
#[test]
fn consumers_that_do_not_read_slow_nobody() {
    Victim::open_to_all().survives("slow consumers", |victim| {
        let consumers: Vec<Client> = (0..40)
            .map(|number| {
                let mut client = Client::connected(victim.address(), &format!("deaf-{number}"));
                client.send(&Packet::Subscribe(subscribe("flood/#", QoS::AtLeastOnce)));
                client
            })
            .collect();
        let mut publisher = Client::connected(victim.address(), "publisher");
        let payload = vec![b'x'; 32 * 1024];
        for number in 0..2_000_u32 {
            let topic = format!("flood/{}", number % 7);
            let id = PacketId::new(u16::try_from(number % 8 + 1).unwrap()).unwrap();
            publisher.send(&Packet::Publish(publish(
                &topic,
                Delivery::AtLeastOnce(id),
                &payload,
            )));
            if number % 8 == 7 {
                for _ in 0..8 {
                    assert!(matches!(publisher.next(), Ok(Packet::PubAck(_))));
                }
            }
        }
        drop(consumers);
    });
}

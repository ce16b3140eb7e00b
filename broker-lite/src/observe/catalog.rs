//! The catalogue of what the broker tells: for each kind a message id that never changes, what it
//! means, and what to do about it. Values.
//!
//! Invariant: `docs/audit.md` and `systemd/broker-lite.catalog` say the same; a test writes and compares
//! them.

use crate::observe::audit::Refusal;

/// One kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The stable name, for searching logs and for metrics.
    pub(crate) name: &'static str,
    /// journald's MESSAGE_ID: 128 bits, drawn once.
    pub(crate) id: &'static str,
    /// Which key or standard decides.
    pub(crate) rule: &'static str,
    /// What has happened.
    pub(crate) means: &'static str,
    /// What the operator can do.
    pub(crate) remedy: &'static str,
}

pub(crate) const CONNECTED: Kind = Kind {
    name: "connected",
    id: "9cde41356edc4d13bd469b5c3be4eed1",
    rule: "-",
    means: "A client connected and was accepted.",
    remedy: "Nothing to do.",
};

pub(crate) const DISCONNECTED: Kind = Kind {
    name: "disconnected",
    id: "5a5cb6200d5b4fccba759357fc8a97d6",
    rule: "-",
    means: "A client left, was sent away, or was lost; REASON says which.",
    remedy: "Nothing to do, unless it was lost and does not come back.",
};

pub(crate) const BAN_BEGAN: Kind = Kind {
    name: "ban-began",
    id: "28dd6052c49344f6af39b2a1a6c4e31c",
    rule: "-",
    means: "An address failed to log in so often that it is not served for a while.",
    remedy: "If the device is known, correct its password or certificate. Otherwise somebody guesses from ADDRESS.",
};

pub(crate) const BAN_ENDED: Kind = Kind {
    name: "ban-ended",
    id: "932bac504de54647b2ceb0d48d52835a",
    rule: "-",
    means: "The time of a ban is over; the address is served again.",
    remedy: "Nothing to do.",
};

pub(crate) const MEMORY_SHORT: Kind = Kind {
    name: "memory-short",
    id: "1b036969f0d44879bad80c34fbb7fff1",
    rule: "limits.memory",
    means: "What the broker holds comes near to its bound; REASON says what gives way from now on. Told once for each step.",
    remedy: "See the queues in the status: find the client that does not take its messages, lower limits.queued_bytes or limits.session_expiry, or raise limits.memory.",
};

pub(crate) const MEMORY_ENOUGH: Kind = Kind {
    name: "memory-enough",
    id: "0915379c60894b3f9ad52cf209941f36",
    rule: "limits.memory",
    means: "Less than 60 % of limits.memory are in use again; nothing gives way any more.",
    remedy: "Nothing to do.",
};

pub(crate) const RELOADED: Kind = Kind {
    name: "reloaded",
    id: "3459e0a27d9b439483fb5da101a79f5d",
    rule: "-",
    means: "Another configuration is in force.",
    remedy: "Nothing to do; the fields say what changed.",
};

pub(crate) const RELOAD_REFUSED: Kind = Kind {
    name: "reload-refused",
    id: "ae053f3facaa4e44abdd7d355fe94a84",
    rule: "-",
    means: "A configuration was read and cannot be used; the one before stays in force.",
    remedy: "Correct what REASON names, and reload again.",
};

pub(crate) const STORE_FAILING: Kind = Kind {
    name: "store-failing",
    id: "f8883fe241d145d1a067262be92b3a7a",
    rule: "-",
    means: "Sessions and retained messages cannot be put on disk; what would be promised waits, and it is tried again.",
    remedy: "Is the disk full, read-only or gone? REASON bears the system's answer.",
};

pub(crate) const STORE_RECOVERED: Kind = Kind {
    name: "store-recovered",
    id: "1f2e424cec7743ecb81bcfb9590bd64a",
    rule: "-",
    means: "Sessions and retained messages are put on disk again.",
    remedy: "Nothing to do.",
};

pub(crate) const STORE_SALVAGED: Kind = Kind {
    name: "store-salvaged",
    id: "23196bf748e334c8f6ce46bb9e3bece6",
    rule: "-",
    means: "The file of sessions and retained messages was damaged. It is kept aside at ASIDE, and what could be read of it is in a fresh one; the fields count that.",
    remedy: "Find out why: the medium may be failing. Clients whose sessions are lost subscribe again. Delete the file kept aside once nobody wants to examine it.",
};

pub(crate) const PROBE_FAILED: Kind = Kind {
    name: "probe-failed",
    id: "047a4f2c0b9e4970a234d47c6f5fac58",
    rule: "-",
    means: "A message that the broker sent to itself did not come back; the watchdog is not fed.",
    remedy: "systemd restarts the service; keep the journal before that for a report.",
};

/// The kinds that refuse nothing.
#[cfg(test)]
const CHANGES: [Kind; 12] = [
    CONNECTED,
    DISCONNECTED,
    BAN_BEGAN,
    BAN_ENDED,
    MEMORY_SHORT,
    MEMORY_ENOUGH,
    RELOADED,
    RELOAD_REFUSED,
    STORE_FAILING,
    STORE_RECOVERED,
    STORE_SALVAGED,
    PROBE_FAILED,
];

impl Refusal {
    /// Its entry in the catalogue.
    pub(crate) fn kind(self) -> Kind {
        let (id, rule, means, remedy) = match self {
            Refusal::TooManyConnections => (
                "d5801bb5a70c4d749981e46c7211e4f6",
                "limits.connections",
                "The broker serves as many connections as it may; a new one was closed at once.",
                "Find out who connects so often (field ADDRESS), or raise limits.connections and the file descriptors of the service.",
            ),
            Refusal::TooManyConnectionsFromAddress => (
                "aa4a61050aaa41c2b1cdee077324e9a1",
                "limits.connections_per_address",
                "One address has as many connections as it may; a new one was closed at once.",
                "Look for a client that connects again without closing; raise limits.connections_per_address where many clients share an address.",
            ),
            Refusal::TooManyConnectionsOnListener => (
                "da74f013e8d542f59e5a43bf6beee874",
                "listener.connections",
                "A listener serves as many connections as its own bound allows.",
                "Raise connections of that [[listener]], or let clients use another one.",
            ),
            Refusal::TooManyHandshakes => (
                "f26335cc834447acbb39d9762e7afdaf",
                "limits",
                "More TLS handshakes are under way than may be at once; a new connection was closed before its own.",
                "Many clients come back together after an outage: wait. Otherwise find the address that begins handshakes without ending them.",
            ),
            Refusal::TooManySessions => (
                "ac3211a1cd5d403399d4739ca1e481d2",
                "limits.sessions",
                "As many lasting sessions are remembered as may be, in all or of this user; a new one was refused.",
                "Look for clients that give a new client identifier each time; shorten limits.session_expiry, or raise limits.sessions, of which one user gets half.",
            ),
            Refusal::Banned => (
                "3c37c1300ca346a9a9f5675d0d34d71f",
                "limits.authentication_failures",
                "An address that failed to log in too often tried again before its ban ended.",
                "If the device is known, give it the right password or certificate. The ban ends by itself (limits.ban, limits.ban_max).",
            ),
            Refusal::Handshake => (
                "0167310cb5274c0ca2935fe12e725838",
                "listener.tls",
                "A TLS handshake failed: no certificate, one that nobody trusted issued, an expired one, or no TLS at all.",
                "Read REASON; check the client's certificate and clock, and the listener's client_ca.",
            ),
            Refusal::Revoked => (
                "976306b0006b453098c9511049ed208a",
                "listener.tls.crl",
                "A client showed a certificate that the revocation list names.",
                "Nothing, if it was meant. Otherwise issue a new certificate for the client.",
            ),
            Refusal::ConnectTimeout => (
                "f778f1f7f0874e758a202f6a992fd5b0",
                "limits.connect_timeout",
                "A connection was opened and no whole CONNECT came in time.",
                "A port scan or a slow link; for slow links raise limits.connect_timeout.",
            ),
            Refusal::Malformed => (
                "f70dbe7bf9d543b685bf6ce742631038",
                "MQTT",
                "What a client sent is no MQTT packet; it was disconnected.",
                "Read REASON; update the client, or look for another protocol on this port.",
            ),
            Refusal::ProtocolViolation => (
                "930d2483e60c484699e17f1247111e9d",
                "MQTT",
                "A client sent a packet that the standard forbids at this place; it was disconnected.",
                "Read REASON, which names the statement; the client's library is at fault.",
            ),
            Refusal::Authentication => (
                "fc21d0683d1249339dfdce7b7db3bc52",
                "user, certificate or access",
                "A client was refused because nobody knows its user name and password, it showed none, or no access rule speaks for it.",
                "Check IDENTITY against the users and the access rules. Many of them from one address: somebody guesses.",
            ),
            Refusal::TooManyLogins => (
                "1ba226b603e54f818e2d0a1de31d1dd1",
                "logins under way",
                "As many logins are being checked as may be at once; the client was told to come again.",
                "Many clients come back together after an outage: wait. Otherwise somebody floods the broker with logins from ADDRESS.",
            ),
            Refusal::ClientId => (
                "a49c983435cc41e2b563f584112eb3aa",
                "MQTT",
                "A client identifier is missing where one is needed, or too long.",
                "Configure an identifier in the client.",
            ),
            Refusal::ForeignSession => (
                "5896de20b6f241138d9686e33ae6409b",
                "client identifier",
                "A client gave the identifier of another user's session.",
                "Two devices share an identifier, or one wants to be another: give each its own.",
            ),
            Refusal::Publish => (
                "fa34e0f2a5db48f184d28fbb869fa2c6",
                "access",
                "A client published to a topic that no access rule lets it publish to; the message was dropped.",
                "RULE names the rules that speak for the client. Add the topic to one of them, or correct the client.",
            ),
            Refusal::Subscribe => (
                "22d1614f8536431ca96b3a8f5655a10e",
                "access",
                "A client subscribed to a filter that its access rules do not contain as a whole; the subscription was refused, or ended when the rules changed.",
                "RULE names the rules that speak for the client. Allow the filter in one of them, or subscribe to less.",
            ),
            Refusal::Will => (
                "9db3224550fc4506a14c5ab7461b8ddf",
                "access",
                "A client's will names a topic that no access rule lets it publish to.",
                "RULE names the rules that speak for the client. Add the will's topic to one of them, or correct the client.",
            ),
            Refusal::TopicLimit => (
                "8f6039685ac242dcbb020156688216a5",
                "limits.topic_length, limits.topic_levels",
                "A topic or filter is too long or too deep.",
                "Shorten the topic, or raise limits.topic_length or limits.topic_levels.",
            ),
            Refusal::SubscriptionLimit => (
                "6712c771a3fa433ba7b14e48fcaf6360",
                "limits.subscriptions",
                "A client has as many subscriptions as it may.",
                "Let it subscribe with wildcards, or raise limits.subscriptions.",
            ),
            Refusal::ReceiveMaximum => (
                "c532611418f14473a6adda74aae16ae2",
                "limits.in_flight",
                "A client sent more unacknowledged messages than it was told it may; it was disconnected.",
                "The client's library ignores the receive maximum: update it, or raise limits.in_flight.",
            ),
            Refusal::QueueFull => (
                "5c0ccbed4bb449dda2c2d74df0ac5a52",
                "limits.queued_messages, limits.queued_bytes",
                "A client takes its messages more slowly than they come; once its queue was full, messages were lost to it. Told once until the queue was empty again.",
                "See the client's queue in the status; make the client faster, subscribe to less, or raise the limits.",
            ),
            Refusal::RetainedFull => (
                "9e43e0e3e50b40b5851b4854ab01f94b",
                "limits.retained_messages, limits.retained_bytes",
                "There was no room to retain a message. From a 5.0 client it was refused with 0x97, unless it was of QoS 0; others were delivered without being retained, and their topic has no value now.",
                "Clear retained topics that nobody needs, or raise the limits.",
            ),
            Refusal::NotKept => (
                "8c8fc006b3114bbeaf9c52b4960fdbdc",
                "persistence",
                "What a client asked to be kept could not be put on disk; it was told so and will try again.",
                "See the store's fault in the status: is the disk full, read-only or gone?",
            ),
            Refusal::PacketTooLarge => (
                "8cdb4d3b30b343579e5050e89a9a2277",
                "limits.packet_size, or the client's maximum",
                "A packet is larger than the broker or the receiving client takes.",
                "Raise limits.packet_size, or the client's maximum packet size, if such messages are meant.",
            ),
            Refusal::KeepAlive => (
                "53cd81ced9774c13b1c111db21588f33",
                "MQTT",
                "Nothing was heard of a client for one and a half times its keep alive; it was disconnected.",
                "The link or the device is gone; if it comes and goes, look at the network.",
            ),
            Refusal::ConfigurationChanged => (
                "0dfc7f518b6742d18561ad7a7f7e2f1a",
                "configuration",
                "A client was disconnected because the configuration no longer allows it.",
                "Nothing, if it was meant.",
            ),
            Refusal::Memory => (
                "5bd5274a662b478da4af6f65f68c7e9f",
                "limits.memory",
                "Memory is nearly used up: what would have needed more was refused or left unread, or what held most was closed. REASON says which.",
                "The status tells who holds what: slow consumers, full queues, retained messages. Let clients read faster, lower the other limits, or raise limits.memory.",
            ),
            Refusal::Rate => (
                "e61ea171170a493b8e197f1ca8b267d6",
                "limits.messages_per_second, limits.bytes_per_second",
                "A client sends faster than it may. It is read more slowly and loses nothing; told once until it keeps to its rate again.",
                "Slow the client down, or raise the rate or limits.burst if so much is meant.",
            ),
            Refusal::ConnectionRate => (
                "d0d0199979414df3879da2259c9b678a",
                "limits.connections_per_second",
                "One address opens connections faster than it may; a new one was closed at once.",
                "Look for a client that connects again without waiting, or two that take over each other's session; raise the limit where many clients share an address.",
            ),
            Refusal::RetainNotSupported => (
                "bee6bf39f2d7419ead5a00ad91af1b51",
                "limits.retained",
                "A client asked for a message or will to be retained, and that is switched off; it was disconnected.",
                "Let the client publish without retain, or set limits.retained.",
            ),
            Refusal::UserProperties => (
                "2c5aa0178dfe4cce874dcab664e293d1",
                "limits.user_properties, limits.user_property_bytes",
                "A message or will has more or larger user properties than it may; it was refused.",
                "Let the client send fewer, or raise the limits.",
            ),
            Refusal::PayloadFormat => (
                "0b4c859f711b44b2b47fdb4d7b37373e",
                "protocol.validate_payload_format",
                "A message or a will calls its payload UTF-8 text, and it is none; it was refused.",
                "Correct the publisher: the payload, or what it says of it.",
            ),
            Refusal::Redirected => (
                "a6e8921942944ecba2c7e8ea8f396aae",
                "protocol.redirect",
                "A client connected here though this broker's clients are served by another one; it was told where.",
                "Change the client's address, if it does not follow by itself.",
            ),
            Refusal::Delivery => (
                "bdc02b8b032542c7bf7816ab68023dfa",
                "access",
                "A message was not handed to a client that subscribed to it: no access rule lets it read the topic any more.",
                "Nothing, if the rule was taken away on purpose; otherwise add the topic to subscribe in a rule of the client.",
            ),
        };
        Kind {
            name: self.name(),
            id,
            rule,
            means,
            remedy,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

    use super::*;

    fn kinds() -> impl Iterator<Item = Kind> {
        let refusals = Refusal::ALL.iter().map(|refusal| refusal.kind());
        CHANGES.into_iter().chain(refusals)
    }

    fn table() -> String {
        let mut text = String::from(
            "# What the broker logs\n\n\
             Each kind has a name (field `KIND`) and a message id (field `MESSAGE_ID`) that never change. \
             `journalctl MESSAGE_ID=…` finds its entries, and `journalctl -x` explains them where \
             `systemd/broker-lite.catalog` is installed.\n\n\
             Beside `REASON` an entry bears, as far as known: `CLIENT` (client identifier), `IDENTITY` (user name or \
             certificate's name), `ADDRESS`, `LISTENER`, `TOPIC`, `RULE` (the access rules that speak for the client, or \
             the key that decides) and `LEFT_OUT` (entries of the kind that were counted and not written: ten a minute \
             are).\n\n\
             | kind | message id | what it means | what to do |\n|---|---|---|---|\n",
        );
        for Kind {
            name,
            id,
            means,
            remedy,
            ..
        } in kinds()
        {
            writeln!(text, "| {name} | `{id}` | {means} | {remedy} |").unwrap();
        }
        text
    }

    fn journal_catalog() -> String {
        let mut text = String::from(
            "# Installed as /usr/lib/systemd/catalog/broker-lite.catalog; `journalctl --update-catalog` reads it.\n",
        );
        for Kind {
            name,
            id,
            means,
            remedy,
            ..
        } in kinds()
        {
            write!(
                text,
                "\n-- {id}\nSubject: {name}: @CLIENT@ at @ADDRESS@\nDefined-By: broker-lite\n\n{means}\n\n\
                 Reason: @REASON@\nWhat to do: {remedy}\n"
            )
            .unwrap();
        }
        text
    }

    #[test]
    fn message_ids_are_128_bits_and_names_and_ids_stand_once() {
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for kind in kinds() {
            let hex = kind
                .id
                .chars()
                .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
            assert!(kind.id.len() == 32 && hex, "{}: {}", kind.name, kind.id);
            assert!(
                names.insert(kind.name) && ids.insert(kind.id),
                "{} stands twice",
                kind.name
            );
        }
    }

    /// `UPDATE_DOCS=1` writes the files anew.
    #[test]
    fn the_documents_say_what_the_catalogue_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, text) in [
            ("docs/audit.md", table()),
            ("systemd/broker-lite.catalog", journal_catalog()),
        ] {
            let path = root.join(file);
            if std::env::var_os("UPDATE_DOCS").is_some() {
                fs::write(&path, &text).unwrap();
            }
            let written = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                written == text,
                "{file} is old: run this test with UPDATE_DOCS=1"
            );
        }
    }
}

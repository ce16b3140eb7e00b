//! What the gateway tells of commands, of clients, and of releases that stay or go: for each kind a message id that
//! never changes, what it means, and what to do about it. Values.
//!
//! Invariant: `docs/commands.md` and `systemd/gateway.catalog` say the same; a test writes and
//! compares them.

/// One kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// The stable name, for searching logs.
    pub(super) name: &'static str,
    /// journald's MESSAGE_ID: 128 bits, drawn once.
    pub(super) id: &'static str,
    /// The line of the log.
    pub(super) says: &'static str,
    /// What the operator can do.
    pub(super) remedy: &'static str,
    /// What it is about, in the fields that it carries.
    pub(super) about: About,
}

/// Fields of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// DEVICE, POINT, IDENTITY, CLIENT, VALUE, REASON.
    Point,
    /// TOPIC, VALUE.
    Topic,
    /// BUS, IDENTITY, CLIENT, VALUE, OUTCOME.
    Bus,
    /// BUS, UNIT, IDENTITY, VALUE, REASON.
    Unit,
    /// IDENTITY, VALUE, REASON.
    Letters,
    /// VERSION, REASON.
    Release,
    /// CLIENT, IDENTITY, VALUE, REASON.
    Client,
}

pub(super) const EXECUTED: Kind = Kind {
    name: "command-executed",
    id: "ef586b2b0f1043568341205627e0e5f2",
    says: "a command was written and read back",
    remedy: "Nothing to do.",
    about: About::Point,
};

pub(super) const REFUSED: Kind = Kind {
    name: "command-refused",
    id: "5ff371b6b2df4e4a95af2ea6610d131e",
    says: "a command was refused; nothing was written",
    remedy: "Read REASON: the sender's value, topic or time is at fault, or the bus is down.",
    about: About::Point,
};

pub(super) const FAILED: Kind = Kind {
    name: "command-failed",
    id: "2e61101c34164c37a9909ec5ad666616",
    says: "a command was sent, and the device did not confirm it",
    remedy: "Look at the device: it may or may not have executed it. The gateway does not repeat it.",
    about: About::Point,
};

pub(super) const IGNORED: Kind = Kind {
    name: "command-ignored",
    id: "db3b3277d0fb4de5ba9e7be439bd633d",
    says: "a retained command is not executed: it may be of any age",
    remedy: "Let the sender publish without retain, and clear the topic.",
    about: About::Topic,
};

pub(super) const RAW: Kind = Kind {
    name: "raw-request",
    id: "46a56f1e33d04b14927977de5c431418",
    says: "a request that somebody wrote down himself came to its end",
    remedy: "Nothing to do. Remove raw_requests from the bus when it is commissioned.",
    about: About::Bus,
};

pub(super) const TOOL_WRITE: Kind = Kind {
    name: "tool-write",
    id: "632250cf907640baae2e33ebbdb8752f",
    says: "somebody wrote by hand through the control socket",
    remedy: "Nothing to do if IDENTITY was at work on this bus; REASON says what came of it.",
    about: About::Unit,
};

pub(super) const LETTERS_RESENT: Kind = Kind {
    name: "dead-letters-resent",
    id: "bc56bbf0e33c4dad77a4c0bf1352a9a5",
    says: "somebody had dead letters sent again",
    remedy: "Nothing to do if IDENTITY meant to: VALUE names the dead letters asked for, REASON what came of it.",
    about: About::Letters,
};

pub(super) const LETTERS_DROPPED: Kind = Kind {
    name: "dead-letters-dropped",
    id: "1c13598ab18b7c97448a7948b3753277",
    says: "somebody dropped dead letters",
    remedy: "Nothing to do if IDENTITY meant to: VALUE names the dead letters asked for, REASON what came of it.",
    about: About::Letters,
};

pub(super) const COMMITTED: Kind = Kind {
    name: "update-committed",
    id: "d6c7776222a54297b9faec2fa7b6a3e7",
    says: "a new release was healthy for long enough and stays",
    remedy: "Nothing to do.",
    about: About::Release,
};

pub(super) const ROLLED_BACK: Kind = Kind {
    name: "update-rolled-back",
    id: "74078a02419443d09b975b086106a858",
    says: "a new release was not healthy in time: the one before starts again",
    remedy: "Read REASON: it names what worked before the update and did not after it. Send it to the release's maker.",
    about: About::Release,
};

pub(super) const CLIENT_ADDED: Kind = Kind {
    name: "client-added",
    id: "6f1103fa07bb4b6489d4b1b3b575ebe8",
    says: "somebody added a client of the local broker",
    remedy: "Nothing to do if IDENTITY meant to; otherwise run gateway client revoke.",
    about: About::Client,
};

pub(super) const CLIENT_ROTATED: Kind = Kind {
    name: "client-rotated",
    id: "ee155449bb3a44fa8eebaa6e4edabbd8",
    says: "somebody gave a client of the local broker another certificate or password",
    remedy: "Nothing to do if IDENTITY meant to; otherwise run gateway client revoke.",
    about: About::Client,
};

pub(super) const CLIENT_REVOKED: Kind = Kind {
    name: "client-revoked",
    id: "0a747f9fc158426493590d418e719bde",
    says: "somebody revoked a client of the local broker; its sessions were ended",
    remedy: "Nothing to do if IDENTITY meant to; REASON says what it made void.",
    about: About::Client,
};

pub(super) const CLIENT_RENEWED: Kind = Kind {
    name: "client-renewed",
    id: "ff307d575e6a452ca13396b5c1682b05",
    says: "a client had its certificate renewed over the broker",
    remedy: "Nothing to do.",
    about: About::Client,
};

pub(super) const RENEWAL_REFUSED: Kind = Kind {
    name: "client-renewal-refused",
    id: "bb3e00d9ff3041a38cb31b3419b8382f",
    says: "a client asked for a new certificate and got none",
    remedy: "Read REASON: the client asks for another's name, too often, or sends no certificate request.",
    about: About::Client,
};

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs, path::Path};

    use super::*;

    const KINDS: [Kind; 15] = [
        EXECUTED,
        REFUSED,
        FAILED,
        IGNORED,
        RAW,
        TOOL_WRITE,
        LETTERS_RESENT,
        LETTERS_DROPPED,
        COMMITTED,
        ROLLED_BACK,
        CLIENT_ADDED,
        CLIENT_ROTATED,
        CLIENT_REVOKED,
        CLIENT_RENEWED,
        RENEWAL_REFUSED,
    ];
    const BEGIN: &str = "<!-- kinds -->\n";
    const END: &str = "<!-- end of kinds -->";

    fn journal_catalog() -> String {
        let mut text = String::from(
            "# Installed as /usr/lib/systemd/catalog/gateway.catalog; `journalctl --update-catalog` reads it.\n",
        );
        for kind in KINDS {
            let (subject, outcome) = match kind.about {
                About::Point => (
                    "@DEVICE@ @POINT@ by @IDENTITY@ (@CLIENT@)",
                    "Reason: @REASON@\n",
                ),
                About::Topic => ("@TOPIC@", ""),
                About::Bus => ("bus @BUS@ by @IDENTITY@ (@CLIENT@)", "Outcome: @OUTCOME@\n"),
                About::Unit => ("bus @BUS@ unit @UNIT@ by @IDENTITY@", "Reason: @REASON@\n"),
                About::Letters => ("by @IDENTITY@", "Reason: @REASON@\n"),
                About::Client => ("@CLIENT@ by @IDENTITY@", "Reason: @REASON@\n"),
                About::Release => ("release @VERSION@", "Reason: @REASON@\n"),
            };
            let value = match kind.about {
                About::Release => "",
                _ => "Value: @VALUE@\n",
            };
            write!(
                text,
                "\n-- {}\nSubject: {}: {subject}\nDefined-By: gateway\n\n\
                 {value}{outcome}What to do: {}\n",
                kind.id, kind.name, kind.remedy
            )
            .expect("a text");
        }
        text
    }

    fn with_table(document: &str) -> String {
        let (before, rest) = document.split_once(BEGIN).expect("a place");
        let (_, after) = rest.split_once(END).expect("its end");
        let mut table =
            String::from("| kind | message id | what it means | what to do |\n|---|---|---|---|\n");
        for kind in KINDS {
            let Kind {
                name,
                id,
                says,
                remedy,
                ..
            } = kind;
            writeln!(table, "| {name} | `{id}` | {says} | {remedy} |").expect("a text");
        }
        format!("{before}{BEGIN}{table}{END}{after}")
    }

    /// `UPDATE_DOCS=1` writes the files anew.
    #[test]
    fn the_documents_say_what_the_catalogue_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
        let commands = "docs/commands.md";
        for (file, text) in [
            ("systemd/gateway.catalog", journal_catalog()),
            (commands, with_table(&read(commands))),
        ] {
            if std::env::var_os("UPDATE_DOCS").is_some() {
                fs::write(root.join(file), &text).expect("writable");
            }
            assert!(
                read(file) == text,
                "{file} is old: run this test with UPDATE_DOCS=1"
            );
        }
    }

    #[test]
    fn message_ids_are_128_bits_and_stand_once() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(u128::from_str_radix(kind.id, 16).is_ok() && kind.id.len() == 32);
            assert!(KINDS[..index].iter().all(|other| other.id != kind.id));
        }
    }
}

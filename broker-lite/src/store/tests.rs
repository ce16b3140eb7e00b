//! The file itself: what is written reads back, a cut or torn log loses nothing committed, damage
//! and failures are got over.
#![expect(
    clippy::disallowed_methods,
    reason = "the file's time goes on with the real clock"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use super::{Found, Notice, Store, salvage::beside};
use crate::{
    access::Identity,
    broker::{Stored, sim::start},
    config::Persistence,
    ids::{DeliveryKey, MessageKey, SessionKey},
    journal::{
        Change, Changes, DeliveryRecord, Progress, RetainedRecord, SessionRecord,
        SubscriptionRecord, WillRecord,
    },
    message::Message,
    packet::{
        MessageProperties, PacketId, QoS, RetainHandling, SubscribeOptions, SubscriptionId, Text,
    },
    publication::Publication,
    topic::{SubscriptionFilter, TopicName},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A store in a folder of its own, and what it tells.
pub(super) struct Running {
    pub(super) store: Store,
    notices: mpsc::Receiver<Notice>,
    pub(super) found: Found,
}

pub(super) fn open(path: &Path) -> Running {
    let (sender, notices) = mpsc::channel();
    let config = Persistence {
        path: path.to_owned(),
        commit_delay: settings::Period::from_millis(1),
    };
    // A test that has seen enough hears nothing more.
    let tell = Box::new(move |notice| drop(sender.send(notice)));
    let (store, found) = Store::start(&config, tell).unwrap();
    Running {
        store,
        notices,
        found,
    }
}

impl Running {
    pub(super) fn commit(&self, through: u64, whole: bool, changes: Vec<Change>) {
        self.store.submit(Changes {
            through,
            awaited: true,
            whole,
            changes,
        });
        self.wait(|notice| matches!(notice, Notice::Committed(number) if *number == through));
    }

    fn wait(&self, is_it: impl Fn(&Notice) -> bool) -> Notice {
        loop {
            let notice = self.notices.recv_timeout(PATIENCE).unwrap();
            if is_it(&notice) {
                return notice;
            }
        }
    }
}

pub(super) fn stored(found: Found) -> Stored {
    match found {
        Found::Stored(stored) => *stored,
        Found::Nothing => panic!("the file could not be opened"),
    }
}

fn identity(client: &str) -> Arc<Identity> {
    Arc::new(Identity {
        user: Some("ann".to_owned()),
        client: client.to_owned(),
        address: "192.0.2.7".parse().unwrap(),
    })
}

pub(super) fn session(client: &str) -> SessionRecord {
    SessionRecord {
        identity: identity(client),
        expiry: Duration::from_secs(3_600),
        expires_at: None,
    }
}

pub(super) fn message(number: u64) -> Arc<Publication> {
    let mut message = Message::new(TopicName::parse("t/x").unwrap(), vec![7; 300]).retained();
    message.expiry_s = Some(600);
    message.properties = Some(Arc::new(MessageProperties {
        content_type: Some(Text::lossy("text/plain")),
        ..MessageProperties::default()
    }));
    Arc::new(Publication::new(
        message,
        start(),
        number,
        &crate::memory::Meter::default(),
    ))
}

pub(super) fn delivery(message: u64, progress: Progress) -> DeliveryRecord {
    DeliveryRecord {
        session: SessionKey(1),
        message: MessageKey(message),
        qos: QoS::ExactlyOnce,
        retain: true,
        subscription_ids: [3, 9].into_iter().filter_map(SubscriptionId::new).collect(),
        shared: Some(Arc::new(filter("$share/g/t/#"))),
        progress,
    }
}

pub(super) fn filter(text: &str) -> SubscriptionFilter {
    SubscriptionFilter::parse(text).unwrap()
}

pub(super) fn packet_id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

pub(super) fn subscription() -> SubscriptionRecord {
    SubscriptionRecord {
        options: SubscribeOptions {
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        },
        id: SubscriptionId::new(3),
    }
}

pub(super) fn will(client: &str, due: Option<Instant>) -> WillRecord {
    WillRecord {
        identity: identity(client),
        message: message(0).message.clone(),
        delay: Duration::from_secs(7),
        due,
    }
}

/// A session and a will that end in 100 s, written as if that were how a run ended.
fn expiring(path: &Path) {
    let at = Instant::now() + Duration::from_secs(100);
    let session = SessionRecord {
        expires_at: Some(at),
        ..session("client")
    };
    let running = open(path);
    let begins = Change::SessionBegins(SessionKey(1), session);
    let will = Change::WillLeft(will("client", Some(at)));
    running.commit(1, false, vec![begins, will]);
}

fn shift_calendar(path: &Path, seconds: i64) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let sql = "UPDATE time SET wall_ms = wall_ms - ?1";
    assert_eq!(connection.execute(sql, [seconds * 1_000]).unwrap(), 1);
}

#[test]
fn an_absence_that_can_be_believed_counts_and_a_wrong_calendar_ends_nothing() {
    let year = 365 * 86_400;
    for (away_s, left_s) in [(0, 100), (40, 60), (500, 0), (10 * year, 100), (-year, 100)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.db");
        expiring(&path);
        shift_calendar(&path, away_s);
        let found = stored(open(&path).found);
        let (session, will) = (&found.sessions[0].record, &found.wills[0]);
        for at in [session.expires_at, will.due] {
            let left = at.unwrap().saturating_duration_since(Instant::now());
            let late = Duration::from_secs(left_s).abs_diff(left);
            assert!(
                late < Duration::from_secs(10),
                "away {away_s} s: {left:?} left"
            );
        }
    }
}

#[test]
fn everything_that_is_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let running = open(&path);
    let retained = RetainedRecord {
        message: MessageKey(5),
        publisher: Some(identity("publisher")),
    };
    running.commit(
        1,
        false,
        vec![
            Change::SessionBegins(SessionKey(1), session("client")),
            Change::Subscribed(SessionKey(1), filter("$share/g/t/#"), subscription()),
            Change::Took(SessionKey(1), packet_id(11)),
            Change::MessageHeld(message(5)),
            Change::Queued(DeliveryKey(1), delivery(5, Progress::Queued)),
            Change::Queued(DeliveryKey(2), delivery(5, Progress::Queued)),
            Change::Retained(TopicName::parse("t/x").unwrap(), retained),
            Change::WillLeft(will("waits", None)),
            Change::WillLeft(will("gone", None)),
        ],
    );
    let second = Progress::Received(packet_id(4));
    running.commit(
        2,
        false,
        vec![
            Change::Progressed(DeliveryKey(2), second),
            Change::WillGone("gone".to_owned()),
        ],
    );
    drop(running);

    let found = stored(open(&path).found);
    assert_eq!((found.last.message, found.last.delivery), (5, 2));
    let read = &found.sessions[0];
    assert_eq!(read.record, session("client"));
    assert_eq!(
        read.subscriptions,
        [(filter("$share/g/t/#"), subscription())]
    );
    assert_eq!(read.taken, [packet_id(11)]);
    assert_eq!(
        read.deliveries,
        [
            (DeliveryKey(1), delivery(5, Progress::Queued)),
            (DeliveryKey(2), delivery(5, second))
        ]
    );
    let publication = &found.messages[&MessageKey(5)];
    assert_eq!(publication.message, message(5).message);
    assert!(publication.expires_at().is_some());
    assert_eq!(
        found.retained,
        [(MessageKey(5), Some(identity("publisher")))]
    );
    assert_eq!(found.wills, [will("waits", None)]);
}

#[test]
fn what_ended_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let running = open(&path);
    running.commit(
        1,
        false,
        vec![
            Change::SessionBegins(SessionKey(1), session("client")),
            Change::Subscribed(SessionKey(1), filter("t/#"), subscription()),
            Change::Took(SessionKey(1), packet_id(11)),
            Change::MessageHeld(message(5)),
            Change::Queued(DeliveryKey(1), delivery(5, Progress::Queued)),
        ],
    );
    running.commit(
        2,
        false,
        vec![
            Change::Delivered(DeliveryKey(1)),
            Change::MessageGone(MessageKey(5)),
            Change::SessionEnds(SessionKey(1)),
        ],
    );
    drop(running);
    let connection = rusqlite::Connection::open(&path).unwrap();
    for table in ["session", "subscription", "taken", "message", "delivery"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

/// A file and its log as a power cut may leave them.
struct Image<'a> {
    file: &'a [u8],
    log: Vec<u8>,
}

impl Image<'_> {
    fn messages(&self, at: &Path) -> usize {
        fs::write(at, self.file).unwrap();
        fs::write(beside(at, "-wal"), &self.log).unwrap();
        let found = stored(open(at).found);
        assert_eq!(found.messages.len(), found.sessions[0].deliveries.len());
        found.messages.len()
    }
}

/// Files after each commit: the log only grows meanwhile, and the file stays.
fn commits(path: &Path) -> (Vec<u8>, Vec<u8>, Vec<usize>) {
    const COMMITS: u64 = 25;
    let running = open(path);
    let begin = Change::SessionBegins(SessionKey(1), session("client"));
    running.commit(1, false, vec![begin]);
    let log_len = || fs::metadata(beside(path, "-wal")).unwrap().len() as usize;
    let mut lengths = vec![log_len()];
    for number in 1..=COMMITS {
        running.commit(
            1 + number,
            false,
            vec![
                Change::MessageHeld(message(number)),
                Change::Queued(DeliveryKey(number), delivery(number, Progress::Queued)),
            ],
        );
        lengths.push(log_len());
    }
    let file = fs::read(path).unwrap();
    let log = fs::read(beside(path, "-wal")).unwrap();
    (file, log, lengths)
}

#[test]
fn a_log_that_is_cut_or_torn_anywhere_keeps_every_commit_before() {
    let folder = tempfile::tempdir().unwrap();
    let (file, log, lengths) = commits(&folder.path().join("broker.db"));
    let step = log.len() / 60;
    for (number, cut) in (lengths[0]..=log.len()).step_by(step).enumerate() {
        let whole = lengths.iter().filter(|length| **length <= cut).count() - 1;
        let place = folder.path().join(format!("cut-{number}.db"));
        let dropped = Image {
            file: &file,
            log: log[..cut].to_vec(),
        };
        assert_eq!(dropped.messages(&place), whole, "cut at {cut}");
        let mut torn = log.clone();
        for byte in torn.iter_mut().skip(cut) {
            *byte ^= 0x5a;
        }
        let torn = Image {
            file: &file,
            log: torn,
        };
        let place = folder.path().join(format!("torn-{number}.db"));
        assert_eq!(torn.messages(&place), whole, "torn from {cut}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_opened_later() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("later").join("broker.db");
    let running = open(&path);
    assert!(matches!(running.found, Found::Nothing));
    running.wait(|notice| matches!(notice, Notice::Failing(true)));
    fs::create_dir(folder.path().join("later")).unwrap();
    running.wait(|notice| matches!(notice, Notice::Read(_)));
    running.wait(|notice| matches!(notice, Notice::Failing(false)));
    let begin = Change::SessionBegins(SessionKey(1), session("client"));
    running.commit(1, true, vec![begin]);
}

#[test]
fn a_commit_that_fails_is_tried_until_it_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let running = open(&path);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    running.store.submit(Changes {
        through: 1,
        awaited: true,
        whole: false,
        changes: vec![Change::SessionBegins(SessionKey(1), session("client"))],
    });
    running.wait(|notice| matches!(notice, Notice::Failing(true)));
    other.execute_batch("ROLLBACK").unwrap();
    running.wait(|notice| matches!(notice, Notice::Committed(1)));
    running.wait(|notice| matches!(notice, Notice::Failing(false)));
}

//! Promise: a file that is missing, damaged or full does not keep the broker from serving.

use std::fs;

use crate::{
    connection::Connection,
    place::{Place, wait_until},
};

#[test]
fn a_file_that_cannot_be_made_stops_only_what_it_is_for_and_is_made_later() {
    let place = Place::new("later/broker.db");
    let port = place.port;
    let broker = place.start();
    assert!(Connection::open(port, "lasting").is_none());
    fs::create_dir(place.folder.path().join("later")).unwrap();
    wait_until("lasting sessions are taken", || {
        Connection::open(port, "lasting").is_some()
    });
    drop(broker);
    let _broker = place.start();
    let (_, present) = Connection::open(port, "lasting").unwrap();
    assert!(present, "the session was stored");
}

#[test]
fn a_damaged_file_is_kept_aside_and_the_broker_starts() {
    let place = Place::new("broker.db");
    fs::write(
        place.database(),
        "no database at all, but long enough for a header: ".repeat(200),
    )
    .unwrap();
    let _broker = place.start();
    assert!(Connection::open(place.port, "lasting").is_some());
    let aside = place.folder.path().join("broker.db.corrupt-1");
    assert!(fs::read(aside).unwrap().starts_with(b"no database"));
}

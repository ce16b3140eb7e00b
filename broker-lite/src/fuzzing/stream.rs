//! One connection's byte stream, in pieces of any size: what is answered depends on the bytes, not
//! on how the network cut them.
//!
//! Driver. Invariant: both runs begin with the same core and end with the stream.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

use super::script::Script;
use crate::{
    broker::{
        Core,
        sim::{peer, rules},
    },
    config::{AccessRule, Limits},
    entry::connection::Wire,
    packet::{Expect, Version, decode},
    shared::Shared,
};

/// Holds whatever one run can write.
const PIPE_BYTES: usize = 4 * 1024 * 1024;
/// Answers past this many bytes may come in another order: queues begin to fill.
const COMPARED_BYTES: usize = 32 * 1024;

/// The first bytes say where to cut, the others are what is sent.
pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let cuts = script.bytes();
    let sent = script.rest();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without sockets");
    let whole = runtime.block_on(converse([sent].into_iter()));
    let pieces = runtime.block_on(converse(cut(sent, cuts)));
    if whole.len() < COMPARED_BYTES {
        assert_eq!(
            whole, pieces,
            "the answer depends on how the bytes were cut"
        );
    }
    read_all(&whole, sent);
}

fn cut<'a>(mut sent: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let length = cuts.next().map_or(1, |cut| usize::from(*cut % 32) + 1);
        let (piece, rest) = sent.split_at(length.min(sent.len()));
        sent = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// What a broker answers to these pieces.
async fn converse(pieces: impl Iterator<Item = &[u8]>) -> Vec<u8> {
    let rules = rules(Limits::default(), vec![AccessRule::everything()]);
    let shared = Arc::new(Shared::around(Core::new(rules, None, "auto-0".to_owned())));
    let peer = peer();
    let (connection, call) = shared.open(peer).expect("an empty broker has room");
    let (client, server) = duplex(PIPE_BYTES);
    let served = async {
        let mut wire = Wire::new(shared, call, server, connection);
        wire.serve().await;
        let (shared, connection) = wire.end();
        shared.closed(connection);
    };
    let (answers, ()) = tokio::join!(speak(client, pieces), served);
    answers
}

async fn speak(client: DuplexStream, pieces: impl Iterator<Item = &[u8]>) -> Vec<u8> {
    let (mut reader, mut writer) = split(client);
    for piece in pieces {
        // The broker may have closed already; then nobody hears the rest.
        if writer.write_all(piece).await.is_err() {
            break;
        }
        // The broker's turn.
        tokio::task::yield_now().await;
    }
    let _closed_before = writer.shutdown().await;
    let mut answers = Vec::new();
    reader
        .read_to_end(&mut answers)
        .await
        .expect("memory does not fail to be read");
    answers
}

/// Whatever the broker writes, a client can read.
fn read_all(answers: &[u8], sent: &[u8]) {
    let mut connect = bytes::BytesMut::from(sent);
    let version = match decode(&mut connect, Expect::connect(sent.len())) {
        Ok(Some(crate::packet::Packet::Connect(connect))) => connect.version,
        Err(error) => error.version,
        _ => Version::V5,
    };
    let mut answers = bytes::BytesMut::from(answers);
    let expect = Expect::from_server(version, usize::MAX);
    while decode(&mut answers, expect)
        .expect("the broker writes packets")
        .is_some()
    {}
    assert!(answers.is_empty(), "the broker ended within a packet");
}

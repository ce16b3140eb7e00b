//! The packet decoder on any bytes: what it accepts it can write and read again as the same.
//!
//! Values. Invariant: nothing that is read has more bytes or entries than what was taken for it.

use bytes::BytesMut;

use crate::packet::{Expect, Packet, Sender, Version, decode, encode, encoded_len};

/// Larger than what a fuzzer tries, smaller than what four bytes of length can say.
const PACKET_SIZE: usize = 64 * 1024;

pub(super) fn v3(data: &[u8]) {
    read(data, Version::V3);
}

pub(super) fn v5(data: &[u8]) {
    read(data, Version::V5);
}

/// The first byte says who sends, and whether CONNECT is still to come.
fn read(data: &[u8], version: Version) {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    let sender = match first & 1 {
        0 => Sender::Client,
        _ => Sender::Server,
    };
    let expect = Expect {
        sender,
        version: (first & 2 == 0 || sender == Sender::Server).then_some(version),
        max_packet_size: PACKET_SIZE,
    };
    let mut input = BytesMut::from(bytes);
    loop {
        let before = input.clone();
        match decode(&mut input, expect) {
            Ok(Some(packet)) => {
                let taken = before.len() - input.len();
                assert!((2..=PACKET_SIZE).contains(&taken), "took {taken} bytes");
                assert_eq!(before[taken..], input[..], "more was taken than the packet");
                read_again(&packet, expect, taken);
            }
            Ok(None) => return assert_eq!(before, input, "a prefix is left as it was"),
            Err(error) => return assert!(!error.to_string().is_empty()),
        }
    }
}

fn read_again(packet: &Packet, expect: Expect, taken: usize) {
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => expect
            .version
            .expect("only CONNECT is read without a version"),
    };
    let mut written = BytesMut::new();
    encode(packet, version, &mut written).expect("what was read can be written");
    assert!(
        written.len() <= taken,
        "{packet:?} came out of {taken} bytes"
    );
    assert_eq!(encoded_len(packet, version), Ok(written.len()));
    let first = written.clone();
    let again = decode(&mut written, expect);
    assert_eq!(again.as_ref(), Ok(&Some(packet.clone())), "{first:02x?}");
    let mut second = BytesMut::new();
    encode(packet, version, &mut second).expect("it could be written before");
    assert_eq!(first, second);
}

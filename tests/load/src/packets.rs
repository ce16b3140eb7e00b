//! The packets of MQTT 3.1.1 and 5.0 that a load needs, as bytes. Values.
//!
//! Written apart from the broker's own codec: whoever measures must not share the measured one's faults.

/// The protocol level that CONNECT asks for.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Version {
    /// MQTT 3.1.1
    #[value(name = "4")]
    V4,
    /// MQTT 5.0
    #[value(name = "5")]
    V5,
}

/// The upper half of a packet's first byte.
pub(crate) mod kind {
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
    pub(crate) const SUBACK: u8 = 9;
}

/// One packet from the broker: its first byte, and what follows the fixed header.
pub(crate) struct Frame<'a> {
    pub(crate) first: u8,
    pub(crate) body: &'a [u8],
}

/// A PUBLISH from the broker, without its topic.
pub(crate) struct Received<'a> {
    pub(crate) qos: u8,
    pub(crate) packet_id: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(crate) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The identifier that all acknowledgements begin with.
    pub(crate) fn packet_id(&self) -> u16 {
        two(self.body, 0)
    }

    /// Whether it says that something was refused.
    pub(crate) fn is_refusal(&self) -> bool {
        match self.kind() {
            kind::CONNACK => self.body.get(1).is_none_or(|code| *code != 0),
            kind::SUBACK => self.body.last().is_none_or(|code| *code >= 0x80),
            _ => self.body.get(2).is_some_and(|code| *code >= 0x80),
        }
    }

    pub(crate) fn publish(&self, version: Version) -> Option<Received<'a>> {
        let qos = self.first >> 1 & 3;
        let mut at = 2 + usize::from(two(self.body, 0));
        let mut packet_id = 0;
        if qos > 0 {
            packet_id = two(self.body, at);
            at += 2;
        }
        if version == Version::V5 {
            let (length, bytes) = varint(self.body.get(at..)?)?;
            at += bytes + length;
        }
        let payload = self.body.get(at..)?;
        Some(Received {
            qos,
            packet_id,
            payload,
        })
    }
}

/// Hands over every whole packet, and says how many bytes they took.
pub(crate) fn each(bytes: &[u8], mut take: impl FnMut(Frame)) -> usize {
    let mut taken = 0;
    while let Some((first, rest)) = bytes[taken..].split_first()
        && let Some((length, header)) = varint(rest)
        && let Some(body) = rest.get(header..header + length)
    {
        take(Frame {
            first: *first,
            body,
        });
        taken += 1 + header + length;
    }
    taken
}

/// CONNECT with a keep alive of an hour, which nothing here outlasts (rumqttd insists on one). A session that is not
/// clean outlives its connection.
pub(crate) fn connect(client: &str, version: Version, clean: bool) -> Vec<u8> {
    let level = match version {
        Version::V4 => 4,
        Version::V5 => 5,
    };
    let mut body = vec![
        0,
        4,
        b'M',
        b'Q',
        b'T',
        b'T',
        level,
        u8::from(clean) << 1,
        0x0e,
        0x10,
    ];
    if version == Version::V5 {
        // Session expiry: an hour, or with the connection.
        let expiry: u32 = if clean { 0 } else { 3_600 };
        body.extend([5, 0x11]);
        body.extend(expiry.to_be_bytes());
    }
    text(&mut body, client);
    packet(0x10, &body)
}

/// SUBSCRIBE to these filters.
pub(crate) fn subscribe(filters: &[String], qos: u8, version: Version) -> Vec<u8> {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        text(&mut body, filter);
        body.push(qos);
    }
    packet(0x82, &body)
}

/// PUBLISH, with the identifier where `qos` asks for one; `fill` writes the payload's beginning.
pub(crate) fn publish(
    out: &mut Vec<u8>,
    topic: &str,
    (qos, packet_id): (u8, u16),
    version: Version,
    payload: &[u8],
) {
    let properties = usize::from(version == Version::V5);
    let identifier = if qos > 0 { 2 } else { 0 };
    out.push(0x30 | qos << 1);
    put_varint(
        out,
        2 + topic.len() + identifier + properties + payload.len(),
    );
    text(out, topic);
    if qos > 0 {
        out.extend(packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        out.push(0);
    }
    out.extend_from_slice(payload);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(crate) fn acknowledge(out: &mut Vec<u8>, kind: u8, packet_id: u16) {
    let flags = if kind == kind::PUBREL { 2 } else { 0 };
    out.extend([kind << 4 | flags, 2]);
    out.extend(packet_id.to_be_bytes());
}

/// DISCONNECT in good order.
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_varint(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn two(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some([high, low]) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// The value, and how many bytes it took.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_reads_as_it_was_written_in_both_versions() {
        for version in [Version::V4, Version::V5] {
            for qos in 0..3 {
                let mut bytes = Vec::new();
                publish(&mut bytes, "a/b", (qos, 7), version, &[9; 300]);
                let whole = bytes.len();
                bytes.push(0x40);
                let mut seen = 0;
                let taken = each(&bytes, |frame| {
                    let received = frame.publish(version).expect("a PUBLISH");
                    assert_eq!(frame.kind(), kind::PUBLISH);
                    assert_eq!((received.qos, received.payload), (qos, &[9; 300][..]));
                    assert_eq!(received.packet_id, if qos > 0 { 7 } else { 0 });
                    seen += 1;
                });
                assert_eq!((taken, seen), (whole, 1));
            }
        }
    }

    #[test]
    fn refusals_are_told_from_successes() {
        for (bytes, refused) in [
            (&[0x20, 2, 0, 0][..], false),
            (&[0x20, 2, 0, 5], true),
            (&[0x90, 3, 0, 1, 1], false),
            (&[0x90, 3, 0, 1, 0x80], true),
            (&[0x40, 2, 0, 1], false),
            (&[0x40, 3, 0, 1, 0x97], true),
        ] {
            each(bytes, |frame| {
                assert_eq!(frame.is_refusal(), refused, "{bytes:?}")
            });
        }
    }
}

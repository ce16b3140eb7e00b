//! As much MQTT as it takes to publish, to subscribe and to read over somebody's shoulder, by the letter of the
//! specification and not by the product's own codec.
//!
//! Invariant: a packet that cannot be read is an error, never skipped.

use anyhow::{Context, Result, bail, ensure};

/// Packet types [MQTT 2.1.2] that are looked for.
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const SUBACK: u8 = 9;
}

/// Reason codes from here on are refusals.
const REFUSED: u8 = 0x80;

/// One packet.
pub(crate) struct Frame<'a> {
    first: u8,
    body: &'a [u8],
}

/// A PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Topic name.
    pub(crate) topic: String,
    /// 0 with QoS 0.
    pub(crate) packet_id: u16,
    /// User properties; none in 3.1.1.
    pub(crate) user: Vec<(String, String)>,
    /// As published.
    pub(crate) payload: Vec<u8>,
}

/// Bytes as they come, and the packets in them.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    at: usize,
}

impl Frames {
    /// More has come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next packet that is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>> {
        let mut reader = Reader(&self.bytes[self.at..]);
        let Ok(first) = reader.u8() else {
            return Ok(None);
        };
        let Some(length) = reader.variable_integer()? else {
            return Ok(None);
        };
        let head = self.bytes.len() - self.at - reader.0.len();
        if reader.0.len() < length {
            return Ok(None);
        }
        let begin = self.at + head;
        self.at = begin + length;
        let body = &self.bytes[begin..self.at];
        Ok(Some(Frame { first, body }))
    }
}

impl Frame<'_> {
    /// See [`kind`].
    pub(crate) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Of a PUBACK; whether it takes the message.
    pub(crate) fn acknowledged(&self) -> Result<(u16, bool)> {
        let mut reader = Reader(self.body);
        let packet_id = reader.u16()?;
        let is_refused = reader.u8().is_ok_and(|code| code >= REFUSED);
        Ok((packet_id, !is_refused))
    }

    /// Whether a CONNACK or SUBACK grants what was asked for.
    pub(crate) fn is_welcome(&self) -> bool {
        match self.kind() {
            kind::CONNACK => self.body.get(1) == Some(&0),
            _ => self.body.last().is_some_and(|code| *code < REFUSED),
        }
    }

    /// Of a CONNECT: 4 is MQTT 3.1.1, 5 is MQTT 5.
    pub(crate) fn protocol_level(&self) -> Result<u8> {
        let mut reader = Reader(self.body);
        reader.text()?;
        reader.u8()
    }

    /// The PUBLISH that this is.
    pub(crate) fn publish(&self, level: u8) -> Result<Publish> {
        let mut reader = Reader(self.body);
        let topic = reader.text()?;
        let qos = self.first >> 1 & 3;
        let packet_id = if qos == 0 { 0 } else { reader.u16()? };
        let user = if level == 5 {
            reader.user_properties()?
        } else {
            Vec::new()
        };
        let payload = reader.0.to_vec();
        Ok(Publish {
            topic,
            packet_id,
            user,
            payload,
        })
    }
}

/// What is left of a packet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("a packet is cut")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u16()?.into();
        Ok(String::from_utf8(self.take(length)?.to_vec())?)
    }

    /// `None` when it has not come whole.
    fn variable_integer(&mut self) -> Result<Option<usize>> {
        let mut value = 0;
        for place in 0..4 {
            let Ok(byte) = self.u8() else {
                return Ok(None);
            };
            value |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        bail!("a length of more than four bytes")
    }

    /// The properties of a PUBLISH [MQTT 5, 3.3.2.3]; the others are stepped over.
    fn user_properties(&mut self) -> Result<Vec<(String, String)>> {
        let length = self.variable_integer()?.context("no property length")?;
        let mut rest = Reader(self.take(length)?);
        let mut found = Vec::new();
        while let Ok(property) = rest.u8() {
            match property {
                0x01 => drop(rest.take(1)?),
                0x02 => drop(rest.take(4)?),
                0x03 | 0x08 => drop(rest.text()?),
                0x09 => {
                    let length = rest.u16()?.into();
                    rest.take(length)?;
                }
                0x26 => found.push((rest.text()?, rest.text()?)),
                other => bail!("property {other:#x} is not expected here"),
            }
        }
        Ok(found)
    }
}

/// CONNECT of MQTT 3.1.1 with a clean session.
pub(crate) fn connect(client_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend([4, 2, 0, 60]);
    text(&mut body, client_id);
    packet(0x10, &body)
}

/// SUBSCRIBE at QoS 1.
pub(crate) fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(1);
    packet(0x82, &body)
}

/// PUBLISH at QoS 1.
pub(crate) fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend(packet_id.to_be_bytes());
    body.extend(payload);
    packet(0x32, &body)
}

/// PUBLISH with QoS 0.
pub(crate) fn publish_at_most_once(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend(payload);
    packet(0x30, &body)
}

/// PUBACK.
pub(crate) fn puback(packet_id: u16) -> Vec<u8> {
    packet(0x40, &packet_id.to_be_bytes())
}

fn text(body: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a test's texts are short");
    body.extend(length.to_be_bytes());
    body.extend(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        packet.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_wherever_the_bytes_are_cut() -> Result<()> {
        let long = "x".repeat(300);
        let sent = [
            publish("a/b", 7, long.as_bytes()),
            puback(9),
            publish("c", 8, b""),
        ]
        .concat();
        for step in [1, 2, 3, 100, sent.len()] {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in sent.chunks(step) {
                frames.push(piece);
                while let Some(frame) = frames.next()? {
                    found.push(match frame.kind() {
                        kind::PUBLISH => frame.publish(4)?.packet_id,
                        _ => frame.acknowledged()?.0,
                    });
                }
            }
            ensure!(found == [7, 9, 8], "in steps of {step}: {found:?}");
        }
        Ok(())
    }

    #[test]
    fn user_properties_are_found_among_others() -> Result<()> {
        let mut body = Vec::new();
        text(&mut body, "t");
        body.extend([0, 5]);
        let mut properties = vec![0x01, 1, 0x02, 0, 0, 0, 9, 0x26];
        text(&mut properties, "seq");
        text(&mut properties, "42");
        body.push(properties.len() as u8);
        body.extend(properties);
        body.extend(b"payload");
        let mut frames = Frames::default();
        frames.push(&packet(0x32, &body));
        let publish = frames.next()?.context("a packet")?.publish(5)?;
        ensure!(publish.user == [("seq".to_owned(), "42".to_owned())]);
        ensure!(publish.payload == b"payload" && publish.packet_id == 5);
        Ok(())
    }
}

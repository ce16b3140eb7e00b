//! What a simulated device says about itself: function codes 8, 17 and 43/14. A core.
//!
//! Invariant: names that are too long for an answer are cut, so that it always fits.

/// Sub-function "return query data" of diagnostics (application protocol 6.8.1).
const RETURN_QUERY_DATA: [u8; 2] = [0, 0];
/// Run indicator of a device that runs (6.13).
const RUNNING: u8 = 0xff;
/// MODBUS encapsulated interface type of device identification (6.21).
const READ_IDENTIFICATION: u8 = 14;
/// Basic and regular identification, as a stream and object by object (6.21).
const CONFORMITY: u8 = 0x82;
/// Bytes of a name in an answer.
const NAME_MAX: usize = 64;

/// The answer behind the function code, where the request is one of these.
pub(super) fn answer(pdu: &[u8], unit: u8, name: &str) -> Option<Vec<u8>> {
    match *pdu {
        [8, high, low, ..] if [high, low] == RETURN_QUERY_DATA => Some(pdu[1..].to_vec()),
        [17] => {
            let said = [&[unit, RUNNING], cut(name)].concat();
            Some([&[length(&said)], &said[..]].concat())
        }
        [43, READ_IDENTIFICATION, code, first] => identification(code, first, name),
        _ => None,
    }
}

fn identification(code: u8, first: u8, name: &str) -> Option<Vec<u8>> {
    let objects = objects(name);
    // What is asked for beyond the end of a stream is answered from its start.
    let known = objects.iter().any(|(id, _)| *id == first);
    let told: Vec<_> = match code {
        1 => objects[..3].iter().filter(|(id, _)| *id >= first).collect(),
        2 | 3 if known => objects.iter().filter(|(id, _)| *id >= first).collect(),
        2 | 3 => objects.iter().collect(),
        4 => objects.iter().filter(|(id, _)| *id == first).collect(),
        _ => return None,
    };
    if told.is_empty() {
        return None;
    }
    let count = u8::try_from(told.len()).unwrap_or(u8::MAX);
    let mut answer = vec![READ_IDENTIFICATION, code, CONFORMITY, 0, 0, count];
    for (id, text) in told {
        answer.extend([*id, length(text)]);
        answer.extend(*text);
    }
    Some(answer)
}

/// Vendor, product code and revision, which every device has; product name and model.
fn objects(name: &str) -> [(u8, &[u8]); 5] {
    [
        (0, b"gateway"),
        (1, b"simulate"),
        (2, env!("CARGO_PKG_VERSION").as_bytes()),
        (4, b"simulated device"),
        (5, cut(name)),
    ]
}

fn cut(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    &bytes[..bytes.len().min(NAME_MAX)]
}

fn length(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_names_itself_by_each_function_that_asks() {
        assert_eq!(answer(&[17], 9, "pump"), Some(b"\x06\x09\xffpump".to_vec()));
        assert_eq!(answer(&[8, 0, 0, 1, 2], 9, "pump"), Some(vec![0, 0, 1, 2]));
        let model = answer(&[43, 14, 4, 5], 9, "pump");
        assert_eq!(model, Some(b"\x0e\x04\x82\0\0\x01\x05\x04pump".to_vec()));
        let basic = answer(&[43, 14, 1, 0], 9, "pump").expect("an answer");
        assert_eq!(basic[..8], [14, 1, 0x82, 0, 0, 3, 0, 7]);
        let regular = answer(&[43, 14, 2, 4], 9, "pump").expect("an answer");
        assert_eq!(regular[5], 2);
    }

    #[test]
    fn other_requests_are_not_its() {
        for pdu in [
            &[43, 13][..],
            &[43, 14, 4, 9],
            &[43, 14, 9, 0],
            &[8, 0, 1],
            &[],
        ] {
            assert_eq!(answer(pdu, 1, "pump"), None, "{pdu:?}");
        }
        assert!(answer(&[17], 1, &"x".repeat(300)).is_some_and(|said| said.len() == 67));
    }
}

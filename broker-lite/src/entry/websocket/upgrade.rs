//! The HTTP request that opens a WebSocket (RFC 6455, section 4.2), and the answer to it.
//!
//! Core. Invariant: only a request for the configured path, by a client that speaks `mqtt`
//! [MQTT-6.0.0-3], and from a permitted origin if a browser names one, is answered with 101.

use base64ct::{Base64, Encoding};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The longest request head; browsers with many cookies stay below.
pub(crate) const REQUEST_MAX: usize = 8 * 1024;

/// Header lines of a request.
const HEADERS_MAX: usize = 64;

/// Section 1.3: shows that the server has understood the request.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that is not granted, with the HTTP status that says so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    status: &'static str,
    pub(crate) why: String,
}

impl Refused {
    /// The whole HTTP answer; tells no more than the status, for the asker may be anybody.
    pub(crate) fn answer(&self) -> Vec<u8> {
        let status = self.status;
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }
}

fn refused(status: &'static str, why: impl Into<String>) -> Refused {
    Refused {
        status,
        why: why.into(),
    }
}

fn bad(why: impl Into<String>) -> Refused {
    refused("400 Bad Request", why)
}

/// Reads a request; gives the answer that grants it, or `None` while it is not complete.
pub(crate) fn answer(
    request: &[u8],
    path: &str,
    origins: &[String],
) -> Result<Option<Vec<u8>>, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(request) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if request.len() < REQUEST_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => {
            let why = format!("the HTTP request has more than {REQUEST_MAX} bytes");
            return Err(refused("431 Request Header Fields Too Large", why));
        }
        Err(error) => return Err(bad(format!("no HTTP request: {error}"))),
    };
    if length < request.len() {
        return Err(bad(
            "bytes came before the request was answered (RFC 6455, 4.1)",
        ));
    }
    check(&parsed, path, origins)?;
    let key = header(&parsed, "Sec-WebSocket-Key").unwrap_or_default();
    Ok(Some(granted(&key)))
}

fn check(
    request: &httparse::Request<'_, '_>,
    path: &str,
    origins: &[String],
) -> Result<(), Refused> {
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(bad("not a GET of HTTP/1.1"));
    }
    let asked = request.path.unwrap_or_default();
    if asked.split('?').next() != Some(path) {
        let why = format!("{asked:?} is asked for, not {path} (listener.websocket)");
        return Err(refused("404 Not Found", why));
    }
    let lists = |name: &str, token: &str| {
        header(request, name).is_some_and(|list| {
            list.split(',')
                .any(|item| item.trim().eq_ignore_ascii_case(token))
        })
    };
    if header(request, "Host").is_none() {
        return Err(bad("no Host"));
    }
    let versions = header(request, "Sec-WebSocket-Version");
    if !(lists("Upgrade", "websocket") && lists("Connection", "upgrade"))
        || versions.as_deref() != Some("13")
    {
        let why = "not an upgrade to version 13 of WebSocket";
        return Err(refused("426 Upgrade Required", why));
    }
    let key = header(request, "Sec-WebSocket-Key").unwrap_or_default();
    if Base64::decode_vec(&key).map_or(0, |key| key.len()) != 16 {
        return Err(bad("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    if !lists("Sec-WebSocket-Protocol", "mqtt") {
        return Err(bad(
            "the client does not offer the subprotocol mqtt [MQTT-6.0.0-3]",
        ));
    }
    match header(request, "Origin") {
        Some(origin) if !origins.is_empty() && !origins.contains(&origin) => {
            let why = format!("origin {origin:?} is not listed (listener.websocket_origins)");
            Err(refused("403 Forbidden", why))
        }
        _ => Ok(()),
    }
}

/// A header's value; lines of the same name are joined, as a list may be written on several.
fn header(request: &httparse::Request<'_, '_>, name: &str) -> Option<String> {
    let lines = request.headers.iter();
    let lines = lines.filter(|header| header.name.eq_ignore_ascii_case(name));
    let values: Vec<_> = lines
        .map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn granted(key: &str) -> Vec<u8> {
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
        Base64::encode_string(proof.as_ref())
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt?from=panel HTTP/1.1\r\nHost: plant\r\nUpgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\
        Origin: https://panel.plant\r\n\r\n";

    fn asked(request: &str, origins: &[&str]) -> Result<Option<Vec<u8>>, Refused> {
        let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        answer(request.as_bytes(), "/mqtt", &origins)
    }

    fn status(request: &str) -> &'static str {
        asked(request, &["https://panel.plant"])
            .expect_err("it is refused")
            .status
    }

    /// 3.1.1: [MQTT-6.0.0-4]
    /// 5.0: [MQTT-6.0.0-4]
    #[test]
    fn a_good_request_is_granted_with_the_proof_of_the_rfc() {
        for origins in [&[][..], &["https://panel.plant"]] {
            let granted = asked(GOOD, origins).expect("granted").expect("complete");
            let granted = String::from_utf8(granted).expect("text");
            assert!(granted.starts_with("HTTP/1.1 101 "), "{granted}");
            assert!(granted.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
            assert!(granted.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
        }
    }

    #[test]
    fn a_request_is_awaited_to_its_end_and_no_further_than_its_limit() {
        for end in 0..GOOD.len() {
            assert_eq!(asked(&GOOD[..end], &[]), Ok(None));
        }
        let endless = format!("GET /mqtt HTTP/1.1\r\nCookie: {}", "x".repeat(REQUEST_MAX));
        assert_eq!(status(&endless), "431 Request Header Fields Too Large");
        let many = format!(
            "GET /mqtt HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(HEADERS_MAX + 1)
        );
        assert_eq!(status(&many), "400 Bad Request");
    }

    /// 3.1.1: [MQTT-6.0.0-3]
    /// 5.0: [MQTT-6.0.0-3]
    #[test]
    fn what_is_no_upgrade_to_mqtt_is_refused_by_its_status() {
        let without = |from: &str, to: &str| {
            assert!(GOOD.contains(from));
            status(&GOOD.replace(from, to))
        };
        assert_eq!(without("GET /mqtt", "POST /mqtt"), "400 Bad Request");
        assert_eq!(without("HTTP/1.1", "HTTP/1.0"), "400 Bad Request");
        assert_eq!(without("/mqtt?", "/mqtt/x?"), "404 Not Found");
        assert_eq!(without("Host: plant\r\n", ""), "400 Bad Request");
        assert_eq!(
            without("Upgrade: WebSocket\r\n", ""),
            "426 Upgrade Required"
        );
        assert_eq!(
            without("keep-alive, Upgrade", "close"),
            "426 Upgrade Required"
        );
        assert_eq!(without("Version: 13", "Version: 8"), "426 Upgrade Required");
        assert_eq!(
            without("dGhlIHNhbXBsZSBub25jZQ==", "short"),
            "400 Bad Request"
        );
        assert_eq!(without("mqttv3.1, mqtt", "mqttv3.1"), "400 Bad Request");
        assert_eq!(without("panel.plant", "evil.example"), "403 Forbidden");
        assert_eq!(status(&format!("{GOOD}early")), "400 Bad Request");
        assert_eq!(status("\x16\x03\x01 no HTTP\r\n\r\n"), "400 Bad Request");
    }

    #[test]
    fn a_client_that_is_no_browser_names_no_origin_and_needs_none() {
        let plain = GOOD.replace("Origin: https://panel.plant\r\n", "");
        assert!(matches!(
            asked(&plain, &["https://panel.plant"]),
            Ok(Some(_))
        ));
    }
}

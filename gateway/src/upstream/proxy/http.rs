//! HTTP CONNECT: the request, and what its answer means (RFC 9110, 9.3.6 and 11.7). Core.
//!
//! Invariant: an answer is taken only whole, within its bound, and with nothing behind it: MQTT and
//! TLS both begin with us.

use base64ct::{Base64, Encoding};

use super::{Login, Refusal};
use crate::config::url::UpstreamUrl;

/// Longest head of an answer, in bytes.
pub(super) const HEAD_MAX: usize = 8 << 10;
/// Most fields of its head.
const FIELDS_MAX: usize = 64;

/// The request for a tunnel.
pub(super) fn request(url: &UpstreamUrl, login: Option<&Login>) -> Vec<u8> {
    let authority = match url.host.contains(':') {
        true => format!("[{}]:{}", url.host, url.port),
        false => format!("{}:{}", url.host, url.port),
    };
    let mut text = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(Login { user, password }) = login {
        let pair = format!("{user}:{}", password.expose());
        let pair = Base64::encode_string(pair.as_bytes());
        text += &format!("Proxy-Authorization: Basic {pair}\r\n");
    }
    text += "\r\n";
    text.into_bytes()
}

/// Whether the tunnel is open; false while the answer is incomplete.
pub(super) fn is_open(head: &[u8]) -> Result<bool, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let parsed = answer.parse(head);
    let parsed = parsed.map_err(|error| Refusal::Proxy(format!("it does not speak HTTP: {error}")));
    let length = match parsed? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if head.len() < HEAD_MAX => return Ok(false),
        httparse::Status::Partial => {
            return Err(Refusal::Proxy(format!(
                "the head of its answer is longer than {HEAD_MAX} bytes"
            )));
        }
    };
    let code = answer.code.unwrap_or_default();
    let reason = answer.reason.unwrap_or_default();
    match code {
        200..=299 if head.len() > length => {
            Err(Refusal::Proxy("it sent something before we did".to_owned()))
        }
        200..=299 => Ok(true),
        407 => Err(Refusal::Proxy(format!(
            "it wants another login (407 {reason}); see [upstream] proxy_user and proxy_password"
        ))),
        500 | 502..=504 => Err(Refusal::Upstream(format!("{code} {reason}"))),
        _ => Err(Refusal::Proxy(format!("it answers {code} {reason}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(answer: &str) -> String {
        match is_open(answer.as_bytes()).expect_err("refused") {
            Refusal::Proxy(why) => format!("proxy: {why}"),
            Refusal::Upstream(why) => format!("upstream: {why}"),
        }
    }

    #[test]
    fn a_tunnel_is_asked_for_by_name_and_with_a_login() {
        let url: UpstreamUrl = "mqtts://cloud.example:8883".parse().unwrap();
        let text = String::from_utf8(request(&url, None)).unwrap();
        assert_eq!(
            text,
            "CONNECT cloud.example:8883 HTTP/1.1\r\nHost: cloud.example:8883\r\n\r\n"
        );
        // RFC 7617, 2.
        let login = Login {
            user: "Aladdin".to_owned(),
            password: "open sesame".to_owned().into(),
        };
        let text = String::from_utf8(request(&url, Some(&login))).unwrap();
        assert!(text.contains("Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"));
        let url: UpstreamUrl = "mqtts://[2001:db8::1]:1".parse().unwrap();
        let text = String::from_utf8(request(&url, None)).unwrap();
        assert!(text.starts_with("CONNECT [2001:db8::1]:1 "), "{text}");
    }

    #[test]
    fn only_a_whole_answer_opens_the_tunnel() {
        let answer = "HTTP/1.0 200 Connection established\r\nProxy-agent: x\r\n\r\n";
        for length in 0..answer.len() {
            assert_eq!(is_open(&answer.as_bytes()[..length]), Ok(false), "{length}");
        }
        assert_eq!(is_open(answer.as_bytes()), Ok(true));
        let more = refusal(&format!("{answer}x"));
        assert!(more.contains("before we did"), "{more}");
    }

    #[test]
    fn a_refusing_proxy_is_told_from_an_upstream_out_of_reach() {
        let login = refusal("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
        assert!(
            login.starts_with("proxy: it wants another login"),
            "{login}"
        );
        let away = refusal("HTTP/1.1 502 Bad Gateway\r\n\r\n");
        assert_eq!(away, "upstream: 502 Bad Gateway");
        let closed = refusal("HTTP/1.1 403 Forbidden\r\n\r\n");
        assert_eq!(closed, "proxy: it answers 403 Forbidden");
        assert!(refusal("\x16\x03\x01").starts_with("proxy: it does not speak HTTP"));
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_MAX));
        assert!(refusal(&endless).contains("longer than 8192 bytes"));
    }
}

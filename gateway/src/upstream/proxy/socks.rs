//! SOCKS5: what is said and what its answers mean (RFC 1928, and RFC 1929 for logins). Core.
//!
//! Invariant: names go to the proxy as names, and no answer has us wait for more than 257 bytes.

use std::net::IpAddr;

use super::{Login, Refusal};
use crate::config::url::UpstreamUrl;

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const BY_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;
pub(super) const PORT_BYTES: usize = 2;

/// What follows the first four bytes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// So many bytes.
    Fixed(usize),
    /// A length, a name of that many bytes, and a port.
    Named,
}

/// The first words: how we may log in.
pub(super) fn greeting(login: Option<&Login>) -> &'static [u8] {
    match login {
        Some(_) => &[VERSION, 2, NO_LOGIN, BY_PASSWORD],
        None => &[VERSION, 1, NO_LOGIN],
    }
}

/// Whether the proxy wants a login, by its answer to the greeting.
pub(super) fn wants_login(
    [version, method]: [u8; 2],
    login: Option<&Login>,
) -> Result<bool, Refusal> {
    match (version, method) {
        (VERSION, NO_LOGIN) => Ok(false),
        (VERSION, BY_PASSWORD) if login.is_some() => Ok(true),
        (VERSION, _) if login.is_none() => {
            let why = "it wants a login; write [upstream] proxy_user and proxy_password";
            Err(Refusal::Proxy(why.to_owned()))
        }
        (VERSION, _) => Err(Refusal::Proxy("it takes no login by password".to_owned())),
        _ => Err(not_socks(version)),
    }
}

/// User and password (RFC 1929, 2).
pub(super) fn login(login: &Login) -> Result<Vec<u8>, Refusal> {
    let mut bytes = vec![LOGIN_VERSION];
    for text in [login.user.as_str(), login.password.expose()] {
        let length = u8::try_from(text.len()).ok().filter(|length| *length > 0);
        let length = length.ok_or_else(|| {
            Refusal::Proxy("SOCKS5 takes users and passwords of 1 to 255 bytes".to_owned())
        })?;
        bytes.push(length);
        bytes.extend_from_slice(text.as_bytes());
    }
    Ok(bytes)
}

/// What the proxy says to the login.
pub(super) fn logged_in([_, status]: [u8; 2]) -> Result<(), Refusal> {
    match status {
        0 => Ok(()),
        _ => Err(Refusal::Proxy(
            "it refuses the login; see [upstream] proxy_user and proxy_password".to_owned(),
        )),
    }
}

/// The request for a connection.
pub(super) fn request(url: &UpstreamUrl) -> Result<Vec<u8>, Refusal> {
    let mut bytes = vec![VERSION, CONNECT, 0];
    match url.host.parse() {
        Ok(IpAddr::V4(address)) => {
            bytes.push(V4);
            bytes.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            bytes.push(V6);
            bytes.extend_from_slice(&address.octets());
        }
        Err(_) => {
            let length = u8::try_from(url.host.len());
            let length = length.map_err(|_| {
                Refusal::Upstream("SOCKS5 takes names of up to 255 bytes".to_owned())
            })?;
            bytes.extend_from_slice(&[NAME, length]);
            bytes.extend_from_slice(url.host.as_bytes());
        }
    }
    bytes.extend_from_slice(&url.port.to_be_bytes());
    Ok(bytes)
}

/// What the proxy says to the request, by its first four bytes.
pub(super) fn opened([version, reply, _, kind]: [u8; 4]) -> Result<Bound, Refusal> {
    if version != VERSION {
        return Err(not_socks(version));
    }
    let upstream = |why: &str| Err(Refusal::Upstream(why.to_owned()));
    match reply {
        0 => match kind {
            V4 => Ok(Bound::Fixed(4 + PORT_BYTES)),
            V6 => Ok(Bound::Fixed(16 + PORT_BYTES)),
            NAME => Ok(Bound::Named),
            _ => Err(Refusal::Proxy(format!(
                "it answers with address type {kind}"
            ))),
        },
        1 => upstream("general failure"),
        2 => Err(Refusal::Proxy(
            "its rules do not allow the upstream".to_owned(),
        )),
        3 => upstream("network unreachable"),
        4 => upstream("host unreachable"),
        5 => upstream("connection refused"),
        6 => upstream("time to live expired"),
        7 => Err(Refusal::Proxy("it does not support CONNECT".to_owned())),
        8 => Err(Refusal::Proxy(
            "it does not take this type of address".to_owned(),
        )),
        _ => Err(Refusal::Proxy(format!("it answers {reply}"))),
    }
}

fn not_socks(version: u8) -> Refusal {
    Refusal::Proxy(format!("it does not speak SOCKS5: version {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> UpstreamUrl {
        text.parse().unwrap()
    }

    fn user(name: &str) -> Login {
        Login {
            user: name.to_owned(),
            password: "pw".to_owned().into(),
        }
    }

    #[test]
    fn requests_are_those_of_rfc_1928() {
        let name = request(&url("mqtts://ab.c:8883")).unwrap();
        assert_eq!(name, b"\x05\x01\x00\x03\x04ab.c\x22\xb3");
        let v4 = request(&url("mqtts://192.0.2.1:1")).unwrap();
        assert_eq!(v4, b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x01");
        let v6 = request(&url("mqtts://[::1]:1")).unwrap();
        assert_eq!((v6[3], v6.len()), (4, 22));
        assert_eq!(login(&user("u")).unwrap(), b"\x01\x01u\x02pw");
        assert!(login(&user("")).is_err() && login(&user(&"x".repeat(256))).is_err());
    }

    #[test]
    fn a_login_is_given_only_to_a_proxy_that_asks_for_it() {
        let with = user("u");
        assert_eq!(greeting(None), [5, 1, 0]);
        assert_eq!(greeting(Some(&with)), [5, 2, 0, 2]);
        assert_eq!(wants_login([5, 0], Some(&with)), Ok(false));
        assert_eq!(wants_login([5, 2], Some(&with)), Ok(true));
        for (answer, login) in [([5, 2], None), ([5, 255], Some(&with)), ([72, 84], None)] {
            assert!(matches!(wants_login(answer, login), Err(Refusal::Proxy(_))));
        }
        assert!(logged_in([1, 0]).is_ok() && logged_in([1, 1]).is_err());
    }

    #[test]
    fn a_refusing_proxy_is_told_from_an_upstream_out_of_reach() {
        assert_eq!(opened([5, 0, 0, 1]), Ok(Bound::Fixed(6)));
        assert_eq!(opened([5, 0, 0, 4]), Ok(Bound::Fixed(18)));
        assert_eq!(opened([5, 0, 0, 3]), Ok(Bound::Named));
        for reply in [1, 3, 4, 5, 6] {
            let answer = opened([5, reply, 0, 1]);
            assert!(matches!(answer, Err(Refusal::Upstream(_))), "{reply}");
        }
        for reply in [2, 7, 8, 9] {
            let answer = opened([5, reply, 0, 1]);
            assert!(matches!(answer, Err(Refusal::Proxy(_))), "{reply}");
        }
        assert!(matches!(opened([4, 0, 0, 1]), Err(Refusal::Proxy(_))));
        assert!(matches!(opened([5, 0, 0, 9]), Err(Refusal::Proxy(_))));
    }
}

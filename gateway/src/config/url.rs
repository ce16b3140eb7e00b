//! The address of an upstream broker, `mqtts://HOST:PORT`, of a proxy on the way, of an EST server and of a
//! repository of releases. Values.

use std::{fmt, net::IpAddr, str::FromStr};

/// Port of MQTT over TLS (IANA).
const TLS_PORT: u16 = 8_883;
/// Port of plain MQTT (IANA).
const PLAIN_PORT: u16 = 1_883;
/// Port of HTTP over TLS (IANA).
const HTTPS_PORT: u16 = 443;
/// Port of HTTP (IANA).
const HTTP_PORT: u16 = 80;
/// Port of SOCKS (IANA).
const SOCKS_PORT: u16 = 1_080;

/// Where the upstream broker is, and whether it is spoken to over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// `mqtts`, rather than `mqtt`.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl UpstreamUrl {
    /// Whether it names this machine itself.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl FromStr for UpstreamUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<UpstreamUrl, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtts", rest)) => (true, rest),
            Some(("mqtt", rest)) => (false, rest),
            _ => return Err("it must begin with mqtts:// or mqtt://".to_owned()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err("it has only a host and a port after mqtts://".to_owned());
        }
        let (host, port) = split_port(rest)?;
        if host.is_empty() {
            return Err("it names no host".to_owned());
        }
        let default = if tls { TLS_PORT } else { PLAIN_PORT };
        Ok(UpstreamUrl {
            tls,
            host: host.to_owned(),
            port: port.unwrap_or(default),
        })
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP CONNECT (RFC 9110, 9.3.6).
    Http,
    /// SOCKS version 5 (RFC 1928).
    Socks5,
}

/// Where a proxy is, and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// Its protocol.
    pub kind: ProxyKind,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl FromStr for ProxyUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<ProxyUrl, String> {
        let (kind, rest) = match text.split_once("://") {
            Some(("http", rest)) => (ProxyKind::Http, rest),
            Some(("socks5" | "socks5h", rest)) => (ProxyKind::Socks5, rest),
            _ => return Err("it must begin with http:// or socks5://".to_owned()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("a login is written as proxy_user and proxy_password".to_owned());
        }
        if rest.contains(['/', '?', '#']) {
            return Err("it has only a host and a port".to_owned());
        }
        let (host, port) = split_port(rest)?;
        if host.is_empty() {
            return Err("it names no host".to_owned());
        }
        let default = (kind == ProxyKind::Socks5).then_some(SOCKS_PORT);
        Ok(ProxyUrl {
            kind,
            host: host.to_owned(),
            port: port.or(default).ok_or("it names no port")?,
        })
    }
}

/// Where an EST server is (RFC 7030, 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EstUrl {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `/.well-known/est`, with the label of the authority where there is one.
    pub path: String,
}

impl FromStr for EstUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<EstUrl, String> {
        let rest = text.strip_prefix("https://");
        let rest = rest.ok_or("it must begin with https://")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.contains(['?', '#', '@']) {
            return Err("it has only a host, a port and a path".to_owned());
        }
        let label = path.trim_start_matches(".well-known/est").trim_matches('/');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if !label.chars().all(is_plain) {
            return Err(format!("{label:?} is no label of an authority"));
        }
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err("it names no host".to_owned());
        }
        let mut path = "/.well-known/est".to_owned();
        if !label.is_empty() {
            path = format!("{path}/{label}");
        }
        Ok(EstUrl {
            host: host.to_owned(),
            port: port.unwrap_or(HTTPS_PORT),
            path,
        })
    }
}

/// Where a repository of releases is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryUrl {
    /// `https`, rather than `http`.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What stands before `/metadata/…` and `/targets/…`: empty, or with a slash before it and none after.
    pub path: String,
}

impl RepositoryUrl {
    /// Whether it names this machine itself.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl FromStr for RepositoryUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<RepositoryUrl, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err("it must begin with https://".to_owned()),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/%".contains(c);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') || !path.chars().all(is_plain) {
            return Err("it has only a host, a port and a path".to_owned());
        }
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err("it names no host".to_owned());
        }
        let path = path.trim_matches('/');
        Ok(RepositoryUrl {
            tls,
            host: host.to_owned(),
            port: port.unwrap_or(if tls { HTTPS_PORT } else { HTTP_PORT }),
            path: match path {
                "" => String::new(),
                path => format!("/{path}"),
            },
        })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// `HOST`, `HOST:PORT` or `[V6]:PORT` into its parts.
///
/// # Errors
/// The port is no number from 1 to 65535, or a bracket is missing.
pub(super) fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest
                .split_once(']')
                .ok_or("a ] is missing after the IPv6 address")?;
            (host, after.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let number = |port: &str| port.parse().ok().filter(|port| *port != 0);
    match port
        .map(|port| number(port).ok_or_else(|| format!("{port:?} is no port from 1 to 65535")))
    {
        None => Ok((host, None)),
        Some(port) => port.map(|port| (host, Some(port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        let parsed = |text: &str| {
            text.parse::<UpstreamUrl>()
                .map(|url| (url.tls, url.host, url.port))
        };
        assert_eq!(
            parsed("mqtts://cloud.example"),
            Ok((true, "cloud.example".to_owned(), 8_883))
        );
        assert_eq!(
            parsed("mqtt://127.0.0.1:1884/"),
            Ok((false, "127.0.0.1".to_owned(), 1_884))
        );
        assert_eq!(parsed("mqtts://[::1]:1"), Ok((true, "::1".to_owned(), 1)));
    }

    #[test]
    fn proxies_are_told_apart_by_their_scheme() {
        let parsed = |text: &str| text.parse::<ProxyUrl>().map(|url| (url.kind, url.port));
        assert_eq!(parsed("http://p:3128"), Ok((ProxyKind::Http, 3_128)));
        assert_eq!(parsed("socks5://[::1]"), Ok((ProxyKind::Socks5, 1_080)));
        for (text, why) in [
            ("https://p:1", "http:// or socks5://"),
            ("http://p", "no port"),
            ("http://u:p@h:1", "proxy_user"),
            ("socks5://", "no host"),
        ] {
            assert!(parsed(text).expect_err("refused").contains(why), "{text}");
        }
    }

    #[test]
    fn an_est_server_may_have_a_label_for_each_authority() {
        let path = |text: &str| text.parse::<EstUrl>().map(|url| (url.port, url.path));
        let plain = "/.well-known/est".to_owned();
        assert_eq!(path("https://ca"), Ok((443, plain.clone())));
        assert_eq!(path("https://ca:8085/.well-known/est"), Ok((8_085, plain)));
        let labelled = "/.well-known/est/plant".to_owned();
        assert_eq!(path("https://ca/plant/"), Ok((443, labelled.clone())));
        assert_eq!(
            path("https://ca/.well-known/est/plant"),
            Ok((443, labelled))
        );
        for wrong in ["http://ca", "https://", "https://ca/a b", "https://ca/a/b"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_repository_may_lie_below_a_path() {
        let parsed = |text: &str| {
            let url = text.parse::<RepositoryUrl>();
            url.map(|url| (url.tls, url.host, url.port, url.path))
        };
        let host = "r.example".to_owned();
        let plain = (true, host.clone(), 443, String::new());
        assert_eq!(parsed("https://r.example/"), Ok(plain));
        let below = (false, host, 8_080, "/a/b".to_owned());
        assert_eq!(parsed("http://r.example:8080/a/b/"), Ok(below));
        for wrong in [
            "r.example",
            "https://",
            "https://u:p@r.example",
            "https://r.example/?a",
            "https://r.example/a#b",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_url_is_told_why() {
        let refused = |text: &str| text.parse::<UpstreamUrl>().expect_err("refused");
        assert!(refused("https://cloud").contains("mqtts://"));
        assert!(refused("mqtts://").contains("no host"));
        assert!(refused("mqtts://h:0").contains("1 to 65535"));
        assert!(refused("mqtts://user@h").contains("only a host"));
    }
}

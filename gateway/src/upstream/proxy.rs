//! Asks a proxy for a way to the upstream: HTTP CONNECT (RFC 9110, 9.3.6) or SOCKS5 (RFC 1928).
//!
//! Invariant: the proxy resolves the upstream's name, answers within bounds, and its refusals are
//! told apart from an upstream that it cannot reach. Layer: driver; what is said is decided in its
//! rooms.

mod http;
mod socks;

use std::fmt;

use settings::{Secret, SecretText};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
};

use super::cause::Cause;
use crate::config::{
    self,
    url::{ProxyKind, ProxyUrl, UpstreamUrl},
};

/// A proxy and how to log in there.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    kind: ProxyKind,
    pub(super) host: String,
    pub(super) port: u16,
    login: Option<(String, Secret)>,
}

/// User and password for one question.
struct Login {
    user: String,
    password: SecretText,
}

/// Why a proxy gives no way.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It does not want to, or does not speak its protocol.
    Proxy(String),
    /// It wants to, and cannot reach the upstream.
    Upstream(String),
}

impl Proxy {
    /// The configured one; an error when its address makes no sense.
    pub(super) fn of(config: &config::Upstream) -> Result<Option<Proxy>, String> {
        let Some(text) = &config.proxy else {
            return Ok(None);
        };
        let url: Result<ProxyUrl, String> = text.parse();
        let url = url.map_err(|why| format!("[upstream] proxy = {text:?}: {why}"))?;
        let login = config.proxy_user.clone().zip(config.proxy_password.clone());
        Ok(Some(Proxy {
            kind: url.kind,
            host: url.host,
            port: url.port,
            login,
        }))
    }

    /// Read each time, for secrets are replaced.
    async fn login(&self) -> Result<Option<Login>, Cause> {
        let Some((user, secret)) = self.login.clone() else {
            return Ok(None);
        };
        let password = spawn_blocking(move || secret.read()).await;
        let password = password.map_err(|error| Cause::Credentials(error.to_string()))?;
        let password = password.map_err(|error| Cause::Credentials(error.to_string()))?;
        Ok(Some(Login { user, password }))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Has `stream`, which leads to the proxy, lead to the upstream.
pub(super) async fn ask(
    proxy: &Proxy,
    stream: &mut TcpStream,
    url: &UpstreamUrl,
) -> Result<(), Cause> {
    let login = proxy.login().await?;
    let asked = match proxy.kind {
        ProxyKind::Http => ask_http(stream, url, login.as_ref()).await,
        ProxyKind::Socks5 => ask_socks(stream, url, login.as_ref()).await,
    };
    asked.map_err(|refusal| match refusal {
        Refusal::Proxy(why) => Cause::Proxy(format!("{proxy}: {why}")),
        Refusal::Upstream(why) => Cause::Unreachable(format!("from proxy {proxy}: {why}")),
    })
}

async fn ask_http(
    stream: &mut TcpStream,
    url: &UpstreamUrl,
    login: Option<&Login>,
) -> Result<(), Refusal> {
    let request = http::request(url, login);
    stream.write_all(&request).await.map_err(broken)?;
    let mut head = Vec::with_capacity(http::HEAD_MAX);
    loop {
        if stream.read_buf(&mut head).await.map_err(broken)? == 0 {
            return Err(Refusal::Proxy("it ended the connection".to_owned()));
        }
        if http::is_open(&head)? {
            return Ok(());
        }
    }
}

async fn ask_socks(
    stream: &mut TcpStream,
    url: &UpstreamUrl,
    login: Option<&Login>,
) -> Result<(), Refusal> {
    stream
        .write_all(socks::greeting(login))
        .await
        .map_err(broken)?;
    let method = exactly::<2>(stream).await?;
    if socks::wants_login(method, login)?
        && let Some(login) = login
    {
        let text = socks::login(login)?;
        stream.write_all(&text).await.map_err(broken)?;
        socks::logged_in(exactly::<2>(stream).await?)?;
    }
    let request = socks::request(url)?;
    stream.write_all(&request).await.map_err(broken)?;
    let kind = socks::opened(exactly::<4>(stream).await?)?;
    // The address that it connects from ends the answer; only its length matters.
    let length = match kind {
        socks::Bound::Fixed(length) => length,
        socks::Bound::Named => usize::from(exactly::<1>(stream).await?[0]) + socks::PORT_BYTES,
    };
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await.map_err(broken)?;
    Ok(())
}

async fn exactly<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(broken)?;
    Ok(bytes)
}

fn broken(error: std::io::Error) -> Refusal {
    Refusal::Proxy(format!("it ended the connection ({error})"))
}

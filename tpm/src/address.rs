//! Where a TPM is: the kernel's resource manager, or a simulator's socket. Value.
//!
//! Invariant: what parses is printed the same.

use std::{fmt, path::PathBuf, str::FromStr};

/// The kernel's resource manager, shared with others.
pub const RESOURCE_MANAGER: &str = "/dev/tpmrm0";

/// How to reach a TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A device file of the kernel, `/dev/tpmrm0` normally.
    Device(PathBuf),
    /// A simulator on TCP, `tcp:127.0.0.1:2321`.
    Tcp(String),
    /// A simulator on a Unix socket, `unix:/run/swtpm.sock`.
    Unix(PathBuf),
}

impl Default for Address {
    fn default() -> Address {
        Address::Device(PathBuf::from(RESOURCE_MANAGER))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(peer) = text.strip_prefix("tcp:") {
            let port = peer.rsplit_once(':').and_then(|(host, port)| {
                (!host.is_empty())
                    .then(|| port.parse::<u16>().ok())
                    .flatten()
            });
            return match port {
                Some(_) => Ok(Address::Tcp(peer.to_owned())),
                None => Err(format!(
                    "tcp:{peer} wants a host and a port, such as tcp:127.0.0.1:2321"
                )),
            };
        }
        let (path, make): (_, fn(PathBuf) -> Address) = match text.strip_prefix("unix:") {
            Some(path) => (path, Address::Unix),
            None => (text, Address::Device),
        };
        match path.starts_with('/') {
            true => Ok(make(PathBuf::from(path))),
            false => Err(format!(
                "{text:?} is no address of a TPM; write {RESOURCE_MANAGER}, unix:/path/to/socket or tcp:host:port"
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Device(path) => write!(f, "{}", path.display()),
            Address::Tcp(peer) => write!(f, "tcp:{peer}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn what_parses_is_printed_the_same() {
        for text in [
            "/dev/tpmrm0",
            "tcp:127.0.0.1:2321",
            "tcp:[::1]:2321",
            "unix:/run/tpm.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_says_what_one_looks_like() {
        for text in [
            "",
            "tpmrm0",
            "unix:here",
            "tcp:2321",
            "tcp:host:port",
            "tcp::1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}

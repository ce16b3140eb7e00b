//! Where clients come from, and where they are served. Values.
//!
//! Invariant: an address prints as what an operator would look for: `10.0.0.7:50312`, `unix uid 1000`.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

/// Where a client connects from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Address {
    /// Over the network, this machine's loopback included.
    Network(SocketAddr),
    /// Over a Unix socket.
    Unix {
        /// The user that the client's process runs as.
        uid: u32,
    },
}

impl Address {
    /// The address that limits and bans count by; processes of this machine share a Unix socket,
    /// so that one of them would lock out all.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Network(address) => Some(address.ip()),
            Address::Unix { .. } => None,
        }
    }
}

/// Where connections and failures are counted: an IPv4 address, or the network of an IPv6 address, for each host
/// of that may take any of its 2^64 addresses.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Network(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Network(address) => address.fmt(f),
            Address::Unix { uid } => write!(f, "unix uid {uid}"),
        }
    }
}

/// Where a listener serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// On a TCP port.
    Network(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// The TCP port; 0 on a Unix socket.
    pub fn port(&self) -> u16 {
        self.socket_address().map_or(0, |address| address.port())
    }

    /// The TCP address; none on a Unix socket.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Network(address) => Some(*address),
            Endpoint::Unix(_) => None,
        }
    }

    /// Whether only processes of this machine get there.
    pub fn is_local(&self) -> bool {
        match self {
            Endpoint::Network(address) => address.ip().is_loopback(),
            Endpoint::Unix(_) => true,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Network(address) => address.fmt(f),
            Endpoint::Unix(path) => path.display().fmt(f),
        }
    }
}

//! Checks of texts that have a form of their own, by the name the schema gives the form.
//!
//! Invariant: a form without a check accepts every text. Layer: value.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::units::{Period, Size};

/// Says why a text does not have the form, as a clause: `the unit is missing`.
type Check = fn(&str) -> Result<(), String>;

/// The forms (`format` in the schema) that a check of a file knows.
#[derive(Debug, Clone)]
pub struct Formats {
    checks: BTreeMap<&'static str, Check>,
}

impl Default for Formats {
    /// `duration`, `size`, `ip`, `ipv4`, `ipv6`, `socket-address`.
    fn default() -> Self {
        let checks: [(&'static str, Check); 6] = [
            ("duration", parses::<Period>),
            ("size", parses::<Size>),
            ("ip", parses::<IpAddr>),
            ("ipv4", parses::<Ipv4Addr>),
            ("ipv6", parses::<Ipv6Addr>),
            ("socket-address", socket_address),
        ];
        Self {
            checks: checks.into(),
        }
    }
}

impl Formats {
    /// Adds a form, or takes the place of one. The check's error is a clause that follows
    /// `"…" is not a <name>: `.
    #[must_use]
    pub fn with(mut self, name: &'static str, check: Check) -> Self {
        self.checks.insert(name, check);
        self
    }

    /// What is wrong with this text; `Ok` also for a form nobody knows.
    pub(crate) fn check(&self, name: &str, text: &str) -> Result<(), String> {
        self.checks.get(name).map_or(Ok(()), |check| check(text))
    }
}

fn parses<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(), String> {
    text.parse::<T>()
        .map(drop)
        .map_err(|reason| reason.to_string())
}

fn socket_address(text: &str) -> Result<(), String> {
    match text.parse::<SocketAddr>() {
        Ok(_) => Ok(()),
        Err(_) if text.parse::<IpAddr>().is_ok() => Err("the port is missing".to_owned()),
        Err(_) => Err("it must be an IP address and a port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_its_port_is_told_so() {
        let formats = Formats::default();
        assert_eq!(formats.check("socket-address", "127.0.0.1:1883"), Ok(()));
        assert_eq!(
            formats.check("socket-address", "127.0.0.1"),
            Err("the port is missing".to_owned())
        );
        assert!(formats.check("socket-address", "localhost:1883").is_err());
    }

    #[test]
    fn a_program_brings_its_own_forms() {
        let formats = Formats::default().with("even", |text| {
            (text.len() % 2 == 0)
                .then_some(())
                .ok_or_else(|| "it has an odd length".to_owned())
        });
        assert_eq!(
            formats.check("even", "abc"),
            Err("it has an odd length".to_owned())
        );
        assert_eq!(formats.check("unheard-of", "abc"), Ok(()));
    }
}

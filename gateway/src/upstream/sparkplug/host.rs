//! Whether the primary host application listens.
//!
//! Invariant: a STATE message older than the last one that said `online` changes nothing
//! (tck-id-operational-behavior-edge-node-termination-host-offline-timestamp). Layer: core.

use serde::Deserialize;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Host {
    id: String,
    online: Option<bool>,
    last_online: u64,
}

#[derive(Deserialize)]
struct State {
    online: bool,
    timestamp: u64,
}

impl Host {
    /// The host application of this name, of which nothing is known.
    pub(crate) fn new(id: &str) -> Host {
        Host {
            id: id.to_owned(),
            online: None,
            last_online: 0,
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Where it tells its state.
    pub(crate) fn topic(&self) -> String {
        format!("spBv1.0/STATE/{}", self.id)
    }

    /// A new connection: it may lead to another server, where the host is or is not.
    pub(crate) fn forget(&mut self) {
        self.online = None;
    }

    /// What it said last.
    pub(crate) fn online(&self) -> Option<bool> {
        self.online
    }

    /// Takes in what it says; anything else than a STATE payload of version 3 is no word of it.
    pub(crate) fn heard(&mut self, payload: &[u8]) {
        let Ok(state) = serde_json::from_slice::<State>(payload) else {
            return;
        };
        if state.timestamp < self.last_online {
            return;
        }
        if state.online {
            self.last_online = state.timestamp;
        }
        self.online = Some(state.online);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_will_of_an_earlier_session_does_not_end_this_one() {
        let mut host = Host::new("scada");
        host.heard(br#"{"online":true,"timestamp":2000}"#);
        host.heard(br#"{"online":false,"timestamp":1000}"#);
        assert_eq!(host.online(), Some(true));
        host.heard(br#"{"online":false,"timestamp":2000}"#);
        assert_eq!(host.online(), Some(false));
        host.heard(br#"{"online":true,"timestamp":1999}"#);
        assert_eq!(host.online(), Some(false));
        host.heard(br#"{"online":true,"timestamp":3000}"#);
        assert_eq!(host.online(), Some(true));
    }

    #[test]
    fn what_is_no_state_says_nothing() {
        let mut host = Host::new("scada");
        for payload in [
            b"ONLINE".as_slice(),
            b"{}",
            b"",
            br#"{"online":1,"timestamp":5}"#,
        ] {
            host.heard(payload);
        }
        assert_eq!(host.online(), None);
    }
}

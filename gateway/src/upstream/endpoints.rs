//! Decides which of the upstream's addresses is tried next.
//!
//! Invariant: they are tried in the order in which they are written, and a pause comes only after
//! all of them have failed. Core.

use crate::config::url::UpstreamUrl;

/// What follows a link that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// This one, without a pause.
    AtOnce(UpstreamUrl),
    /// The first one, after a pause.
    Pause,
}

/// At least one address, and the one in use.
#[derive(Debug)]
pub(super) struct Endpoints {
    urls: Vec<UpstreamUrl>,
    current: usize,
    /// Addresses that have failed since one worked.
    failed: usize,
}

impl Endpoints {
    /// `None` without an address.
    pub(super) fn new(urls: Vec<UpstreamUrl>) -> Option<Endpoints> {
        (!urls.is_empty()).then_some(Endpoints {
            urls,
            current: 0,
            failed: 0,
        })
    }

    /// The one to be tried, or in use.
    pub(super) fn current(&self) -> &UpstreamUrl {
        &self.urls[self.current]
    }

    /// The first one while another is in use.
    pub(super) fn preferred(&self) -> Option<&UpstreamUrl> {
        (self.current > 0).then(|| &self.urls[0])
    }

    /// The current one lets us in.
    pub(super) fn connected(&mut self) {
        self.failed = 0;
    }

    /// The current one does not, or does no longer.
    pub(super) fn failed(&mut self) -> Next {
        self.failed += 1;
        self.current = (self.current + 1) % self.urls.len();
        if self.failed < self.urls.len() {
            return Next::AtOnce(self.current().clone());
        }
        self.restart();
        Next::Pause
    }

    /// From the first one on.
    pub(super) fn restart(&mut self) {
        self.current = 0;
        self.failed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_tried_in_order_and_a_pause_comes_after_the_last() {
        let url = |host: &str| format!("mqtts://{host}").parse::<UpstreamUrl>().unwrap();
        let mut endpoints = Endpoints::new(vec![url("a"), url("b"), url("c")]).unwrap();
        assert_eq!(endpoints.preferred(), None);
        assert_eq!(endpoints.failed(), Next::AtOnce(url("b")));
        assert_eq!(endpoints.failed(), Next::AtOnce(url("c")));
        endpoints.connected();
        assert_eq!(endpoints.preferred(), Some(&url("a")));
        assert_eq!(endpoints.failed(), Next::AtOnce(url("a")));
        assert_eq!(endpoints.failed(), Next::AtOnce(url("b")));
        assert_eq!(endpoints.failed(), Next::Pause);
        assert_eq!(endpoints.current(), &url("a"));
        let mut alone = Endpoints::new(vec![url("a")]).unwrap();
        assert_eq!(alone.failed(), Next::Pause);
        assert!(Endpoints::new(Vec::new()).is_none());
    }
}

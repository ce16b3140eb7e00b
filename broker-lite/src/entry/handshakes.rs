//! Whose turn it is to shake hands: TLS handshakes and WebSocket upgrades cost a signature and
//! kilobytes each, before anybody has said who he is. Driver.
//!
//! Invariant: no more than the limit are under way, and no address has more than its share of them,
//! so that a flood from one waits for itself while others pass.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{address::Address, login::bans::source_of};

/// One address gets this part of the limit.
const SHARE: u32 = 4;

/// From so many remembered addresses on, those without a handshake are forgotten first.
const TIDY_FROM: usize = 64;

/// Counts the handshakes under way, in all and by address.
#[derive(Debug)]
pub(crate) struct Handshakes(Mutex<Arc<Turns>>);

#[derive(Debug)]
struct Turns {
    limit: u32,
    all: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// One handshake's turn, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _all: Option<OwnedSemaphorePermit>,
    _own: Option<OwnedSemaphorePermit>,
}

impl Handshakes {
    pub(crate) fn new(limit: u32) -> Handshakes {
        Handshakes(Mutex::new(Arc::new(Turns::new(limit))))
    }

    /// Another limit from now on; those under way, or waiting, are not counted again.
    pub(crate) fn limit(&self, limit: u32) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.limit != limit {
            *turns = Arc::new(Turns::new(limit));
        }
    }

    /// Waits for a turn, first among those of the same address.
    pub(crate) async fn turn(&self, address: Address) -> Turn {
        let turns = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Semaphores that nobody closes give a permit always.
        let own = match source_of(&address) {
            Some(ip) => turns.of(ip).acquire_owned().await.ok(),
            None => None,
        };
        Turn {
            _all: Arc::clone(&turns.all).acquire_owned().await.ok(),
            _own: own,
        }
    }
}

impl Turns {
    fn new(limit: u32) -> Turns {
        Turns {
            limit,
            all: Arc::new(Semaphore::new(limit as usize)),
            by_address: Mutex::default(),
        }
    }

    fn of(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut known = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = known.get(&address).and_then(Weak::upgrade) {
            return share;
        }
        if known.len() >= TIDY_FROM {
            known.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new((self.limit / SHARE).max(1) as usize));
        known.insert(address, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, net::SocketAddr, pin::pin, task::Context};

    use super::*;

    fn from(last: u8) -> Address {
        SocketAddr::from(([10, 0, 0, last], 1)).into()
    }

    fn at_once(future: impl Future<Output = Turn>) -> Option<Turn> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match pin!(future).poll(&mut context) {
            std::task::Poll::Ready(turn) => Some(turn),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn a_flood_from_one_address_waits_for_itself_and_others_pass() {
        let handshakes = Handshakes::new(8);
        let mut turns = [
            at_once(handshakes.turn(from(1))),
            at_once(handshakes.turn(from(1))),
        ];
        assert!(turns.iter().all(Option::is_some));
        assert!(
            at_once(handshakes.turn(from(1))).is_none(),
            "a quarter is its share"
        );
        let others: Vec<_> = (2..=7)
            .map(|last| at_once(handshakes.turn(from(last))))
            .collect();
        assert!(others.iter().all(Option::is_some));
        assert!(
            at_once(handshakes.turn(from(9))).is_none(),
            "eight are under way"
        );
        turns[0] = None;
        assert!(at_once(handshakes.turn(Address::Unix { uid: 0 })).is_some());
    }

    #[test]
    fn addresses_are_forgotten_once_their_handshakes_are_over() {
        let handshakes = Handshakes::new(1_000);
        for n in 0..1_000_u32 {
            drop(at_once(
                handshakes.turn(SocketAddr::from((n.to_be_bytes(), 1)).into()),
            ));
        }
        let turns = Arc::clone(&handshakes.0.lock().unwrap());
        assert!(turns.by_address.lock().unwrap().len() <= TIDY_FROM);
    }
}

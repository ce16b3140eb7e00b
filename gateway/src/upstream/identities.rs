//! The identity that the link offers, and a newer one tried beside it.
//!
//! Invariant: the live session is given up for a new identity only after the upstream took that in
//! a handshake of its own; until it is let in, the old one is at hand. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustls::ProtocolVersion;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;
use tracing::{info, warn};

use super::{
    candidate::{Candidates, Choice},
    cause::Cause,
    reach::{self, Reach},
    status::{Board, Certificate},
    tls::{Offer, Tls, TlsError},
};
use crate::config::url::UpstreamUrl;

/// Pause between two looks for another identity.
#[cfg(not(test))]
const LOOK: Duration = Duration::from_secs(10);
#[cfg(test)]
const LOOK: Duration = Duration::from_millis(100);
/// With TLS 1.3 an upstream judges our certificate after the handshake; one that is silent for so
/// long has taken it.
const VERDICT: Duration = Duration::from_secs(3);
/// Pause between two looks whether it has sent a session's ticket, which says the same sooner.
const TICKET: Duration = Duration::from_millis(50);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Identities {
    tls: Arc<Tls>,
    reach: Reach,
    board: Arc<Board>,
    time_limit: Duration,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    candidates: Candidates,
    /// The offer that was let in last.
    good: Option<Offer>,
    /// The end of our certificate that was warned of.
    expired: Option<Timestamp>,
    /// What was last said of a new identity.
    trouble: Option<String>,
}

impl Identities {
    pub(super) fn new(
        tls: Tls,
        reach: Reach,
        board: Arc<Board>,
        time_limit: Duration,
    ) -> Identities {
        Identities {
            tls: Arc::new(tls),
            reach,
            board,
            time_limit,
            memory: Mutex::default(),
        }
    }

    pub(super) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// What the next connection is to offer; a new identity is tried before.
    pub(super) async fn offer(&self, url: &UpstreamUrl, floor: Timestamp) -> Result<Offer, Cause> {
        let newest = self.read(floor).await;
        let good = self.memory().good.clone();
        let offer = match (newest, good) {
            (Ok(newest), Some(good)) => match self.is_usable(&newest, url).await {
                true => newest,
                false => good,
            },
            (Ok(newest), None) => newest,
            (Err(error), Some(good)) => {
                self.trouble(&error.to_string());
                good
            }
            (Err(error), None) => return Err(error.cause()),
        };
        self.warn_of_expiry(&offer);
        Ok(offer)
    }

    /// Waits until there is another identity that the upstream takes.
    pub(super) async fn renewed(&self, url: &UpstreamUrl, floor: Timestamp) {
        loop {
            sleep(LOOK).await;
            match self.read(floor).await {
                Ok(newest) => {
                    let is_new = self.memory().candidates.is_new(newest.fingerprint);
                    if is_new && self.is_usable(&newest, url).await {
                        return;
                    }
                }
                Err(error) => self.trouble(&error.to_string()),
            }
        }
    }

    /// The upstream has let us in with it.
    pub(super) async fn let_in(&self, offer: &Offer) {
        let was_new = {
            let mut memory = self.memory();
            let was_new = memory.candidates.is_new(offer.fingerprint);
            memory.candidates.let_in(offer.fingerprint);
            memory.good = Some(offer.clone());
            was_new
        };
        if was_new {
            info!("the upstream has let the new identity in; it is the one in use");
        }
        self.show(offer);
        let (tls, offer) = (Arc::clone(&self.tls), offer.clone());
        match spawn_blocking(move || tls.commit(&offer)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%error, "cannot note which identity is in use; noted at the next connection")
            }
            Err(error) => warn!(%error, "noting which identity is in use ended by a bug"),
        }
    }

    /// The connection with it did not come about.
    pub(super) fn failed(&self, offer: &Offer, cause: &Cause) {
        self.tls.forget();
        let mut memory = self.memory();
        if let Some(good) = &mut memory.good {
            good.forget_sessions();
        }
        if cause.is_about_us() && memory.candidates.is_new(offer.fingerprint) {
            memory.candidates.refused(offer.fingerprint, Instant::now());
            drop(memory);
            self.trouble(&cause.to_string());
        }
    }

    /// Reads what there is; the first time also which identity was in use before.
    async fn read(&self, floor: Timestamp) -> Result<Offer, TlsError> {
        let begins = self.memory().good.is_none();
        let tls = Arc::clone(&self.tls);
        let read = move || {
            let newest = tls.newest(floor)?;
            let before = match begins {
                true => tls.in_use_before(&newest, floor),
                false => None,
            };
            Ok::<_, TlsError>((newest, before))
        };
        let (newest, before) = spawn_blocking(read).await.unwrap_or_else(|error| {
            let what = format!("reading the identity ended by a bug: {error}");
            Err(TlsError::Rustls(rustls::Error::General(what)))
        })?;
        if let Some(before) = before {
            let mut memory = self.memory();
            memory.candidates.let_in(before.fingerprint);
            memory.good = Some(before);
        }
        Ok(newest)
    }

    /// Whether `newest` may be offered, after a trial where it takes one.
    async fn is_usable(&self, newest: &Offer, url: &UpstreamUrl) -> bool {
        let choice = self
            .memory()
            .candidates
            .choose(newest.fingerprint, Instant::now());
        match choice {
            Choice::Use => return true,
            Choice::Stay => return false,
            Choice::Try => {}
        }
        let tried = self.try_beside(newest, url).await;
        let mut memory = self.memory();
        match tried {
            Ok(()) => {
                memory.candidates.passed(newest.fingerprint);
                drop(memory);
                info!(upstream = %url, "the upstream takes the new identity; changing to it");
                true
            }
            Err(cause) => {
                // Out of reach says nothing about the identity.
                if cause.is_about_us() {
                    memory
                        .candidates
                        .refused(newest.fingerprint, Instant::now());
                }
                drop(memory);
                self.trouble(&cause.to_string());
                false
            }
        }
    }

    /// A handshake and the upstream's verdict, and no MQTT: a CONNECT might take the live session
    /// over, or be refused for its client identifier alone.
    async fn try_beside(&self, offer: &Offer, url: &UpstreamUrl) -> Result<(), Cause> {
        let deadline = tokio::time::Instant::now() + self.time_limit;
        let name = self.tls.server_name(&url.host);
        let name = name.map_err(|error| Cause::Credentials(error.to_string()))?;
        let tcp = self.reach.tcp(url, deadline).await?;
        let config = Arc::clone(&offer.config);
        verdict(reach::handshake(tcp, config, name, deadline).await?).await
    }

    /// Says it once, in the log and in the status.
    fn trouble(&self, why: &str) {
        let mut memory = self.memory();
        if memory.trouble.as_deref() != Some(why) {
            warn!(why, "the new identity cannot be used; the old one stays");
            memory.trouble = Some(why.to_owned());
        }
        drop(memory);
        self.board.update(|status| {
            if let Some(certificate) = &mut status.certificate {
                certificate.trouble = Some(why.to_owned());
            }
        });
    }

    fn show(&self, offer: &Offer) {
        let mut memory = self.memory();
        // A refusal of a newer one stands until that is let in or replaced.
        if !memory.candidates.has_refused() {
            memory.trouble = None;
        }
        let trouble = memory.trouble.clone();
        drop(memory);
        let shown = offer.ends.map(|ends| Certificate {
            ends,
            generation: offer.generation,
            key: self.tls.key_place(),
            trouble,
        });
        self.board.update(|status| status.certificate = shown);
    }

    /// Once for each certificate.
    fn warn_of_expiry(&self, offer: &Offer) {
        let expired = offer.expired();
        let mut memory = self.memory();
        if let Some(end) = expired
            && memory.expired != expired
        {
            warn!(%end, "our certificate for the upstream has expired by this machine's clock; it is offered all the same, the upstream decides; renew it");
        }
        memory.expired = expired;
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server has taken our certificate.
async fn verdict(mut stream: TlsStream<TcpStream>) -> Result<(), Cause> {
    // Before 1.3 its part of the handshake comes after ours (RFC 5246, 7.3).
    if stream.get_ref().1.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(());
    }
    let started = Instant::now();
    let mut byte = [0];
    while started.elapsed() < VERDICT && stream.get_ref().1.tls13_tickets_received() == 0 {
        match timeout(TICKET, stream.read(&mut byte)).await {
            Err(_) => {}
            Ok(Ok(0)) => return Err(Cause::Closed("after our certificate".to_owned())),
            Ok(Ok(_)) => break,
            Ok(Err(error)) => return Err(Cause::of(&error)),
        }
    }
    Ok(())
}

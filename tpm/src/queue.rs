//! One owner of the TPM, a thread, and the queue to it. Driver.
//!
//! Invariant: nobody waits longer than the patience they bring; a TPM that is away costs its callers an error and
//! nothing else, and is opened again when it is back.

#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    device::Tpm,
    error::{Error, Result},
    provision::property::PERMANENT,
};

/// Requests that may wait. Each takes milliseconds to a second; more would wait longer than anybody does.
const LENGTH: usize = 32;
/// The pause before an absent TPM is looked for again.
const RETRY: Duration = Duration::from_secs(5);

/// Opens the TPM, as often as it is lost.
pub type Opener = Box<dyn FnMut() -> Result<Tpm> + Send>;

/// A request; it tells the error that came of it, when the connection broke over it.
type Job = Box<dyn FnOnce(Result<&mut Tpm>) -> Option<String> + Send>;

/// How the TPM is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has not been opened yet.
    Opening,
    /// It answers.
    Ready,
    /// It does not; it is tried again every few seconds.
    Away {
        /// Why.
        reason: String,
    },
}

/// The way to the TPM's owner; clones lead to the same one. The owner ends with the last of them.
#[derive(Clone)]
pub struct Queue {
    jobs: SyncSender<Job>,
    state: Arc<Mutex<State>>,
}

impl Queue {
    /// Starts the owner.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(opener: Opener) -> io::Result<Queue> {
        let (jobs, waiting) = mpsc::sync_channel(LENGTH);
        let state = Arc::new(Mutex::new(State::Opening));
        let owner = Owner {
            opener,
            tpm: None,
            next_try: Instant::now(),
            state: Arc::clone(&state),
        };
        thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || owner.run(&waiting))?;
        Ok(Queue { jobs, state })
    }

    /// How the TPM was when last used.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Does something with the TPM and waits for what comes of it. What was begun is finished even when nobody waits
    /// any more.
    ///
    /// # Errors
    /// Those of `act`; [`Error::Busy`], [`Error::Late`], [`Error::Away`].
    pub fn ask<T, F>(&self, patience: Duration, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tpm) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |tpm| {
            let result = tpm.and_then(act);
            let broken = result.as_ref().err().filter(|error| error.is_connection());
            let broken = broken.map(Error::to_string);
            // Whoever asked may have stopped waiting.
            let _ = answer.try_send(result);
            broken
        });
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Error::Busy { waiting: LENGTH }),
            Err(TrySendError::Disconnected(_)) => return Err(owner_ended()),
        }
        match answered.recv_timeout(patience) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(Error::Late { patience }),
            Err(RecvTimeoutError::Disconnected) => Err(owner_ended()),
        }
    }
}

fn owner_ended() -> Error {
    Error::Away {
        reason: "its thread has ended".to_owned(),
    }
}

struct Owner {
    opener: Opener,
    tpm: Option<Tpm>,
    next_try: Instant,
    state: Arc<Mutex<State>>,
}

impl Owner {
    fn run(mut self, waiting: &Receiver<Job>) {
        loop {
            if self.tpm.is_none() && self.next_try <= Instant::now() {
                self.open();
            }
            let job = match waiting.recv_timeout(RETRY) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(broken) = self.serve(job) {
                self.lose(broken);
            }
        }
    }

    /// Notices a loss when nobody asks for anything.
    fn look(&mut self) {
        if let Some(tpm) = &mut self.tpm
            && let Err(error) = tpm.property(PERMANENT)
            && error.is_connection()
        {
            self.lose(error.to_string());
        }
    }

    fn lose(&mut self, reason: String) {
        self.tpm = None;
        // A connection that broke may be there again at once; one that cannot be opened is given time.
        self.next_try = Instant::now();
        self.tell(State::Away { reason });
    }

    fn serve(&mut self, job: Job) -> Option<String> {
        if self.tpm.is_none() && self.next_try <= Instant::now() {
            self.open();
        }
        match &mut self.tpm {
            Some(tpm) => job(Ok(tpm)),
            None => {
                let reason = match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
                    State::Away { reason } => reason.clone(),
                    State::Opening | State::Ready => "not opened yet".to_owned(),
                };
                job(Err(Error::Away { reason }))
            }
        }
    }

    fn open(&mut self) {
        match (self.opener)() {
            Ok(tpm) => {
                self.tpm = Some(tpm);
                self.tell(State::Ready);
            }
            Err(error) => {
                self.next_try = Instant::now() + RETRY;
                self.tell(State::Away {
                    reason: error.to_string(),
                });
            }
        }
    }

    fn tell(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Transport;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Refuses every command, or breaks.
    struct Stub {
        breaks: bool,
    }

    impl Transport for Stub {
        fn exchange(&mut self, _: &[u8], _: Duration) -> io::Result<Vec<u8>> {
            match self.breaks {
                true => Err(io::ErrorKind::BrokenPipe.into()),
                false => Ok(vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x43]),
            }
        }

        fn is_raw(&self) -> bool {
            false
        }
    }

    fn stub(breaks: bool) -> Result<Tpm> {
        Tpm::over(Box::new(Stub { breaks }))
    }

    #[test]
    fn a_tpm_that_cannot_be_opened_costs_an_error_that_says_why() {
        let absent = || Err(Error::Rule("not plugged in".to_owned()));
        let queue = Queue::start(Box::new(absent)).unwrap();
        let error = queue.ask(PATIENCE, |tpm| tpm.handles(0)).unwrap_err();
        assert!(error.to_string().contains("not plugged in"), "{error}");
        assert!(matches!(queue.state(), State::Away { .. }));
    }

    #[test]
    fn a_connection_that_breaks_is_opened_again_for_the_next_request() {
        let mut opened = 0;
        let opener = move || {
            opened += 1;
            stub(opened == 1)
        };
        let queue = Queue::start(Box::new(opener)).unwrap();
        assert!(matches!(
            queue.ask(PATIENCE, |tpm| tpm.handles(0)),
            Err(Error::Io { .. })
        ));
        assert!(matches!(
            queue.ask(PATIENCE, |tpm| tpm.handles(0)),
            Err(Error::Refused { .. })
        ));
        assert_eq!(queue.state(), State::Ready);
    }

    #[test]
    fn nobody_waits_longer_than_their_patience_and_the_queue_is_bounded() {
        let queue = Queue::start(Box::new(|| stub(false))).unwrap();
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let slow = queue.ask(Duration::from_millis(1), move |_| {
            let _ = begun.send(());
            let _ = released.recv();
            Ok(())
        });
        assert!(matches!(slow, Err(Error::Late { .. })));
        has_begun.recv().unwrap();
        for _ in 0..LENGTH {
            assert!(matches!(
                queue.ask(Duration::ZERO, |_| Ok(())),
                Err(Error::Late { .. })
            ));
        }
        assert!(matches!(
            queue.ask(PATIENCE, |_| Ok(())),
            Err(Error::Busy { .. })
        ));
        drop(release);
        while queue.ask(PATIENCE, |_| Ok(())).is_err() {}
    }
}

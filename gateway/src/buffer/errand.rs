//! What somebody asks to become of dead letters, and what came of it.
//!
//! Invariant: what is told as done is on disk. Layer: driver.

use tokio::sync::oneshot;

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They wait again, as what they were.
    Resend,
    /// They leave for good.
    Drop,
}

/// Which ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Each that is kept at that moment.
    All,
    /// Those with these ids.
    These(Vec<i64>),
}

/// Why a dead letter stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Left {
    /// It may have left by age, or by hand.
    #[error("there is no dead letter with this id; see gateway buffer dead list")]
    Unknown,
    /// Only its description was kept.
    #[error("its payload was too large to be kept, so it cannot be sent again")]
    PayloadNotKept,
    /// Nothing that waits makes room for it.
    #[error(
        "the buffer, or the quota of its forward rule, has no room for it; try again when less waits"
    )]
    NoRoom,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Those to which it happened.
    pub done: Vec<i64>,
    /// Those that stay.
    pub left: Vec<(i64, Left)>,
}

/// A wish on its way to the writer.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) fate: Fate,
    pub(super) which: Which,
    answer: oneshot::Sender<Settled>,
}

impl Errand {
    pub(super) fn new(fate: Fate, which: Which) -> (Errand, oneshot::Receiver<Settled>) {
        let (answer, settled) = oneshot::channel();
        let errand = Errand {
            fate,
            which,
            answer,
        };
        (errand, settled)
    }

    /// Nothing is to happen: it is to show that the disk takes what it is given.
    pub(super) fn is_proof(&self) -> bool {
        self.which == Which::These(Vec::new())
    }

    /// It is on disk.
    pub(super) fn answer(self, settled: Settled) {
        // Whoever asked may be gone.
        let _unheard = self.answer.send(settled);
    }
}

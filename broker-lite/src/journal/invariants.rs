//! What always holds of the journal. A core's; for tests.

use std::collections::HashMap;

use super::{Journal, MessageKey};

impl Journal {
    /// Holds the journal's account of who needs a message against who does.
    ///
    /// # Panics
    /// They differ.
    pub(crate) fn check(&self, needed: &HashMap<MessageKey, u32>) {
        if self.is_on() {
            assert_eq!(&self.holders, needed, "who needs which stored message");
        }
        assert!(self.committed <= self.taken && self.taken <= self.recorded);
    }
}

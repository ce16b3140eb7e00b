//! How many sessions outlive their connections, in all and by user (`limits.sessions`). A core.
//!
//! Invariant: one user never takes so many that no other gets any. Sessions that end with their
//! connections are bounded by those, and not counted.

use std::collections::HashMap;

/// One user gets this part of the limit, all anonymous clients together too.
const SHARE: usize = 2;

/// Why there is no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    OfAll(usize),
    OfUser(usize),
}

/// Lasting sessions by user.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    all: usize,
    anonymous: usize,
    by_user: HashMap<Box<str>, usize>,
}

impl Lasting {
    /// Whether this user may have one more; `None` is whoever has no name.
    pub(crate) fn room(&self, user: Option<&str>, limit: usize) -> Result<(), Full> {
        let own = match user {
            Some(user) => self.by_user.get(user).copied().unwrap_or(0),
            None => self.anonymous,
        };
        if self.all >= limit {
            Err(Full::OfAll(self.all))
        } else if own >= limit.div_ceil(SHARE) {
            Err(Full::OfUser(own))
        } else {
            Ok(())
        }
    }

    /// A session begins to last.
    pub(crate) fn begins(&mut self, user: Option<&str>) {
        self.all += 1;
        match user {
            Some(user) => *self.by_user.entry(user.into()).or_insert(0) += 1,
            None => self.anonymous += 1,
        }
    }

    /// One that lasted ends, or is to end with its connection.
    pub(crate) fn ends(&mut self, user: Option<&str>) {
        self.all -= 1;
        let Some(user) = user else {
            self.anonymous -= 1;
            return;
        };
        if let Some(own) = self.by_user.get_mut(user) {
            *own -= 1;
            if *own == 0 {
                self.by_user.remove(user);
            }
        }
    }

    /// All of them.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn len(&self) -> usize {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_gets_half_and_leaves_the_rest_to_others() {
        let mut lasting = Lasting::default();
        for user in [None, Some("press")] {
            for _ in 0..2 {
                assert_eq!(lasting.room(user, 4), Ok(()));
                lasting.begins(user);
            }
        }
        assert_eq!(lasting.room(Some("scale"), 4), Err(Full::OfAll(4)));
        assert_eq!(lasting.room(Some("scale"), 5), Ok(()));
        assert_eq!(lasting.room(Some("press"), 4), Err(Full::OfAll(4)));
        lasting.ends(None);
        assert_eq!(lasting.room(Some("press"), 4), Err(Full::OfUser(2)));
        assert_eq!(lasting.room(None, 4), Ok(()));
        lasting.ends(Some("press"));
        lasting.ends(Some("press"));
        assert_eq!((lasting.len(), lasting.by_user.len()), (1, 0));
        assert_eq!(lasting.room(Some("alone"), 1), Err(Full::OfAll(1)));
    }
}

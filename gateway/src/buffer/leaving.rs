//! Rows that are to leave the file and may still be found in it until the next commit.
//!
//! Invariant: a row whose removal was asked for is never read again, whichever link asks. Layer:
//! value, behind the buffer's lock.

use std::collections::HashSet;

use super::row::Row;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    rows: HashSet<i64>,
    /// Gone from the file, but perhaps not from what a reader under way sees of it.
    left: Vec<i64>,
    readers: usize,
}

impl Leaving {
    /// The removal of these was asked for.
    pub(super) fn enter(&mut self, rows: impl IntoIterator<Item = i64>) {
        self.rows.extend(rows);
    }

    /// The commit that removes these is on disk.
    pub(super) fn commit(&mut self, rows: impl IntoIterator<Item = i64>) {
        if self.readers > 0 {
            self.left.extend(rows);
        } else {
            for row in rows {
                self.rows.remove(&row);
            }
        }
    }

    /// A reader is about to look at the file.
    pub(super) fn begin(&mut self) {
        self.readers += 1;
    }

    /// The reader has found these; those that are to leave are taken out.
    pub(super) fn end(&mut self, found: &mut Vec<Row>) {
        found.retain(|row| !self.rows.contains(&row.id));
        self.readers = self.readers.saturating_sub(1);
        if self.readers == 0 {
            for row in self.left.drain(..) {
                self.rows.remove(&row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_lite::{packet::QoS, topic::TopicName};

    use super::*;
    use crate::reading::ClockState;

    #[test]
    fn a_row_that_is_to_leave_is_not_read_again_until_no_reader_can_see_it() {
        let mut leaving = Leaving::default();
        leaving.enter([1, 2]);
        leaving.begin();
        leaving.begin();
        leaving.commit([1]);
        assert_eq!(
            read(&mut leaving),
            [3],
            "this reader began before the commit"
        );
        assert_eq!(read(&mut leaving), [3], "and so did this one");
        leaving.begin();
        assert_eq!(
            read(&mut leaving),
            [1, 3],
            "a number that is used anew is a new row"
        );
        leaving.commit([2]);
        leaving.begin();
        assert_eq!(read(&mut leaving), [1, 2, 3]);
    }

    /// What a reader keeps that has found the rows 1 to 3.
    fn read(leaving: &mut Leaving) -> Vec<i64> {
        let mut found: Vec<Row> = (1..=3).map(row).collect();
        leaving.end(&mut found);
        found.iter().map(|row| row.id).collect()
    }

    fn row(id: i64) -> Row {
        Row {
            id,
            topic: TopicName::parse("a").unwrap(),
            seq: 1,
            qos: QoS::AtLeastOnce,
            retain: false,
            received: jiff::Timestamp::UNIX_EPOCH,
            clock: ClockState::Synced,
            properties: None,
            payload: bytes::Bytes::new(),
        }
    }
}

//! What the link reads of the buffer, on disk and in memory, and what may leave it.
//!
//! Invariant: no row is read that was deleted or buried, and none that waits is passed over because it moves from memory to
//! disk meanwhile. Layer: driver.

use super::{
    Buffer, Cursor, Gap, Page, Rank, ReadError, Row, Stretch, Survey, inbox::Removal, pages,
    reader::Now,
};

impl Buffer {
    /// Rows of this stretch, none that was deleted or buried. `None` while too many wait to leave;
    /// [`Self::appended`] then tells of the commit that ends it. Blocks on the disk.
    pub(crate) fn page(
        &self,
        stretch: &Stretch,
        max_bytes: usize,
    ) -> Result<Option<Page>, ReadError> {
        let shared = &self.0.shared;
        if shared.inbox.is_clogged() {
            return Ok(None);
        }
        let now = Now {
            stamp: shared.clock.stamp(),
            boot: shared.clock.boot(),
        };
        shared.leaving().begin();
        // Memory first: what moves to disk between the two looks is then seen twice, not never.
        let (staged, horizon) = self.staged(stretch, now);
        let on_disk = self.checked(shared.reader.page(stretch, max_bytes, now));
        let mut page = on_disk.map(|page| pages::join(page, staged, horizon, stretch, max_bytes));
        let mut nothing = Vec::new();
        let rows = page.as_mut().map_or(&mut nothing, |page| &mut page.rows);
        shared.leaving().end(rows);
        page.map(Some)
    }

    /// What waits behind `after`, by topic. Blocks on the disk.
    pub(crate) fn survey(&self, after: &Cursor) -> Result<Survey, ReadError> {
        let shared = &self.0.shared;
        let (staged, horizon) = {
            let stage = shared.stage();
            let behind = |row: &i64| *row > after.position(Rank::of_row(*row));
            let staged = stage.all().filter(|(row, _)| behind(row));
            let staged = staged.map(|(row, staged)| (row, staged.message.topic.clone()));
            (staged.collect::<Vec<_>>(), stage.horizon())
        };
        let on_disk = self.checked(shared.reader.survey(after))?;
        let staged = staged.iter().map(|(row, topic)| (*row, topic));
        Ok(pages::survey(on_disk, staged, horizon))
    }

    fn staged(&self, stretch: &Stretch, now: Now<'_>) -> (Vec<Row>, i64) {
        let stage = self.0.shared.stage();
        let rows = stage.within(stretch);
        let rows = rows.map(|(id, staged)| staged.row(id, now.stamp)).collect();
        (rows, stage.horizon())
    }

    /// Rows behind `after` in sending order, high priority first.
    #[cfg(test)]
    pub(crate) fn read(
        &self,
        after: &Cursor,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, ReadError> {
        let stretch = Stretch {
            after: *after,
            until: None,
            rows: [max_rows; super::retention::RANKS],
        };
        let page = self.page(&stretch, max_bytes)?.unwrap_or_default();
        Ok(page.rows.into_iter().take(max_rows).collect())
    }

    /// Gaps that no one upstream has been told of. Blocks on the disk.
    pub fn gaps(&self, at_most: usize) -> Result<Vec<Gap>, ReadError> {
        self.checked(self.0.shared.reader.gaps(at_most))
    }

    /// The upstream has these rows; they leave with one of the next commits.
    pub fn delete(&self, rows: impl IntoIterator<Item = i64>) {
        let shared = &self.0.shared;
        let rows: Vec<i64> = rows.into_iter().collect();
        shared.leaving().enter(rows.iter().copied());
        let mut stage = shared.stage();
        let (gone, on_disk): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| stage.forward(*row));
        drop(stage);
        shared.update(|status| status.forwarded += gone.len() as u64);
        shared.leaving().commit(gone);
        shared.inbox.remove(on_disk.into_iter().map(Removal::Row));
    }

    /// The upstream will never take this row; it moves to the dead letters.
    pub fn bury(&self, row: i64, reason: &str) {
        self.0.shared.leaving().enter([row]);
        let now_us = self.0.shared.clock.stamp().wall_us;
        let removal = Removal::Bury(row, reason.to_owned(), now_us);
        self.0.shared.inbox.remove([removal]);
    }

    /// The upstream knows of this gap, as far as it went when it was read.
    pub fn delete_gap(&self, id: i64, count: u64) {
        self.0.shared.inbox.remove([Removal::Gap { id, count }]);
    }
}

//! What waits in the buffer, as messages; read on a thread that may block.
//!
//! Invariant: one reading at a time, and a row or gap that makes no message is given up with the
//! reason. Layer: driver.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::{
    super::{
        forwarder::Input,
        intake::{Ask, Fetched},
        rules::Rules,
    },
    Pump,
};
use crate::buffer::{Buffer, Page, ReadError};

/// Payload bytes read from the buffer at once.
const READ_BYTES: usize = 4 << 20;
/// Gap markers read at once.
const READ_GAPS: usize = 64;

impl Pump {
    pub(super) fn start_reading(&mut self, ask: Ask) {
        let (buffer, rules) = (self.buffer.clone(), Arc::clone(&self.rules));
        self.reading = Some(tokio::task::spawn_blocking(move || {
            read(&buffer, &rules, &ask).unwrap_or_else(|error| {
                warn!(%error, "what waits in the buffer is not sent for now");
                Input::Unread
            })
        }));
    }
}

/// On a thread that may block.
fn read(buffer: &Buffer, rules: &Rules, ask: &Ask) -> Result<Input, ReadError> {
    Ok(match ask {
        Ask::Survey(after) => Input::Surveyed(buffer.survey(after)?),
        Ask::Rows { stretch, live } => match buffer.page(stretch, READ_BYTES)? {
            Some(page) => Input::Fetched(messages(buffer, rules, page, *live)?),
            None => Input::Unread,
        },
    })
}

/// Rows as messages, and the gaps with those that are new.
fn messages(buffer: &Buffer, rules: &Rules, page: Page, live: bool) -> Result<Fetched, ReadError> {
    let mut messages = Vec::new();
    if live {
        messages.extend(buffer.gaps(READ_GAPS)?.iter().filter_map(|gap| {
            let marker = rules.gap_marker(gap);
            marker
                .map_err(|_| buffer.delete_gap(gap.id, gap.count))
                .ok()
        }));
    }
    messages.extend(page.rows.into_iter().filter_map(|row| {
        let id = row.id;
        rules
            .outbound(row)
            .map_err(|error| buffer.bury(id, &format!("its upstream topic: {error}")))
            .ok()
    }));
    Ok(Fetched {
        live,
        messages,
        reached: page.reached,
        ended: page.ended,
    })
}

/// Waits for the reading under way; for ever when there is none.
pub(super) async fn finished(reading: &mut Option<JoinHandle<Input>>) -> Input {
    match reading {
        Some(task) => task.await.unwrap_or_else(|error| {
            error!(%error, "reading the buffer ended by a bug");
            Input::Unread
        }),
        None => std::future::pending().await,
    }
}

//! What the control socket is asked about dead letters. Shell.
//!
//! ```text
//!  buffer dead list COUNT           ─▶ {"kept":…,"newest":[…]}
//!  buffer dead resend all|ID ID …   ─▶ {"done":[ID,…],"left":[{"id":…,"reason":…}]} or {"error":…}
//!  buffer dead drop all|ID ID …     ─▶ the same
//! ```
//!
//! Invariant: whatever happens to one by hand is in the audit log with who asked, even where he has
//! gone before it was on disk.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use super::{audit, buffer_stats, bus_tools};
use crate::{
    buffer::{Buffer, Fate, Settled, Which},
    control::Answer,
};

/// What a question about dead letters begins with.
pub(super) const WORDS: &str = "buffer dead ";
/// Dead letters that are listed at once: with the longest topics they still fit an answer.
pub const LISTED_MAX: usize = 200;
/// Ids in one request.
pub const NAMED_MAX: usize = 200;
/// A disk that takes longer is waited for, but not by the asker.
const PATIENCE: Duration = Duration::from_secs(4);

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Those that were sent again, or dropped.
    pub done: Vec<i64>,
    /// Those that are still there, or never were.
    pub left: Vec<LeftLine>,
}

/// One to which nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftLine {
    /// As asked for.
    pub id: i64,
    /// Why.
    pub reason: String,
}

/// Answers what follows [`WORDS`].
pub(super) fn answer(buffer: &Buffer, wish: &str, user: Option<u32>) -> Answer {
    let (word, rest) = wish.split_once(' ').unwrap_or((wish, ""));
    match word {
        "list" => match rest.parse() {
            Ok(count) => json!(buffer_stats::letters(buffer, LISTED_MAX.min(count))).into(),
            Err(_) => error(format!("cannot list {rest:?} dead letters; write a number")),
        },
        "resend" => settle(buffer, Fate::Resend, rest, user),
        "drop" => settle(buffer, Fate::Drop, rest, user),
        other => error(format!(
            "{other:?} is nothing to do with dead letters; ask: list, resend, drop"
        )),
    }
}

fn error(what: String) -> Answer {
    Answer::Now(json!({ "error": what }))
}

fn settle(buffer: &Buffer, fate: Fate, asked: &str, user: Option<u32>) -> Answer {
    let which = match read(asked) {
        Ok(which) => which,
        Err(why) => return error(why),
    };
    let Some(settled) = buffer.settle(fate, which) else {
        return error("the buffer is closed, or others wait for the same; try again".to_owned());
    };
    let asked = asked.to_owned();
    // Of its own, so that it is written down even when nobody waits for the answer any more.
    let told = tokio::spawn(async move {
        let outcome = settled.await.ok().map(outcome);
        let user = user.map(bus_tools::name);
        audit::letters(fate, &asked, user.as_deref(), &summary(outcome.as_ref()));
        outcome
    });
    Answer::Later(Box::pin(async move {
        match timeout(PATIENCE, told).await {
            Ok(Ok(Some(outcome))) => json!(outcome),
            Ok(_) => json!({ "error": "the service stops; nothing was done" }),
            Err(_) => json!({
                "error": "the disk does not take it now; it is done as soon as the disk does, see gateway buffer dead list"
            }),
        }
    }))
}

fn read(asked: &str) -> Result<Which, String> {
    if asked == "all" {
        return Ok(Which::All);
    }
    let ids = asked.split_whitespace().map(|word| {
        word.parse().map_err(|_| {
            format!("{word:?} is no id of a dead letter; see gateway buffer dead list")
        })
    });
    let ids: Vec<i64> = ids.collect::<Result<_, _>>()?;
    match ids.len() {
        0 => Err("no dead letter is named; write ids, or all".to_owned()),
        1..=NAMED_MAX => Ok(Which::These(ids)),
        more => Err(format!(
            "{more} ids are more than the {NAMED_MAX} of one request; ask in parts, or for all"
        )),
    }
}

fn outcome(settled: Settled) -> Outcome {
    let left = settled.left.into_iter().map(|(id, why)| LeftLine {
        id,
        reason: why.to_string(),
    });
    Outcome {
        done: settled.done,
        left: left.collect(),
    }
}

fn summary(outcome: Option<&Outcome>) -> String {
    match outcome {
        Some(Outcome { done, left }) => {
            format!("{} done, {} left as they are", done.len(), left.len())
        }
        None => "nothing was done: the service stops".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_ids_or_all_and_not_too_many() {
        assert_eq!(read("all"), Ok(Which::All));
        assert_eq!(read("3 17"), Ok(Which::These(vec![3, 17])));
        assert!(read("").unwrap_err().contains("no dead letter is named"));
        assert!(read("3 x").unwrap_err().contains("\"x\" is no id"));
        let many = "7 ".repeat(NAMED_MAX + 1);
        assert!(read(&many).unwrap_err().contains("more than the 200"));
    }
}

//! What the commissioning tools ask of the running buses through the control socket. Shell.
//!
//! ```text
//!  bus NAME         ─▶ {"bus":…,"port":…,"down":…}
//!  forget DEVICE    ─▶ {"forgotten":…} or {"error":…}   what it has taught, here and on the disk
//!  transact {ASK}   ─▶ {"reply":…} or {"error":…}       one request, in turn among the polls
//!  trace NAME       ─▶ {"what":…,"bytes":…} per line     until the asker closes the connection
//! ```
//!
//! Invariant: every request that may change something in a unit is logged with who asked for it.

use std::sync::Arc;

use nix::unistd::{Uid, User};
use serde_json::{Value as Json, json};
use tokio::sync::{broadcast::error::RecvError, mpsc};

use crate::{
    control::{Answer, Question},
    fieldbus::{
        commission::{
            adhoc::{Ask, writes},
            frame::Seen,
            line::ask,
        },
        modbus::BusHandle,
    },
};

use super::{audit, field::Field};

/// Frames that wait for one who follows; the tap keeps more, and tells how many it dropped.
const FRAMES_MAX: usize = 64;

/// Answers a question about a bus.
pub(super) fn answer(field: &Arc<Field>, question: Question<'_>) -> Answer {
    let (word, rest) = question.text.split_once(' ').unwrap_or((question.text, ""));
    match word {
        "bus" => with(field, rest, |bus| about(&bus).into()),
        "trace" => with(field, rest, follow),
        "forget" => forget(Arc::clone(field), rest.to_owned()),
        "transact" => transact(field, rest, question.user),
        other => error(format!(
            "{other:?} is no question; ask: status, buffer [pause|resume|dead list|resend|drop], bus NAME, forget DEVICE, transact REQUEST, trace NAME"
        )),
    }
}

fn with(field: &Field, name: &str, answer: impl FnOnce(BusHandle) -> Answer) -> Answer {
    match field.bus(name) {
        Some(bus) => answer(bus),
        None => error(format!(
            "no bus {name:?} is running; does the service still run with an older configuration?"
        )),
    }
}

fn error(what: String) -> Answer {
    Answer::Now(json!({ "error": what }))
}

fn about(bus: &BusHandle) -> Json {
    let status = bus.status();
    json!({ "bus": status.name, "port": status.port, "down": status.down })
}

fn forget(field: Arc<Field>, device: String) -> Answer {
    Answer::Later(Box::pin(async move {
        match field.forget(&device).await {
            true => json!({ "forgotten": device }),
            false => json!({ "error": format!("no bus reads a device {device:?}") }),
        }
    }))
}

fn transact(field: &Field, text: &str, user: Option<u32>) -> Answer {
    let asked: Ask = match serde_json::from_str(text) {
        Ok(asked) => asked,
        Err(why) => return error(format!("the request cannot be read: {why}")),
    };
    if let Err(why) = asked.check() {
        return error(why);
    }
    let bus = asked.bus.clone();
    with(field, &bus, |bus| {
        Answer::Later(Box::pin(async move {
            let timeout = asked.timeout();
            let told = ask(&bus, asked.unit, asked.request.clone(), timeout).await;
            if writes(&asked.request) {
                audit::by_hand(&asked, user.map(name).as_deref(), &told);
            }
            json!(told)
        }))
    })
}

/// The user's name, or his number where he has none.
pub(super) fn name(user: u32) -> String {
    let known = User::from_uid(Uid::from_raw(user)).ok().flatten();
    known.map_or_else(|| format!("uid {user}"), |known| known.name)
}

fn follow(bus: BusHandle) -> Answer {
    let (sender, lines) = mpsc::channel(FRAMES_MAX);
    let mut heard = bus.subscribe_trace();
    tokio::spawn(async move {
        loop {
            let line = tokio::select! {
                traced = heard.recv() => match traced {
                    Ok(traced) => json!(Seen::of(&traced)),
                    Err(RecvError::Lagged(lost)) => json!({ "lost": lost }),
                    Err(RecvError::Closed) => return,
                },
                () = sender.closed() => return,
            };
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
    Answer::Lines(lines)
}

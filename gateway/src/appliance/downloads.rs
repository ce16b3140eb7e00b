//! What people may ask of the agent that looks for releases, over the control socket. Shell.
//!
//! Invariant: only root and the service's own user have anything done; everybody who may ask sees how far it is.

use broker_lite::observe::control::Answer;
use nix::unistd::getuid;
use serde_json::json;

use crate::update::agent::{AgentHandle, What, Word};

/// How questions for it begin.
pub(super) const WORDS: &str = "update ";

/// Has something done.
pub(super) fn answer(agent: Option<AgentHandle>, wish: &str, user: Option<u32>) -> Answer {
    let Some(agent) = agent else {
        return refused("there is no [update], or its repository cannot be used: see the log");
    };
    let what = match wish {
        "progress" => return json!(agent.status()).into(),
        "check" => What::Check,
        "install" => What::Install { restart: false },
        "install restart" => What::Install { restart: true },
        _ => return refused("the question is not understood"),
    };
    if !user.is_some_and(|user| user == 0 || user == getuid().as_raw()) {
        return refused(
            "only root and the service's own user may have releases looked for or installed",
        );
    }
    match agent.wish(what) {
        Some(told) => Answer::Lines(told),
        None => refused("too many wait for the same already"),
    }
}

fn refused(why: &str) -> Answer {
    let why = why.to_owned();
    let security = false;
    json!(Word::Failed { why, security }).into()
}

//! Asks whoever sits at the terminal before something is done that stays. Shell.
//!
//! Invariant: only a yes goes on, and a question never mixes with what a command prints.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, anyhow};

use super::{Exit, Failure};

/// Whether somebody sits there.
pub(super) fn can_be_asked() -> bool {
    io::stdin().is_terminal()
}

/// Goes on after `--yes`, or after a yes on a terminal; where nobody sits `--yes` alone will do.
/// `nothing` says what was not done otherwise.
pub(super) fn need(yes: bool, question: &str, nothing: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !can_be_asked() {
        let how = anyhow!("{nothing}; --yes does it without asking");
        return Err(Failure::new(Exit::Usage, how));
    }
    ask(question, nothing)
}

/// Asks; fails where the answer is no.
pub(super) fn ask(question: &str, nothing: &str) -> Result<(), Failure> {
    match is_yes(&answer(question)?) {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, anyhow!(nothing.to_owned()))),
    }
}

fn answer(question: &str) -> anyhow::Result<String> {
    let mut terminal = io::stderr();
    write!(terminal, "{question} [y/N] ")
        .and_then(|()| terminal.flush())
        .context("cannot ask")?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.context("cannot read the answer")?;
    Ok(answer)
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        assert!(["y\n", "Y", " yes \n"].into_iter().all(is_yes));
        assert!(!["", "\n", "n\n", "yess", "ja"].into_iter().any(is_yes));
    }
}

//! The password file on any text, and SCRAM's messages from anybody.
//!
//! Values. Invariant: nobody knows the password, so nobody is let in.

use super::script::Script;
use crate::{
    login::auth::{METHODS, Step},
    login::password::{
        ScramKeys, Verifier,
        file::{PasswordFile, check_name, import},
    },
    login::{Login, Logins},
};

/// RFC 7677's example, whose password no fuzzer guesses.
const KEYS: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
/// A client's longest message, its nonce and ours, a salt and a number.
const ANSWER_MAX: usize = 2 * 1_024;
const PROBLEMS_MAX: usize = 20;

/// The first byte chooses between a file and an exchange.
pub(super) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    if script.coin() {
        exchange(script);
    } else if let Ok(text) = std::str::from_utf8(script.rest()) {
        file(text);
    }
}

fn file(text: &str) {
    for line in import(text) {
        assert!((1..=text.lines().count()).contains(&line.line));
        if let Ok((name, verifier)) = line.outcome {
            assert_eq!(check_name(&name), Ok(()));
            assert_eq!(Verifier::parse(&verifier.to_string()), Ok(verifier));
        }
    }
    match PasswordFile::parse(text) {
        Ok(mut file) => {
            // Users, not lines: a comment may end in a carriage return, which the next reader takes for its line's end.
            let again =
                PasswordFile::parse(&file.to_string()).expect("what was read can be written");
            assert_eq!(again.users(), file.users());
            let names: Vec<String> = file.users().keys().map(ToString::to_string).collect();
            for name in names {
                assert_eq!(check_name(&name), Ok(()));
                assert!(file.has(&name) && file.remove(&name) && !file.has(&name));
            }
            assert!(file.users().is_empty(), "a user who is not to be removed");
        }
        Err(problems) => {
            assert!((1..=PROBLEMS_MAX).contains(&problems.len()));
            for problem in problems {
                assert!((1..=text.lines().count()).contains(&problem.line));
                assert!(!problem.what.is_empty(), "a problem says what it is");
            }
        }
    }
}

/// Two messages, and one too many.
fn exchange(mut script: Script<'_>) {
    let keys = ScramKeys::parse(KEYS).expect("RFC 7677's keys");
    let logins = Logins::new(vec![Login::kept("user", None, Some(keys))], [7; 32]);
    let first = script.bytes();
    let second = script.bytes();
    let mut exchange = METHODS[0].begin([7; 32]);
    let mut failed = false;
    for message in [first, second, script.rest()] {
        match exchange.step(message, &logins) {
            Step::Continue(answer) => {
                assert!(!failed, "it goes on after it has failed");
                assert!(
                    answer.len() <= ANSWER_MAX,
                    "{} bytes of answer",
                    answer.len()
                );
                assert!(std::str::from_utf8(&answer).is_ok(), "an answer is text");
            }
            Step::Failed { why, .. } => {
                assert!(!why.is_empty(), "a failure says why");
                failed = true;
            }
            Step::Done { .. } => panic!("let in without the password"),
        }
    }
}

//! What the password file promises: others' hashes fit as they are, and nothing malformed is taken.

use super::{
    Verifier, VerifierError,
    file::{Credentials, PasswordFile, check_name, import},
    prepare_for_scram,
    scram::ScramKeys,
};

/// By mosquitto_passwd 2.0.11 for "secret", and by the reference argon2 for "password".
const MOSQUITTO_7: &str = "$7$101$2gkUhtCLoon0kUJg$2yhL224SMUE2mHxNW2PRnQFZF9d/QYM0upWOpKDeLsH+GzpbxXymdFabUEUpXgRG20hBI645N5BstD+FNj7WpQ==";
const MOSQUITTO_6: &str = "$6$/Cx5qRDpZ/RgG98C$7PvUu23Eyu87TmvC9cjYUqKaa+g3MyVMfccfJxXFpO/J4KJrCd0/IZZ8XzU3lQXcyJos3ztmg9d4tqnuUgc5/g==";
const REFERENCE: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
/// The keys of PostgreSQL's format for RFC 7677's example: user "user", password "pencil".
const SCRAM: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

#[test]
fn hashes_made_elsewhere_fit_their_passwords_and_no_other() {
    for (text, password) in [
        (MOSQUITTO_7, "secret"),
        (MOSQUITTO_6, "secret"),
        (REFERENCE, "password"),
    ] {
        let verifier = Verifier::parse(text).unwrap();
        assert!(verifier.verify(password.as_bytes()), "{text}");
        assert!(!verifier.verify(b"Secret"), "{text}");
        assert!(!verifier.verify(b""), "{text}");
        assert_eq!(verifier.to_string(), text);
        assert!(verifier.weakness().is_some());
    }
}

#[test]
fn our_own_hash_fits_and_is_strong() {
    let verifier = Verifier::new(b"correct horse", [7; 16]);
    assert_eq!(Verifier::parse(&verifier.to_string()), Ok(verifier.clone()));
    assert!(verifier.verify(b"correct horse"));
    assert!(!verifier.verify(b"correct hors"));
    assert_eq!(verifier.weakness(), None);
    assert_eq!(format!("{verifier:?}"), "<redacted>");
}

#[test]
fn scram_keys_are_those_of_other_implementations() {
    let keys = ScramKeys::parse(SCRAM).unwrap();
    let made = ScramKeys::derive("pencil", &keys.salt, keys.iterations);
    assert_eq!(made, keys);
    assert_eq!(made.to_string(), SCRAM);
}

#[test]
fn a_password_that_clients_prepare_differently_gets_no_scram_keys() {
    assert_eq!(prepare_for_scram("correct horse"), Some("correct horse"));
    for password in ["", "p\u{e4}ss", "tab\t", "\u{7f}"] {
        assert_eq!(prepare_for_scram(password), None, "{password:?}");
    }
}

#[test]
fn what_is_no_verifier_is_refused() {
    for text in [
        "",
        "secret",
        "$",
        "$$",
        "$7$",
        "$7$101$$",
        "$7$101$c2FsdHNhbHQ=$",
        "$7$101$c2FsdHNhbHQ=$c2hvcnQ=",
        "$7$-1$c2FsdHNhbHQ=$c2hvcnQ=",
        "$6$c2FsdA==",
        "$5$x$y",
        "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "$argon2id$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$",
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4$x",
    ] {
        assert!(Verifier::parse(text).is_err(), "{text:?} was taken");
    }
}

#[test]
fn absurd_work_factors_are_refused() {
    let hash = "c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    for cost in [
        "m=65537,t=2,p=1",
        "m=4294967296,t=2,p=1",
        "m=256,t=11,p=1",
        "m=256,t=0,p=1",
        "m=256,t=2,p=9",
        "m=8,t=1,p=2",
    ] {
        let refused = Verifier::parse(&format!("$argon2id$v=19${cost}${hash}"));
        assert!(
            matches!(refused, Err(VerifierError::Cost { .. })),
            "{cost}: {refused:?}"
        );
    }
    let endless = MOSQUITTO_7.replace("$101$", "$1000001$");
    assert!(matches!(
        Verifier::parse(&endless),
        Err(VerifierError::Cost { .. })
    ));
    let endless = SCRAM.replace("$4096:", "$4000000000:");
    let cheap = SCRAM.replace("$4096:", "$4095:");
    for text in [endless, cheap] {
        assert!(
            matches!(ScramKeys::parse(&text), Err(VerifierError::Cost { .. })),
            "{text}"
        );
    }
}

#[test]
fn a_bad_line_spoils_the_file_and_is_named() {
    let text = format!(
        "# hall 3\nann:{MOSQUITTO_7}\n\nbob:\ncarl\n:{MOSQUITTO_7}\ndora:plain\nann:{MOSQUITTO_6}\n"
    );
    let problems = PasswordFile::parse(&text).unwrap_err();
    let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [4, 5, 6, 7, 8]);
    assert_eq!(
        problems[0].to_string(),
        "line 4: user \"bob\": there is no password hash; \
         remove the line and run `broker-lite passwd add` for this user"
    );
    assert_eq!(problems[4].what, "user \"ann\" stands in line 2 already");
}

#[test]
fn a_hostile_file_is_told_of_in_twenty_lines() {
    let problems = PasswordFile::parse(&"x\n".repeat(100_000)).unwrap_err();
    assert_eq!(problems.len(), 20);
}

#[test]
fn a_change_leaves_every_other_line_as_it_was() {
    let text = format!("# hall 3\nann:{MOSQUITTO_7}\n\nbob:{REFERENCE}\nbob:{SCRAM}\n");
    let mut file = PasswordFile::parse(&text).unwrap();
    assert_eq!(file.to_string(), text);
    let credentials = Credentials {
        password: Some(Verifier::parse(MOSQUITTO_6).unwrap()),
        scram: None,
    };
    assert!(file.set("ann", credentials.clone()));
    assert!(!file.set("carl", credentials));
    assert!(file.remove("bob"));
    assert!(!file.remove("bob"));
    assert_eq!(
        file.to_string(),
        format!("# hall 3\nann:{MOSQUITTO_6}\n\ncarl:{MOSQUITTO_6}\n")
    );
}

#[test]
fn a_user_may_have_one_line_for_passwords_and_one_for_scram() {
    let text = format!("bob:{SCRAM}\nbob:{REFERENCE}\n");
    let file = PasswordFile::parse(&text).unwrap();
    let users = file.users();
    assert!(users["bob"].password.is_some() && users["bob"].scram.is_some());
}

#[test]
fn names_that_the_file_could_not_hold_are_refused() {
    let long = "n".repeat(257);
    for name in ["", "a:b", "#a", "a\nb", " a", "a\u{0}", &long] {
        assert!(check_name(name).is_err(), "{name:?} was taken");
    }
    assert_eq!(check_name("press 3 / größe"), Ok(()));
}

#[test]
fn an_import_takes_what_it_can_and_says_what_it_cannot() {
    let text = format!("ann:{MOSQUITTO_7}\nbob:plain\ncarl:{MOSQUITTO_6}\nnothing\n");
    let outcomes = import(&text);
    let taken: Vec<(usize, bool)> = outcomes
        .iter()
        .map(|line| (line.line, line.outcome.is_ok()))
        .collect();
    assert_eq!(taken, [(1, true), (2, false), (3, true), (4, false)]);
}

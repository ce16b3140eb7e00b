//! `broker-lite passwd`: makes and changes password files. Shell.
//!
//! Invariant: a file is changed as a whole, or not at all.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what the command was asked for"
)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use broker_lite::login::password::{
    ScramKeys, Verifier,
    disk::{self, PasswordFileError},
    file::{self, Credentials, Imported, PasswordFile},
    prepare_for_scram,
};
use clap::{Args, Subcommand};

use super::terminal;

/// Exit codes: wrong usage, and refused for a security reason.
const WRONG_INPUT: u8 = 2;
const REFUSED: u8 = 3;

#[derive(Subcommand)]
pub(crate) enum Passwd {
    /// Add a user, or give one another password. It is asked for, or read from standard input.
    Add(Add),
    /// Remove a user.
    Remove {
        /// The password file.
        file: PathBuf,
        /// The user.
        name: String,
    },
    /// List users, and how their passwords are kept.
    List {
        /// The password file.
        file: PathBuf,
    },
    /// Check a file, or with a name whether a password fits it.
    Check(Check),
    /// Take the users of a file of mosquitto_passwd, with the passwords they have.
    Import(Import),
}

#[derive(Args)]
pub(crate) struct Add {
    /// The password file; it is made if there is none.
    file: PathBuf,
    /// The user.
    name: String,
    /// Also keep what SCRAM-SHA-256 needs, for clients that prove their password instead of
    /// sending it.
    #[arg(long)]
    scram: bool,
    /// Read the password from a file that others cannot read.
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Check {
    /// The password file.
    file: PathBuf,
    /// The user whose password is asked for.
    name: Option<String>,
    /// Read the password from a file that others cannot read.
    #[arg(long, value_name = "PATH", requires = "name")]
    password_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Import {
    /// The password file; it is made if there is none.
    file: PathBuf,
    /// The file of mosquitto_passwd.
    from: PathBuf,
    /// Replace users that are there already.
    #[arg(long)]
    replace: bool,
}

/// Runs the command, and says what it comes to.
pub(crate) fn main(command: &Passwd) -> ExitCode {
    run(command).unwrap_or_else(|failure| {
        eprintln!("{failure:#}");
        exit_code(&failure)
    })
}

fn run(command: &Passwd) -> anyhow::Result<ExitCode> {
    match command {
        Passwd::Add(arguments) => add(arguments),
        Passwd::Remove { file, name } => {
            if !disk::update(file, |users| users.remove(name))? {
                bail!(
                    "no user {name:?} in {}; nothing was changed",
                    file.display()
                );
            }
            println!("removed user {name} from {}{RELOAD}", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Passwd::List { file } => {
            list(&disk::read(file)?);
            Ok(ExitCode::SUCCESS)
        }
        Passwd::Check(arguments) => check(arguments),
        Passwd::Import(arguments) => import(arguments),
    }
}

fn exit_code(failure: &anyhow::Error) -> ExitCode {
    match failure.downcast_ref() {
        Some(PasswordFileError::Exposed { .. }) => ExitCode::from(REFUSED),
        Some(PasswordFileError::Lines { .. } | PasswordFileError::Unfit { .. }) => {
            ExitCode::from(WRONG_INPUT)
        }
        _ => ExitCode::FAILURE,
    }
}

const RELOAD: &str = "; a running broker takes that at its next reload";

fn add(arguments: &Add) -> anyhow::Result<ExitCode> {
    let Add { file, name, .. } = arguments;
    if let Err(why) = file::check_name(name) {
        bail!("cannot add user {name:?}: {why}");
    }
    // What is wrong with the file is said before anyone types a password.
    let is_new = !file.exists();
    if !is_new {
        disk::read(file)?;
    }
    let prompt = format!("Password of {name}: ");
    let password = terminal::password(arguments.password_file.as_deref(), &prompt, true)?;
    let credentials = credentials(password.expose(), arguments.scram)?;
    let known = disk::update(file, |users| users.set(name, credentials))?;
    let done = if known {
        "changed the password of"
    } else {
        "added"
    };
    println!("{done} user {name} in {}{RELOAD}", file.display());
    if is_new {
        println!(
            "{} is new and its owner's alone; the broker's user must be able to read it",
            file.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn credentials(password: &str, scram: bool) -> anyhow::Result<Credentials> {
    let keys = match scram {
        false => None,
        true => {
            let prepared = prepare_for_scram(password).context(
                "SCRAM takes printable ASCII alone, for clients prepare other characters \
                 differently; choose another password, or leave --scram out",
            )?;
            Some(ScramKeys::new(prepared, disk::fresh_salt()?))
        }
    };
    Ok(Credentials {
        password: Some(Verifier::new(password.as_bytes(), disk::fresh_salt()?)),
        scram: keys,
    })
}

fn list(users: &PasswordFile) {
    let users = users.users();
    if users.is_empty() {
        return println!("no users");
    }
    let width = users.keys().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0).max("USER".len());
    println!("{:width$}  PASSWORD", "USER");
    for (name, credentials) in users {
        println!("{name:width$}  {}", describe(&credentials));
    }
}

fn describe(credentials: &Credentials) -> String {
    let password = credentials.password.as_ref().map(Verifier::describe);
    let scram = credentials.scram.as_ref().map(ScramKeys::describe);
    let kinds: Vec<String> = password.into_iter().chain(scram).collect();
    kinds.join("; ")
}

fn check(arguments: &Check) -> anyhow::Result<ExitCode> {
    let Check { file, name, .. } = arguments;
    let content = disk::read(file)?;
    let users = content.users();
    let Some(name) = name else {
        let weak = users.iter().filter_map(|(name, credentials)| {
            let weakness = credentials.password.as_ref()?.weakness()?;
            Some((name, credentials, weakness))
        });
        let mut count = 0;
        for (name, credentials, why) in weak {
            println!("weak: user {name}, {}: {why}", describe(credentials));
            count += 1;
        }
        let total = users.len();
        let plural = if total == 1 { "" } else { "s" };
        println!("{}: {total} user{plural}, {count} weak", file.display());
        if count > 0 {
            println!("set those passwords anew by `broker-lite passwd add`");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(credentials) = users.get(name.as_str()) else {
        bail!("no user {name:?} in {}", file.display());
    };
    let prompt = format!("Password of {name}: ");
    let password = terminal::password(arguments.password_file.as_deref(), &prompt, false)?;
    let verifier = &credentials.password;
    let by_password = verifier
        .as_ref()
        .map(|known| known.verify(password.expose().as_bytes()));
    let by_scram = credentials
        .scram
        .as_ref()
        .map(|keys| keys.fits(password.expose()));
    match (by_password, by_scram) {
        (Some(false) | None, Some(false) | None) => bail!("the password of {name} is another"),
        (Some(false), _) => bail!("the password fits for SCRAM only; set it anew"),
        (_, Some(false)) => bail!("the password does not fit for SCRAM; set it anew"),
        _ => println!("the password fits"),
    }
    Ok(ExitCode::SUCCESS)
}

fn import(arguments: &Import) -> anyhow::Result<ExitCode> {
    let Import {
        file,
        from,
        replace,
    } = arguments;
    let lines = file::import(&disk::read_foreign(from)?);
    let report = disk::update(file, |users| take_over(users, lines, *replace))?;
    let (mut taken, mut left) = (0, 0);
    for (line, outcome) in report {
        let place = format!("{}:{line}", from.display());
        match outcome {
            Ok(what) => {
                println!("{place}: {what}");
                taken += 1;
            }
            Err(why) => {
                println!("{place}: left out: {why}");
                left += 1;
            }
        }
    }
    println!("{}: {taken} taken, {left} left out{RELOAD}", file.display());
    Ok(match left {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

type Report = Vec<(usize, Result<String, String>)>;

fn take_over(users: &mut PasswordFile, lines: Vec<Imported>, replace: bool) -> Report {
    let take = |Imported { line, outcome }: Imported| {
        let (name, verifier) = match outcome {
            Ok(entry) => entry,
            Err(why) => return (line, Err(why)),
        };
        if users.has(&name) && !replace {
            let why = format!("user {name} is there already; --replace takes this password");
            return (line, Err(why));
        }
        let kind = verifier.describe();
        let credentials = Credentials {
            password: Some(verifier),
            scram: None,
        };
        users.set(&name, credentials);
        (line, Ok(format!("user {name}, {kind}")))
    };
    lines.into_iter().map(take).collect()
}

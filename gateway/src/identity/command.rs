//! Has a program of one's own get a certificate: it is given a request and a place for the answer.
//!
//! Invariant: no shell is involved, and the program is ended with all that it started when its time
//! is up. Layer: driver.

use std::{io, os::unix::process::ExitStatusExt, path::Path, process::Stdio};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tempfile::Builder;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};

use crate::config::RenewCommand;

/// Longest answer that is taken.
const ANSWER_MAX: u64 = 256 << 10;
/// What is kept of its complaints.
const COMPLAINT_MAX: u64 = 1 << 10;

/// Why the program brought no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started, or its files not be made.
    #[error("cannot run {program}: {source}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{program} was ended after {limit_s} s")]
    Late {
        /// Which.
        program: String,
        /// What it may take.
        limit_s: u64,
    },
    /// It says that it failed.
    #[error("{program} ended with {code}: {complaint}")]
    Failed {
        /// Which.
        program: String,
        /// Its code, or the signal that ended it.
        code: String,
        /// The end of what it wrote to standard error.
        complaint: String,
    },
    /// It left no certificate where it was told to.
    #[error("{program} left no certificate: {source}")]
    Answer {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs the program with the request's and the certificate's path as its last arguments; what it
/// leaves there is the answer. Both lie in a directory of their own below `place`.
pub(crate) async fn enrol(
    config: &RenewCommand,
    place: &Path,
    request: &str,
) -> Result<String, CommandError> {
    let program = config.program.first().cloned().unwrap_or_default();
    let start = |source| CommandError::Start {
        program: program.clone(),
        source,
    };
    let directory = Builder::new().prefix("renewal-").tempdir_in(place);
    let directory = directory.map_err(start)?;
    let asked = directory.path().join("request.csr");
    let answer = directory.path().join("certificate.pem");
    tokio::fs::write(&asked, request).await.map_err(start)?;
    let mut child = Command::new(&program)
        .args(config.program.iter().skip(1))
        .args([&asked, &answer])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let limit = config.time_limit.as_duration();
    let ended = timeout(limit, complaint_and_end(&mut child)).await;
    let Ok(ended) = ended else {
        end(&mut child).await;
        return Err(CommandError::Late {
            program,
            limit_s: limit.as_secs(),
        });
    };
    let (status, complaint) = ended.map_err(start)?;
    if !status.success() {
        let code = match (status.code(), status.signal()) {
            (Some(code), _) => format!("code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        return Err(CommandError::Failed {
            program,
            code,
            complaint,
        });
    }
    read(&answer)
        .await
        .map_err(|source| CommandError::Answer { program, source })
}

/// The beginning of what it wrote to standard error, and how it ended.
async fn complaint_and_end(child: &mut Child) -> io::Result<(std::process::ExitStatus, String)> {
    let mut complaint = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        (&mut stderr)
            .take(COMPLAINT_MAX)
            .read_to_end(&mut complaint)
            .await?;
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    }
    let status = child.wait().await?;
    let complaint = String::from_utf8_lossy(&complaint);
    let complaint = complaint.trim().replace('\n', "; ");
    Ok((status, complaint))
}

/// Ends it with all that it started.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(group) = group {
        // One that has just ended has no group any more.
        let _gone = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ended = child.wait().await;
}

async fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    limited(file).read_to_string(&mut text).await?;
    Ok(text)
}

fn limited(file: impl AsyncRead + Unpin) -> impl AsyncRead + Unpin {
    file.take(ANSWER_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use settings::Period;

    use super::*;

    fn shell(script: &str, limit: u64) -> RenewCommand {
        RenewCommand {
            program: ["sh", "-c", script, "renew"].map(str::to_owned).to_vec(),
            time_limit: Period::from_secs(limit),
        }
    }

    async fn run(script: &str, limit: u64) -> Result<String, CommandError> {
        let place = tempfile::tempdir().unwrap();
        let outcome = enrol(&shell(script, limit), place.path(), "a request").await;
        let left = std::fs::read_dir(place.path()).unwrap().count();
        assert_eq!(left, 0, "its files are taken away");
        outcome
    }

    #[tokio::test]
    async fn what_the_program_leaves_is_the_answer() {
        let answer = run(r#"sed 's/request/certificate/' "$1" > "$2""#, 30).await;
        assert_eq!(answer.unwrap(), "a certificate");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_in_its_own_words() {
        let failed = run("echo the authority is closed >&2; exit 3", 30).await;
        let text = failed.unwrap_err().to_string();
        assert!(text.ends_with("code 3: the authority is closed"), "{text}");
        let nothing = run("exit 0", 30).await.unwrap_err();
        assert!(matches!(nothing, CommandError::Answer { .. }), "{nothing}");
        let missing = RenewCommand {
            program: vec!["/nonexistent/program".to_owned()],
            time_limit: Period::from_secs(1),
        };
        let place = tempfile::tempdir().unwrap();
        let error = enrol(&missing, place.path(), "").await.unwrap_err();
        assert!(matches!(error, CommandError::Start { .. }), "{error}");
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "tests measure time")]
    async fn a_program_that_takes_too_long_is_ended_with_all_that_it_started() {
        let place = tempfile::tempdir().unwrap();
        let alive = place.path().join("alive");
        let script = format!(
            "(sleep 300; touch {0}) & echo $! > {0}.pid; wait",
            alive.display()
        );
        let late = enrol(&shell(&script, 1), place.path(), "")
            .await
            .unwrap_err();
        assert!(matches!(late, CommandError::Late { .. }), "{late}");
        let child = std::fs::read_to_string(place.path().join("alive.pid")).unwrap();
        let state = format!("/proc/{}/stat", child.trim());
        let started = Instant::now();
        // A zombie that nobody has reaped yet is dead, too.
        while std::fs::read_to_string(&state).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(started.elapsed() < Duration::from_secs(40), "it lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn endless_complaints_do_not_fill_memory() {
        let failed = run("head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1", 30).await;
        let text = failed.unwrap_err().to_string();
        assert!(text.len() < 2_000, "{}", text.len());
    }
}

//! What an EST server's answer means (RFC 7030, 4.2.3; RFC 9110, 10.2.3). Core.
//!
//! Invariant: a server may put us off, but neither for ever nor into a busy loop.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};

/// Shortest and longest time that a server may put us off.
const LATER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(86_400)];

/// What to do with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its body is what was asked for.
    Take,
    /// Ask again after this time.
    Later(Duration),
    /// It does not want to.
    Refused(String),
}

/// By status and `Retry-After`.
pub(super) fn judge(status: u16, retry_after: Option<&str>, now: Timestamp) -> Verdict {
    match status {
        200 => Verdict::Take,
        202 => Verdict::Later(later(retry_after, now)),
        401 => Verdict::Refused("401: it wants another login or certificate".to_owned()),
        403 => Verdict::Refused("403: it does not let this gateway have one".to_owned()),
        404 => {
            Verdict::Refused("404: it knows no such authority; see [identity.est] url".to_owned())
        }
        _ => Verdict::Refused(format!("status {status}")),
    }
}

fn later(retry_after: Option<&str>, now: Timestamp) -> Duration {
    let [least, most] = LATER;
    let asked = retry_after.map(str::trim).and_then(|text| {
        let seconds = text.parse().map(Duration::from_secs);
        seconds.ok().or_else(|| {
            let moment = rfc2822::parse(text).ok()?.timestamp();
            Some(Duration::try_from(moment.duration_since(now)).unwrap_or_default())
        })
    });
    asked.unwrap_or(Duration::from_secs(60)).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_put_us_off_by_seconds_or_to_a_date_within_bounds() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        let put_off = |text| match judge(202, text, now) {
            Verdict::Later(pause) => pause.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(put_off(Some("120")), 120);
        assert_eq!(put_off(Some("Sun, 06 Nov 1994 08:49:37 GMT")), 30);
        assert_eq!(put_off(Some("Sun, 06 Nov 1994 08:00:00 GMT")), 1);
        assert_eq!(put_off(Some("99999999999")), 86_400);
        assert_eq!(put_off(Some("soon")), 60);
        assert_eq!(put_off(Some("0")), 1);
        assert_eq!(put_off(None), 60);
    }

    #[test]
    fn only_200_brings_a_certificate() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(judge(200, None, now), Verdict::Take);
        for status in [201, 204, 301, 400, 401, 403, 404, 500, 503] {
            let verdict = judge(status, None, now);
            assert!(matches!(verdict, Verdict::Refused(_)), "{status}");
        }
    }
}

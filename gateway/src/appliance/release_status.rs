//! How releases stand, for status, metrics, topics and people. Shell: values in, text out.
//!
//! Invariant: what the updater says is shown as it says it; nothing here judges a release.

use std::fmt::Write;

use broker_lite::observe::metrics::{Exposition, gauge};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use update::{
    journal::{Content, Release},
    protocol::{self, Progress as Writing, Work},
};

use crate::{
    update::{agent::DownloadStatus, health::Progress},
    wording::counted,
};

/// How releases stand, where `[update]` is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// What the updater said last.
    pub updater: Option<protocol::Status>,
    /// Why it says nothing; absent: it does.
    pub unreachable: Option<String>,
    /// How far the trial of the running release is; absent: it is on none.
    pub health: Option<Progress>,
    /// The TPM's signed word for the running release, as it was published.
    pub receipt: Option<Value>,
    /// What the service does about newer ones.
    #[serde(default)]
    pub download: Option<DownloadStatus>,
}

impl ReleaseStatus {
    /// `unknown`, `trouble`, `trial`, `installing`, `downloading`, `installed` or `settled`.
    pub(crate) fn word(&self) -> &'static str {
        let Some(updater) = &self.updater else {
            return "unknown";
        };
        match updater.other() {
            _ if updater.trouble.is_some() => "trouble",
            _ if updater.is_on_trial() => "trial",
            _ if updater.work.is_under_way() => "installing",
            _ if self.is_downloading() => "downloading",
            Some(Content::Written { .. }) => "installed",
            _ => "settled",
        }
    }

    fn is_downloading(&self) -> bool {
        let state = self
            .download
            .as_ref()
            .map(|download| download.state.as_str());
        state == Some("downloading")
    }

    /// The last release that was refused, or could not be installed, and why.
    fn failed(&self) -> Option<(Option<&Release>, &str)> {
        match &self.updater.as_ref()?.work {
            Work::Failed { release, why, .. } => Some((release.as_ref(), why)),
            _ => None,
        }
    }

    /// The payload of `state/gateway/update`.
    pub(crate) fn announcement(&self) -> Value {
        let Some(updater) = &self.updater else {
            return json!({"state": self.word(), "reason": self.unreachable});
        };
        let content = |content: &Content| {
            let reason = match content {
                Content::Bad { reason, .. } => Some(reason),
                _ => None,
            };
            let release = content.release();
            json!({
                "state": word(content),
                "version": release.map(|release| &release.version),
                "epoch": release.map(|release| release.epoch),
                "root": release.map(|release| &release.root),
                "reason": reason,
            })
        };
        json!({
            "state": self.word(),
            "slot": updater.booted,
            "slots": {"a": content(&updater.slots.a), "b": content(&updater.slots.b)},
            "tries_left": updater.trial.as_ref().map(|trial| trial.left),
            "waiting_for": self.health.as_ref().map(|health| &health.waiting_for),
            "floor": updater.floor,
            "refused": self.failed().map(|(_, why)| why),
            "trouble": updater.trouble,
            "download": self.download,
        })
    }

    /// A line on what runs, and more where there is more to say.
    pub(crate) fn text(&self) -> String {
        let Some(updater) = &self.updater else {
            let why = self
                .unreachable
                .as_deref()
                .unwrap_or("it was not asked yet");
            return format!("✗ releases: {why}\n");
        };
        let mut text = running(updater, self.health.as_ref());
        if let Some(other) = updater.other() {
            let slot = updater
                .booted
                .map_or_else(String::new, |slot| slot.other().to_string());
            line(&mut text, &format!("slot {slot}: {}", described(other)));
        }
        match updater.floor {
            Some(floor) => line(
                &mut text,
                &format!("nothing below security epoch {floor} is installed"),
            ),
            None => line(
                &mut text,
                "the security floor cannot be read, so nothing is installed",
            ),
        }
        text += &work(&updater.work);
        if let Some(told) = self.download.as_ref().and_then(DownloadStatus::text) {
            line(&mut text, &told);
        }
        if self.receipt.is_some() {
            line(
                &mut text,
                "the TPM has signed for this release: topic state/gateway/receipt",
            );
        }
        text
    }
}

fn running(updater: &protocol::Status, health: Option<&Progress>) -> String {
    let slot = match updater.booted {
        Some(slot) => format!("slot {slot}"),
        None => "an unknown slot".to_owned(),
    };
    let release = updater.running().map_or_else(
        || format!("what runs in {slot} was not installed as a release"),
        |release| {
            format!(
                "release {} in {slot}, security epoch {}",
                release.version, release.epoch
            )
        },
    );
    if let Some(trouble) = &updater.trouble {
        return format!("✗ {release}\n    {trouble}\n");
    }
    let Some(trial) = updater.trial.as_ref().filter(|_| updater.is_on_trial()) else {
        return format!("✓ {release}\n");
    };
    let starts = counted(trial.left.into(), "more start", "more starts");
    let mut text = format!("… {release}, on trial: it has {starts}\n");
    if let Some(health) = health {
        line(
            &mut text,
            &format!(
                "works as before since {} s of {} s; rolled back in {} s unless it stays so",
                health.held_s, health.hold_s, health.left_s
            ),
        );
        for one in &health.waiting_for {
            line(&mut text, &format!("waits for: {one}"));
        }
    }
    text
}

fn work(work: &Work) -> String {
    let part = |what: &str, progress: &Writing| {
        let Writing {
            release,
            chunks,
            done,
            kept,
            reused,
        } = progress;
        format!(
            "{what} release {}: {done} of {chunks} chunks, {kept} were there already, {reused} came from the running slot",
            release.version
        )
    };
    let mut text = String::new();
    match work {
        Work::Idle {} | Work::Installed(_) => {}
        Work::Verifying {} => line(&mut text, "verifying what was downloaded"),
        Work::Writing(progress) => line(&mut text, &part("writing", progress)),
        Work::ReadingBack(progress) => line(&mut text, &part("reading back", progress)),
        Work::Failed { release, why, .. } => {
            let version = release
                .as_ref()
                .map_or("a release", |release| &release.version);
            line(&mut text, &format!("{version} was not installed: {why}"));
        }
    }
    text
}

fn line(text: &mut String, what: &str) {
    let _infallible = writeln!(text, "    {what}");
}

fn word(content: &Content) -> &'static str {
    match content {
        Content::Empty => "empty",
        Content::Writing { .. } => "writing",
        Content::Written { .. } => "written",
        Content::Trying { .. } => "trying",
        Content::Good { .. } => "good",
        Content::Bad { .. } => "bad",
    }
}

fn described(content: &Content) -> String {
    let version = content.release().map_or("", |release| &release.version);
    match content {
        Content::Empty => "nothing that was ever verified".to_owned(),
        Content::Writing { .. } => format!("a part of {version}"),
        Content::Written { .. } => {
            format!("{version}, installed and waiting for its start")
        }
        Content::Trying { .. } => format!("{version}, on trial"),
        Content::Good { .. } => format!("{version}, which was healthy"),
        Content::Bad { reason, .. } => format!("{version}, rolled back: {reason}"),
    }
}

/// As metrics.
pub(super) fn metrics(text: &mut Exposition, status: &ReleaseStatus) {
    let updater = status.updater.as_ref();
    let trial = updater.and_then(|updater| updater.trial.as_ref());
    let is_bad = updater.and_then(|updater| updater.other());
    let is_bad = matches!(is_bad, Some(Content::Bad { .. }));
    for (name, value, help) in [
        (
            "gateway_update_reachable",
            u64::from(updater.is_some()),
            "Whether the updater answers (1).",
        ),
        (
            "gateway_update_on_trial",
            u64::from(status.word() == "trial"),
            "Whether the running release has still to prove its health (1).",
        ),
        (
            "gateway_update_trouble",
            u64::from(status.word() == "trouble"),
            "Whether the slots need a person (1).",
        ),
        (
            "gateway_update_rolled_back",
            u64::from(is_bad),
            "Whether the other slot holds a release that was not healthy (1).",
        ),
        (
            "gateway_update_refused",
            u64::from(status.failed().is_some()),
            "Whether the last release was not installed (1).",
        ),
        (
            "gateway_update_starts_left",
            trial.map_or(0, |trial| trial.left.into()),
            "Starts that the release on trial still gets.",
        ),
        (
            "gateway_update_floor",
            updater.and_then(|updater| updater.floor).unwrap_or(0),
            "Security epoch below which nothing is installed.",
        ),
    ] {
        text.single(gauge(name, help), value as f64);
    }
}

#[cfg(test)]
mod tests {
    use update::{journal::Journal, protocol::TrialStatus, slots::Slot};

    use super::*;

    fn release(version: &str, epoch: u64) -> Release {
        Release {
            version: version.to_owned(),
            epoch,
            root: "ab".repeat(32),
        }
    }

    fn on_trial() -> ReleaseStatus {
        let good = Content::Good {
            release: release("2.4.0", 3),
        };
        let trying = Content::Trying {
            release: release("2.5.0", 4),
        };
        ReleaseStatus {
            updater: Some(protocol::Status {
                booted: Some(Slot::B),
                default: Some(Slot::A),
                trial: Some(TrialStatus {
                    slot: Slot::B,
                    left: 1,
                    seconds_left: Some(1_000),
                }),
                slots: Journal::default().with(Slot::A, good).with(Slot::B, trying),
                floor: Some(3),
                work: Work::Idle {},
                trouble: None,
            }),
            health: Some(Progress {
                held_s: 0,
                hold_s: 300,
                left_s: 1_760,
                waiting_for: vec!["device meter does not answer, and did before".to_owned()],
            }),
            ..ReleaseStatus::default()
        }
    }

    #[test]
    fn a_trial_says_what_it_waits_for_and_what_comes_otherwise() {
        assert_eq!(
            on_trial().text(),
            "… release 2.5.0 in slot b, security epoch 4, on trial: it has 1 more start\n    \
             works as before since 0 s of 300 s; rolled back in 1760 s unless it stays so\n    \
             waits for: device meter does not answer, and did before\n    \
             slot a: 2.4.0, which was healthy\n    \
             nothing below security epoch 3 is installed\n"
        );
    }

    #[test]
    fn a_roll_back_is_told_with_its_reason_to_people_and_to_machines() {
        let mut status = on_trial();
        let updater = status.updater.as_mut().unwrap();
        let reason = "after 600 s device meter does not answer".to_owned();
        let bad = Content::Bad {
            release: release("2.5.0", 4),
            reason: reason.clone(),
        };
        updater.booted = Some(Slot::A);
        updater.trial = None;
        updater.slots = updater.slots.with(Slot::B, bad);
        status.health = None;
        assert!(
            status
                .text()
                .contains(&format!("slot b: 2.5.0, rolled back: {reason}"))
        );
        let told = status.announcement();
        assert_eq!(
            (&told["state"], &told["slots"]["b"]["reason"]),
            (&json!("settled"), &json!(reason))
        );
        assert_eq!(told["slots"]["a"]["version"], "2.4.0");
    }

    #[test]
    fn an_updater_that_cannot_be_asked_is_told_with_the_reason() {
        let status = ReleaseStatus {
            unreachable: Some("cannot ask the updater".to_owned()),
            ..ReleaseStatus::default()
        };
        assert_eq!(status.text(), "✗ releases: cannot ask the updater\n");
        assert_eq!(status.announcement()["state"], "unknown");
    }
}

//! For how long a bus can be blocked without a poll missing its deadline. A core; part of the
//! schedule.
//!
//! ```text
//!  now ── blocked ──┬── what has become due ──┬── what becomes due meanwhile ──┬── idle
//!                   └──────────────── every deadline in here is checked ───────┘
//! ```
//!
//! Invariant: in doubt it cannot.

use std::time::{Duration, Instant};

use crate::fieldbus::poll::{
    device::{Device, Poll},
    forecast::Sending,
};

/// Requests of one poll that are looked at; a bus that has not caught up by then has no time to spare.
const SENT_MAX: u32 = 16;
/// Looks for the moment at which the bus has caught up; each takes it further.
const LOOKS_MAX: u32 = 16;

/// For how long the bus can be blocked from now, if all polls of these devices, sent in the order of
/// their deadlines, are to keep these. Longer than `most` is not looked for.
pub(super) fn room(devices: &[&Device], most: Duration, now: Instant) -> Duration {
    let deadlines = polls(devices).map(|(_, poll)| poll.deadline());
    let nearest = deadlines.min().unwrap_or(now + most);
    let most = most.min(nearest.saturating_duration_since(now));
    let Some(mut sent) = until_caught_up(devices, now + most) else {
        return Duration::ZERO;
    };
    sent.sort_unstable_by_key(|one| one.deadline);
    // One that has begun is finished before one that becomes due with a nearer deadline.
    let longest = sent.iter().map(|one| one.time).max().unwrap_or_default();
    let (mut ends, mut room) = (now + longest, most);
    for one in sent {
        ends += one.time;
        room = room.min(one.deadline.saturating_duration_since(ends));
    }
    room
}

/// What is sent until the bus has caught up, if it is free at `free_at`; `None`: it does not soon.
fn until_caught_up(devices: &[&Device], free_at: Instant) -> Option<Vec<Sending>> {
    let mut polls: Vec<(&Device, &Poll, u32)> = polls(devices)
        .map(|(device, poll)| (device, poll, 0))
        .collect();
    let (mut sent, mut ends) = (Vec::new(), free_at);
    for _ in 0..LOOKS_MAX {
        let before = sent.len();
        for (device, poll, index) in &mut polls {
            while poll.due + poll.interval() * *index <= ends {
                if *index >= SENT_MAX {
                    return None;
                }
                sent.push(device.sending(poll, *index));
                *index += 1;
            }
        }
        let new: &[Sending] = &sent[before..];
        if new.is_empty() {
            return Some(sent);
        }
        ends += new.iter().map(|one| one.time).sum::<Duration>();
    }
    None
}

fn polls<'a>(devices: &'a [&Device]) -> impl Iterator<Item = (&'a Device, &'a Poll)> {
    let of = |device: &&'a Device| {
        let device: &'a Device = device;
        device.polls.iter().map(move |poll| (device, poll))
    };
    devices.iter().flat_map(of)
}

//! What `state/<device>` says before a device was heard, once the gateway has stopped, and once it is
//! no longer configured. Shell.
//!
//! Invariant: a retained state is of this run and of a configured device, or it is ended.

use std::collections::HashSet;

use broker_lite::{server::LocalClient, topic::TopicFilter};

use crate::{
    clock,
    config::Config,
    fieldbus::{DeviceState, Event},
    payload,
};

/// What is told of a device until it is heard, or known not to answer.
const UNHEARD: &str = "not heard yet since the gateway began to read it";

/// What is told of every device when the gateway ends.
const STOPPED: &str = "the gateway was stopped";

/// Tells that what an earlier run, or another line, said of a device no longer counts.
pub(super) fn unheard(device: &str) -> Event {
    offline(device, UNHEARD)
}

/// Tells that nobody reads a device any more.
pub(super) fn stopped(device: &str) -> Event {
    offline(device, STOPPED)
}

fn offline(device: &str, reason: &str) -> Event {
    Event::Device {
        device: device.into(),
        state: DeviceState::Offline {
            reason: reason.to_owned(),
        },
        stamp: clock::now(),
    }
}

/// Ends the state of a device that is no longer configured.
pub(super) fn removed(device: &str) -> Event {
    Event::Removed {
        device: device.into(),
    }
}

/// The names under which devices and instruments are told of.
pub(super) fn names(config: &Config) -> HashSet<&str> {
    let devices = config.devices.iter().map(|device| device.name.as_str());
    let serials = config.serials.iter().map(|sensor| sensor.name.as_str());
    devices.chain(serials).collect()
}

/// Ends the states that an earlier run left of devices that `config` does not name. States that
/// clients have published themselves are theirs.
pub(super) fn left_behind(client: &LocalClient, config: &Config) -> Vec<Event> {
    let Ok(states) = TopicFilter::parse(payload::STATES) else {
        return Vec::new();
    };
    let names = names(config);
    let topics = client.retained(&states);
    let devices = topics.iter().filter_map(payload::device_of_state);
    let gone = devices.filter(|device| !names.contains(device));
    gone.map(removed).collect()
}

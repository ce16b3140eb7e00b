//! Devices as written become whole ones, with what their profiles say. Values.
//!
//! Invariant: what is written in the configuration goes before what the profile says, key by key,
//! and a device without a profile is exactly what is written.

use std::{mem, sync::Arc};

use serde::Deserialize;
use serde_json::Value;
use settings::{Document, Problem};

use super::{
    Profile,
    keys::{self, Choice, Table, WrittenDevice},
};
use crate::config::{Bus, Config, Device, check::did_you_mean};

/// Finds a profile by its name; why there is none, as problems of the device at that path.
pub(in crate::config) type Find<'f> = &'f mut dyn FnMut(
    &str,
    &dyn Fn(String, String) -> Problem,
) -> Result<Arc<Profile>, Vec<Problem>>;

/// Where the points of devices stand in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places(Vec<Vec<Option<usize>>>);

impl Places {
    /// The path of a device's point; of one that only the profile describes, of the key that names
    /// the profile.
    pub fn point(&self, device: usize, point: usize) -> String {
        let written = self.0.get(device).and_then(|points| points.get(point));
        match written {
            Some(Some(written)) => format!("device[{device}].point[{written}]"),
            _ => format!("device[{device}].profile"),
        }
    }
}

/// Makes `config.devices` of what is written. Returns every problem, and whether each device is
/// there, if perhaps with fewer points.
pub(in crate::config) fn complete(
    config: &mut Config,
    document: &Document,
    find: Find<'_>,
) -> (Vec<Problem>, bool) {
    let mut problems = Vec::new();
    let written = mem::take(&mut config.written);
    let count = written.len();
    for (index, WrittenDevice(table)) in written.into_iter().enumerate() {
        let mut completion = Completion {
            path: format!("device[{index}]"),
            document,
            problems: &mut problems,
            points: Vec::new(),
        };
        if let Some(device) = completion.device(table, &config.buses, find) {
            let places = completion.points.iter().map(|(_, written)| *written);
            config.places.0.push(places.collect());
            config.devices.push(device);
        }
    }
    (problems, config.devices.len() == count)
}

/// One device on its way.
struct Completion<'a> {
    path: String,
    document: &'a Document,
    problems: &'a mut Vec<Problem>,
    /// Keys of points, and where in the configuration they stand.
    points: Vec<(Table, Option<usize>)>,
}

impl Completion<'_> {
    fn device(&mut self, mut keys: Table, buses: &[Bus], find: Find<'_>) -> Option<Device> {
        let written = taken_points(&mut keys);
        let choice = taken_choice(&mut keys);
        let profile = self.profile(&choice, find);
        if let Some(profile) = &profile {
            for (key, value) in &profile.device.0 {
                keys.entry(key.clone()).or_insert_with(|| value.clone());
            }
            self.choose(&choice, profile, &written);
        }
        self.overlay(written);
        let mut device = match keys::device(keys) {
            Ok(device) => device,
            Err(why) => {
                self.error("", why, "");
                return None;
            }
        };
        device.points = self.typed(&choice, profile.as_deref());
        if device.points.is_empty() && self.problems.is_empty() {
            let what = format!("device {:?} has no points", device.name);
            self.error(
                "",
                what,
                "write profile = \"NAME\", or a [[device.point]] for each value",
            );
        }
        let bus = buses.iter().find(|bus| bus.name == device.bus);
        if let (Some(profile), Some(bus)) = (profile, bus) {
            self.check_line(&device, &profile, bus);
        }
        Some(device)
    }

    fn profile(&mut self, choice: &Choice, find: Find<'_>) -> Option<Arc<Profile>> {
        let Some(name) = &choice.profile else {
            let stray = [
                ("points", choice.points.is_some()),
                ("except", !choice.except.is_empty()),
            ];
            for (key, _) in stray.into_iter().filter(|(_, given)| *given) {
                let what = format!(
                    "{key} chooses among a profile's points, but the device has no profile"
                );
                self.error(
                    &format!(".{key}"),
                    what,
                    "write profile = \"NAME\", or remove it",
                );
            }
            return None;
        };
        let path = format!("{}.profile", self.path);
        let at = |what, remedy| self.document.error(&path, what, remedy);
        match find(name, &at) {
            Ok(profile) => Some(profile),
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    /// Takes the profile's points that the device wants; to write of one is to want it.
    fn choose(&mut self, choice: &Choice, profile: &Profile, written: &[Table]) {
        let listed = [
            ("points", choice.points.as_deref()),
            ("except", Some(&choice.except[..])),
        ];
        for (key, patterns) in listed {
            for (index, pattern) in patterns.into_iter().flatten().enumerate() {
                if !profile.names().any(|name| matches(pattern, name)) {
                    let what = format!("the profile has no point {pattern:?}");
                    let remedy = did_you_mean(pattern, profile.names());
                    self.error(&format!(".{key}[{index}]"), what, remedy);
                }
            }
        }
        let any = |patterns: &[String], name: &str| patterns.iter().any(|one| matches(one, name));
        let wanted = |name: &str| match &choice.points {
            Some(points) => any(points, name),
            None => profile.default.is_empty() || any(&profile.default, name),
        };
        for point in &profile.points {
            let name = keys::name(point);
            let named = written.iter().any(|written| keys::name(written) == name);
            if named || (wanted(name) && !any(&choice.except, name)) {
                self.points.push((point.clone(), None));
            }
        }
    }

    /// Lays what is written over the profile's points; what it does not know is added.
    fn overlay(&mut self, written: Vec<Table>) {
        for (index, keys) in written.into_iter().enumerate() {
            let of_profile = self
                .points
                .iter_mut()
                .find(|(point, place)| place.is_none() && keys::name(point) == keys::name(&keys));
            match of_profile {
                Some((point, place)) => {
                    point.extend(keys);
                    *place = Some(index);
                }
                None => self.points.push((keys, Some(index))),
            }
        }
    }

    /// The points; those that are none are reported and left out.
    fn typed(&mut self, choice: &Choice, profile: Option<&Profile>) -> Vec<crate::config::Point> {
        let mut typed = Vec::with_capacity(self.points.len());
        for (point, place) in mem::take(&mut self.points) {
            let path = place.map_or(".profile".to_owned(), |index| format!(".point[{index}]"));
            if !point.contains_key("register") {
                self.no_register(&path, keys::name(&point), choice, profile);
                continue;
            }
            match keys::point(&point) {
                Ok(whole) => {
                    typed.push(whole);
                    self.points.push((Table::new(), place));
                }
                Err(fault) => self.error(&format!("{path}{}", fault.key()), fault.why, ""),
            }
        }
        typed
    }

    fn no_register(&mut self, path: &str, name: &str, choice: &Choice, profile: Option<&Profile>) {
        let (what, remedy) = match (profile, &choice.profile) {
            (Some(profile), Some(named)) => (
                format!("point {name:?} has no register, and profile {named:?} no such point"),
                did_you_mean(name, profile.names()),
            ),
            // What is wrong with the profile has been said.
            (None, Some(_)) => return,
            _ => (
                "[[device.point]] lacks the key \"register\"".to_owned(),
                "write for example register = \"input:0\"".to_owned(),
            ),
        };
        self.error(path, what, remedy);
    }

    /// A line that the device cannot be set to is a line on which it is silent.
    fn check_line(&mut self, device: &Device, profile: &Profile, bus: &Bus) {
        let Some(line) = profile.line.as_ref().filter(|_| bus.port.is_some()) else {
            return;
        };
        let model = format!("{} {}", profile.maker, profile.model);
        if !line.baud.contains(&bus.baud) {
            let rates: Vec<String> = line.baud.iter().map(u32::to_string).collect();
            self.warn(
                format!(
                    "bus {:?} runs at {} baud, which the {model} cannot be set to",
                    bus.name, bus.baud
                ),
                format!("{:?} can take {}", device.name, rates.join(", ")),
            );
        }
        if !line.parity.contains(&bus.parity) {
            let parities: Vec<&str> = line.parity.iter().map(|parity| parity.word()).collect();
            self.warn(
                format!(
                    "bus {:?} has parity {:?}, which the {model} cannot be set to",
                    bus.name,
                    bus.parity.word()
                ),
                format!("{:?} can take {}", device.name, parities.join(", ")),
            );
        }
    }

    fn error(&mut self, below: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let path = format!("{}{below}", self.path);
        self.problems.push(self.document.error(&path, what, remedy));
    }

    fn warn(&mut self, what: String, remedy: String) {
        let path = format!("{}.profile", self.path);
        self.problems
            .push(self.document.warning(&path, what, remedy));
    }
}

fn taken_points(keys: &mut Table) -> Vec<Table> {
    let Some(Value::Array(points)) = keys.remove("point") else {
        return Vec::new();
    };
    let table = |point| match point {
        Value::Object(keys) => keys,
        _ => Table::new(),
    };
    points.into_iter().map(table).collect()
}

fn taken_choice(keys: &mut Table) -> Choice {
    let own = ["profile", "points", "except"];
    let taken: Table = own
        .iter()
        .filter_map(|key| keys.remove_entry(*key))
        .collect();
    Choice::deserialize(Value::Object(taken)).unwrap_or_default()
}

/// Whether a name is the pattern, or begins as one that ends in `*`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == name, |start| name.starts_with(start))
}

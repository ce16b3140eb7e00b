//! From `gateway.toml` to a configuration, or to everything that is wrong with it.
//!
//! Invariant: what is handed out has passed the schema, the forms and the cross-checks. Driver:
//! reads the file, and through `profile` those that it names.

use std::{path::Path, str::FromStr};

use broker_lite::topic::TopicFilter;
use regex_lite::Regex;
use settings::{Checks, Document, Formats, LoadError, Problem, Problems};

use super::{
    BitRange, Characters, Config, Deadband, Window, WordOrder,
    check::check,
    profile::{self, library::Library},
    url,
    url::{EstUrl, ProxyUrl, RepositoryUrl, UpstreamUrl},
};
use crate::fieldbus::{register::Register, serial::template::Template};

/// A configuration with the file it came from.
pub type Loaded = settings::Loaded<Config>;

/// Longest name of a device, point or bus, in characters.
const NAME_MAX: usize = 64;

/// Reads and checks a configuration file.
///
/// # Errors
/// The file cannot be read, or every problem in it.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    settings::load(path, &checks())
}

/// The same for a text, called `name` in messages.
///
/// # Errors
/// Every problem in it.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    settings::parse(name, text, &checks())
}

/// The JSON Schema of the file.
pub fn schema() -> serde_json::Value {
    settings::schema::<Config>("gateway.toml")
}

fn checks() -> Checks<Config> {
    Checks {
        formats: formats(),
        across,
    }
}

/// Completes the devices from their profiles, then looks at everything.
fn across(config: &mut Config, document: &Document) -> Vec<Problem> {
    let mut library = Library::new(&config.gateway.profiles);
    let mut find = |name: &str, at: &dyn Fn(String, String) -> Problem| library.find(name, at);
    let (mut problems, all_there) = profile::complete(config, document, &mut find);
    if all_there {
        problems.extend(check(config, document));
    }
    problems
}

/// Forms of texts in configurations and profiles.
pub(super) fn formats() -> Formats {
    Formats::default()
        .with("name", name)
        .with("host-port", host_port)
        .with("upstream-url", |text| text.parse::<UpstreamUrl>().map(drop))
        .with("est-url", |text| text.parse::<EstUrl>().map(drop))
        .with("repository-url", |text| {
            text.parse::<RepositoryUrl>().map(drop)
        })
        .with("proxy-url", |text| text.parse::<ProxyUrl>().map(drop))
        .with("topic-filter", |text| {
            TopicFilter::parse(text)
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .with("register", |text| {
            text.parse::<Register>()
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .with("byte-order", told::<WordOrder>)
        .with("bit-range", told::<BitRange>)
        .with("time-window", told::<Window>)
        .with("percentage", told::<Deadband>)
        .with("characters", told::<Characters>)
        .with("template", |text| Template::parse(text).map(drop))
        .with("regex", |text| {
            Regex::new(text)
                .map(drop)
                .map_err(|error| error.to_string())
        })
}

fn told<T: FromStr<Err = &'static str>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(drop).map_err(str::to_owned)
}

/// Names become topic levels and words in logs.
fn name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.chars().count() > NAME_MAX {
        return Err(format!("it is longer than {NAME_MAX} characters"));
    }
    match text
        .chars()
        .find(|c| "/+#$\"\\".contains(*c) || c.is_control() || c.is_whitespace())
    {
        Some(bad) => Err(format!(
            "{bad:?} may not stand in it, for it becomes a level of topics"
        )),
        None => Ok(()),
    }
}

fn host_port(text: &str) -> Result<(), String> {
    match url::split_port(text)? {
        ("", _) => Err("it names no host".to_owned()),
        _ => Ok(()),
    }
}

//! Where profiles are found: a directory of this machine, and those built in. Driver: reads files.
//!
//! Invariant: a file of the directory goes before the built-in profile of its name, and a profile
//! is read once for a configuration.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use settings::{Checks, LoadError, Loaded, Problem, Problems};

use super::{Profile, check};
use crate::config::{check::did_you_mean, load::formats};

// `SHIPPED`: name and text of every file in `profiles/`, sorted by name; made by build.rs.
include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

/// The profiles at hand.
#[derive(Debug)]
pub(crate) struct Library {
    directory: PathBuf,
    /// Those looked for; `None`: it is not as it should be, which has been said.
    found: HashMap<String, Option<Arc<Profile>>>,
}

impl Library {
    /// Those built in and those in `directory`, which need not be there.
    pub(crate) fn new(directory: &Path) -> Library {
        Library {
            directory: directory.to_owned(),
            found: HashMap::new(),
        }
    }

    /// The profile of this name; `at` makes a problem of the place that names it.
    ///
    /// # Errors
    /// Everything wrong with it, or that there is none; a second time, nothing more.
    pub(crate) fn find(
        &mut self,
        name: &str,
        at: &dyn Fn(String, String) -> Problem,
    ) -> Result<Arc<Profile>, Vec<Problem>> {
        if let Some(found) = self.found.get(name) {
            return found.clone().ok_or_else(Vec::new);
        }
        let read = self.read(name);
        let found = read.as_ref().ok().and_then(|read| read.as_ref());
        let found = found.map(|loaded| Arc::new(loaded.value.clone()));
        match read {
            Ok(None) => return Err(vec![self.unknown(name, at)]),
            Ok(Some(_)) | Err(_) => self.found.insert(name.to_owned(), found.clone()),
        };
        match (found, read) {
            (Some(found), _) => Ok(found),
            (None, Err(LoadError::Problems(problems))) => Err(problems.iter().cloned().collect()),
            (None, Err(other)) => Err(vec![at(other.to_string(), String::new())]),
            (None, Ok(_)) => Err(Vec::new()),
        }
    }

    /// The profile of this name; `None` where there is none.
    ///
    /// # Errors
    /// Its file cannot be read, or what is wrong in it.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Loaded<Profile>>, LoadError> {
        match self.place(name) {
            Some(Place::File(path)) => load(&path).map(Some),
            Some(Place::BuiltIn(text)) => parse(&built_in(name), text)
                .map(Some)
                .map_err(LoadError::Problems),
            None => Ok(None),
        }
    }

    /// The text of a profile and where it stands.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub(crate) fn text(&self, name: &str) -> io::Result<Option<(String, String)>> {
        match self.place(name) {
            Some(Place::File(path)) => {
                let text = fs::read_to_string(&path)?;
                Ok(Some((path.display().to_string(), text)))
            }
            Some(Place::BuiltIn(text)) => Ok(Some(("built in".to_owned(), text.to_owned()))),
            None => Ok(None),
        }
    }

    /// Every name, and whether its profile is built in.
    pub(crate) fn names(&self) -> BTreeMap<String, bool> {
        let shipped = SHIPPED.iter().map(|(name, _)| ((*name).to_owned(), true));
        let files = self.files().into_iter().map(|name| (name, false));
        shipped.chain(files).collect()
    }

    /// Why there is no such profile, and what to write instead.
    pub(crate) fn missing(&self, name: &str) -> (String, String) {
        let directory = self.directory.display();
        let what = format!(
            "there is no profile {name:?} in {directory} nor among the {} built in",
            SHIPPED.len()
        );
        let names = self.names();
        let known = names.keys().map(String::as_str);
        let remedy = match settings::nearest(name, known.clone()) {
            Some(_) => did_you_mean(name, known),
            None => "gateway profile list shows those known".to_owned(),
        };
        (what, remedy)
    }

    fn unknown(&self, name: &str, at: &dyn Fn(String, String) -> Problem) -> Problem {
        let (what, remedy) = self.missing(name);
        at(what, remedy)
    }

    fn place(&self, name: &str) -> Option<Place> {
        let file = self.directory.join(format!("{name}.toml"));
        let is_name = !name.contains('/');
        // What cannot be looked at is not passed over: reading it says why.
        if is_name && fs::exists(&file).unwrap_or(true) {
            return Some(Place::File(file));
        }
        let index = SHIPPED.binary_search_by_key(&name, |(name, _)| name).ok()?;
        Some(Place::BuiltIn(SHIPPED[index].1))
    }

    fn files(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let name = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".toml").map(str::to_owned)
        };
        entries.filter_map(name).collect()
    }
}

/// Where one profile stands.
enum Place {
    File(PathBuf),
    BuiltIn(&'static str),
}

/// Reads and checks a profile's file.
///
/// # Errors
/// It cannot be read, or every problem in it.
pub(crate) fn load(path: &Path) -> Result<Loaded<Profile>, LoadError> {
    settings::load(path, &checks())
}

/// The same for a text, called `name` in messages.
///
/// # Errors
/// Every problem in it.
pub(crate) fn parse(name: &str, text: &str) -> Result<Loaded<Profile>, Problems> {
    settings::parse(name, text, &checks())
}

/// The JSON Schema of a profile.
pub(crate) fn schema() -> serde_json::Value {
    settings::schema::<Profile>("profile")
}

fn built_in(name: &str) -> String {
    format!("{name}.toml (built in)")
}

fn checks() -> Checks<Profile> {
    Checks {
        formats: formats(),
        across: |profile, document| check(profile, document),
    }
}

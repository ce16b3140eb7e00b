//! `gateway profile`: lists, shows and checks descriptions of devices. Shell.
//!
//! Invariant: `check` accepts exactly what a configuration may name, and runs its examples.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use serde_json::json;
use settings::{LoadError, Loaded, Problem};

use crate::{
    config::profile::{
        Basis, DIRECTORY, Example, Origin, Profile,
        library::{self, Library},
    },
    fieldbus::example,
    wording::counted,
};

use super::{Exit, Failure, check::verdict, print};

/// Arguments of `profile`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the profiles at hand
    List {
        #[command(flatten)]
        directory: Directory,
        /// Print them as JSON
        #[arg(long, conflicts_with = "markdown")]
        json: bool,
        /// Print them as the table of docs/profiles.md
        #[arg(long)]
        markdown: bool,
    },
    /// Print a profile, to read it or to begin one's own
    Show {
        /// Its name, such as eastron-sdm630
        name: String,
        #[command(flatten)]
        directory: Directory,
    },
    /// Check profiles, and decode their examples
    Check {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of a profile, for editors
    Schema,
}

/// Where this machine's own profiles are.
#[derive(Debug, clap::Args)]
struct Directory {
    /// The directory of profiles beside those built in, as [gateway] profiles
    #[arg(long = "profiles", value_name = "DIRECTORY", default_value = DIRECTORY)]
    path: PathBuf,
}

/// Does what is asked of profiles.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::List {
            directory,
            json,
            markdown,
        } => {
            let library = Library::new(&directory.path);
            let listed = listed(&library).map_err(usage)?;
            let text = match (*json, *markdown) {
                (true, _) => format!("{:#}\n", as_json(&listed)),
                (_, true) => as_markdown(&listed),
                _ => as_text(&listed),
            };
            Ok(print(&text)?)
        }
        Action::Show { name, directory } => show(name, &Library::new(&directory.path)),
        Action::Check { files, json } => check(files, *json),
        Action::Schema => Ok(print(&format!("{:#}\n", library::schema()))?),
    }
}

/// A profile in a list.
struct Listed {
    name: String,
    built_in: bool,
    profile: Profile,
}

fn listed(library: &Library) -> Result<Vec<Listed>, LoadError> {
    let mut listed = Vec::new();
    for (name, built_in) in library.names() {
        if let Some(loaded) = library.read(&name)? {
            listed.push(Listed {
                name,
                built_in,
                profile: loaded.value,
            });
        }
    }
    Ok(listed)
}

fn as_text(listed: &[Listed]) -> String {
    let width = listed.iter().map(|one| one.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Listed {
        name,
        built_in,
        profile,
    } in listed
    {
        let own = if *built_in { "" } else { " (of this machine)" };
        let _infallible = writeln!(
            text,
            "{name:<width$}  {:<12}  {:>3} points  {} {}{own}",
            profile.kind.word(),
            profile.points.len(),
            profile.maker,
            profile.model
        );
    }
    text
}

fn as_json(listed: &[Listed]) -> serde_json::Value {
    let one = |listed: &Listed| {
        let Listed {
            name,
            built_in,
            profile,
        } = listed;
        json!({
            "name": name,
            "built_in": built_in,
            "maker": profile.maker,
            "model": profile.model,
            "kind": profile.kind.word(),
            "points": profile.names().collect::<Vec<_>>(),
            "source": profile.source.url,
        })
    };
    listed.iter().map(one).collect()
}

/// The table of `docs/profiles.md`.
fn as_markdown(listed: &[Listed]) -> String {
    let mut text =
        "| profile | device | kind | points | examples | source |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for Listed { name, profile, .. } in listed {
        let source = &profile.source;
        let version = source.version.as_ref();
        let version = version.map_or_else(String::new, |version| format!(", {version}"));
        let basis = match source.basis {
            Basis::Document => "",
            Basis::Transcript => " (from an open transcription)",
            Basis::Implementation => " (from open programs)",
        };
        let _infallible = writeln!(
            text,
            "| `{name}` | {} {} | {} | {} | {} | [{}]({}){version}{basis} |",
            profile.maker,
            profile.model,
            profile.kind.word(),
            profile.points.len(),
            examples(profile),
            source.title,
            source.url,
        );
    }
    text
}

/// `3, 1 of the document`.
fn examples(profile: &Profile) -> String {
    let examples = &profile.examples;
    let from_document = |example: &&Example| example.origin == Origin::Document;
    match examples.iter().filter(from_document).count() {
        0 => examples.len().to_string(),
        documented => format!("{}, {documented} of the document", examples.len()),
    }
}

fn show(name: &str, library: &Library) -> Result<(), Failure> {
    let found = library
        .text(name)
        .with_context(|| format!("cannot read profile {name:?}"))?;
    let Some((place, text)) = found else {
        let (what, remedy) = library.missing(name);
        return Err(Failure::new(Exit::Usage, anyhow!("{what}; {remedy}")));
    };
    Ok(print(&format!("# {name}: {place}\n\n{text}"))?)
}

fn check(files: &[PathBuf], json: bool) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let mut text = String::new();
    for file in files {
        let (what, found) = match findings(file) {
            Ok((loaded, found)) => (contents(&loaded.value), found),
            Err(LoadError::Problems(found)) => (String::new(), found.iter().cloned().collect()),
            Err(other) => return Err(usage(other)),
        };
        for problem in &found {
            let _infallible = writeln!(text, "{problem}");
        }
        let verdict = verdict(found.len());
        let _infallible = writeln!(text, "{}: {what}{verdict}", file.display());
        problems.extend(found);
    }
    if json {
        print(&format!("{:#}\n", json!(problems)))?;
    } else {
        print(&text)?;
    }
    match problems.len() {
        0 => Ok(()),
        _ => Err(Failure::new(
            Exit::Usage,
            anyhow!("a profile with findings is not ready to be used"),
        )),
    }
}

/// `Acme M-1, 3 points, 1 example: `.
fn contents(profile: &Profile) -> String {
    format!(
        "{} {}, {}, {}: ",
        profile.maker,
        profile.model,
        counted(profile.points.len(), "point", "points"),
        counted(profile.examples.len(), "example", "examples")
    )
}

/// A profile in a file, and what is to be said of it: warnings, and examples that do not hold.
fn findings(file: &Path) -> Result<(Loaded<Profile>, Vec<Problem>), LoadError> {
    let loaded = library::load(file)?;
    let mut found: Vec<Problem> = loaded.warnings.iter().cloned().collect();
    found.extend(contradicted(&loaded));
    Ok((loaded, found))
}

/// Examples that the points do not decode to.
fn contradicted(loaded: &Loaded<Profile>) -> Vec<Problem> {
    let profile = &loaded.value;
    let Ok(device) = profile.as_device(&profile.model) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (index, one) in profile.examples.iter().enumerate() {
        for mismatch in example::mismatches(one, &device) {
            let path = format!("example[{index}].values.\"{}\"", mismatch.point);
            let remedy = "correct the example, or the point";
            found.push(loaded.document.error(&path, mismatch.to_string(), remedy));
        }
    }
    found
}

fn usage(error: LoadError) -> Failure {
    Failure::new(Exit::Usage, anyhow!(error))
}

#[cfg(test)]
mod tests;

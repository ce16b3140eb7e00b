//! A benchmark's figures, and the page that is rendered from them, side by side in one folder; what the pages of the field
//! bus and the store have in common. Driver.
//!
//! Invariant: a page holds nothing that is not in its figures, so it can be written anew at any time.

use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::figures::Results;
use super::report::number;
use super::results::{load, save};

/// A page's text, from the results.
pub(crate) type Render = fn(&Results) -> Result<String, fmt::Error>;

/// NAME.json and NAME.md.
pub(crate) struct Page {
    figures: PathBuf,
    page: PathBuf,
    render: Render,
}

impl Page {
    pub(crate) fn new(folder: &Path, name: &str, render: Render) -> Page {
        Page {
            figures: folder.join(name).with_extension("json"),
            page: folder.join(name).with_extension("md"),
            render,
        }
    }

    /// What was measured in earlier runs.
    pub(crate) fn load(&self) -> Result<Results> {
        load(&self.figures)
    }

    /// Keeps the results, and renders them.
    pub(crate) fn write(&self, results: &Results) -> Result<()> {
        save(results, &self.figures)?;
        self.render(results)
    }

    /// Writes the page alone.
    pub(crate) fn render(&self, results: &Results) -> Result<()> {
        let text = (self.render)(results).context("a text can be written")?;
        fs::write(&self.page, text).with_context(|| format!("cannot write {}", self.page.display()))
    }

    /// Writes both, and fails if they do not read back or not everything could be measured.
    pub(crate) fn prove(&self, results: &Results) -> Result<()> {
        self.write(results)?;
        ensure!(
            self.load()?.rows == results.rows,
            "{} does not read back",
            self.figures.display()
        );
        results.check()
    }

    /// Tells where the page is, and fails if not everything could be measured.
    pub(crate) fn finish(&self, results: &Results) -> Result<()> {
        println!("written: {}", self.page.display());
        results.check()
    }
}

/// The title, how it was measured, and with what.
pub(crate) fn head(out: &mut String, title: &str, method: &str, results: &Results) -> fmt::Result {
    writeln!(
        out,
        "# {title}\n\n{method}- Machine: {}. The gateway's cargo profile: `{}`.\n- Versions: {}.\n",
        results.machine,
        results.profile,
        results.versions.join(", ")
    )
}

/// The head of the table of what was to be reached.
pub(crate) fn goals(out: &mut String) -> fmt::Result {
    writeln!(
        out,
        "## Goals\n\n| | goal | measured | |\n|---|---:|---:|---|"
    )
}

/// One row of it, and whether it was.
pub(crate) fn goal(
    out: &mut String,
    title: &str,
    aim: &str,
    value: f64,
    is_met: bool,
) -> fmt::Result {
    let verdict = if is_met { "met" } else { "missed" };
    writeln!(out, "| {title} | {aim} | {} | {verdict} |", number(value))
}

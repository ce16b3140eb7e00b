//! Promise: the layers hold. Values and cores know no clock, socket, file, thread or chance, and
//! import nothing from above.
//!
//! Each source file says in its first lines what it is: a value, a core, a driver or the shell.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The libraries whose files are read.
const CRATES: [&str; 6] = ["settings", "broker-lite", "tpm", "tuf", "update", "gateway"];

/// Words that belong to drivers and the shell.
const DRIVER_WORDS: [&str; 16] = [
    "tokio::",
    "tokio_serial",
    "tokio_rustls",
    "rumqttc::",
    "rusqlite::",
    "std::fs",
    "std::thread",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::process",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Mutex<",
    "rand::",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Value,
    Core,
    Driver,
    Shell,
}

struct Source {
    path: PathBuf,
    layer: Layer,
    /// The code without comments and without its tests.
    code: String,
}

#[test]
fn every_file_says_which_layer_it_is() {
    let unsaid: Vec<_> = files()
        .into_iter()
        .filter(|path| layer_of(&read(path)).is_none())
        .collect();
    assert!(
        unsaid.is_empty(),
        "these files do not say in their first lines whether they are a value, a core, a driver or the shell: {unsaid:#?}"
    );
}

#[test]
fn values_and_cores_know_no_clock_socket_file_thread_or_chance() {
    let mut found = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| source.layer <= Layer::Core)
    {
        for (number, line) in source.code.lines().enumerate() {
            for word in DRIVER_WORDS.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", source.path.display(), number + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "a {:?} or {:?} holds a driver's word:\n{}",
        Layer::Value,
        Layer::Core,
        found.join("\n")
    );
}

#[test]
fn nothing_is_imported_from_above() {
    let sources = sources();
    let layers: BTreeMap<String, Layer> = sources
        .iter()
        .map(|source| (module_of(&source.path), source.layer))
        .collect();
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.layer <= Layer::Core) {
        let own = module_of(&source.path);
        for import in imports(&source.code, &own) {
            if let Some((module, layer)) = longest_module(&layers, &import)
                && layer > Layer::Core
                && !own.starts_with(module)
            {
                found.push(format!(
                    "{} ({:?}) imports {module} ({layer:?})",
                    source.path.display(),
                    source.layer
                ));
            }
        }
    }
    found.dedup();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn sources() -> Vec<Source> {
    files()
        .into_iter()
        .filter_map(|path| {
            let text = read(&path);
            let layer = layer_of(&text)?;
            Some(Source {
                layer,
                code: code(&text),
                path,
            })
        })
        .collect()
}

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for name in CRATES {
        collect(&root.join(name).join("src"), &mut found);
    }
    assert!(
        found.len() > 30,
        "only {} files found below {}",
        found.len(),
        root.display()
    );
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory)
        .expect("a source folder")
        .map(|entry| entry.expect("an entry").path())
    {
        let name = entry
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        if entry.is_dir() && !["tests", "simulation"].contains(&name.as_str()) {
            collect(&entry, found);
        } else if name.ends_with(".rs")
            && !["sim.rs", "simulation.rs", "main.rs", "lib.rs"].contains(&name.as_str())
            && !name.ends_with("tests.rs")
        {
            found.push(entry);
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a source file")
}

/// What the file's first lines say; the highest word counts (`A core and its driver`).
fn layer_of(text: &str) -> Option<Layer> {
    let head: String = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase();
    let says = |words: &[&str]| {
        head.split(|c: char| !c.is_alphabetic())
            .any(|word| words.contains(&word))
    };
    [
        (Layer::Shell, ["shell", "shell"]),
        (Layer::Driver, ["driver", "drivers"]),
        (Layer::Core, ["core", "cores"]),
        (Layer::Value, ["value", "values"]),
    ]
    .into_iter()
    .find_map(|(layer, words)| says(&words).then_some(layer))
}

/// The text up to its tests, comments blanked.
fn code(text: &str) -> String {
    text.split("\nmod tests {")
        .next()
        .unwrap_or(text)
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `gateway::fieldbus::poll::plan` for `…/gateway/src/fieldbus/poll/plan.rs`.
fn module_of(path: &Path) -> String {
    let parts: Vec<String> = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let src = parts
        .iter()
        .rposition(|part| part == "src")
        .expect("below src");
    let mut module = vec![parts[src - 1].replace('-', "_")];
    module.extend(
        parts[src + 1..]
            .iter()
            .map(|part| part.trim_end_matches(".rs").to_owned())
            .filter(|part| part != "mod"),
    );
    module.join("::")
}

/// Paths named after `crate::`, `super::` or a sister crate, made whole; groups in braces are opened.
fn imports(code: &str, own: &str) -> Vec<String> {
    let krate = own.split("::").next().unwrap_or(own);
    let parent = own.rsplit_once("::").map_or(own, |(parent, _)| parent);
    let flat = code.replace('\n', " ");
    let mut found = Vec::new();
    for statement in flat
        .split("use ")
        .skip(1)
        .filter_map(|rest| rest.split(';').next())
    {
        let statement = statement.replace(' ', "");
        let whole = statement
            .strip_prefix("crate::")
            .map(|rest| format!("{krate}::{rest}"))
            .or_else(|| {
                statement
                    .strip_prefix("super::")
                    .map(|rest| format!("{parent}::{rest}"))
            })
            .unwrap_or(statement);
        open_groups(&whole, &mut found);
    }
    found
}

/// Adds each path of a use statement by itself, however deep its groups.
fn open_groups(path: &str, found: &mut Vec<String>) {
    let Some((prefix, group)) = path.split_once("::{") else {
        found.push(path.to_owned());
        return;
    };
    let group = group.strip_suffix('}').unwrap_or(group);
    for item in split_group(group) {
        open_groups(&format!("{prefix}::{item}"), found);
    }
}

fn split_group(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut items = vec![String::new()];
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().expect("never empty").push(character);
    }
    items.retain(|item| !item.is_empty());
    items
}

fn longest_module<'m>(
    layers: &'m BTreeMap<String, Layer>,
    import: &str,
) -> Option<(&'m str, Layer)> {
    layers
        .iter()
        .filter(|(module, _)| {
            import == module.as_str() || import.starts_with(&format!("{module}::"))
        })
        .max_by_key(|(module, _)| module.len())
        .map(|(module, layer)| (module.as_str(), *layer))
}

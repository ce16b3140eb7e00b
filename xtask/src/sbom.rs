//! The list of components of the gateway's binary: CycloneDX 1.5, JSON, from what cargo resolved.
//!
//! Invariant: the same `Cargo.lock` and target make the same bytes; only what is linked into the binary is listed, no build
//! or test dependency. A driver.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::command::{cargo, output, root};

/// The package whose binary is shipped.
const PRODUCT: &str = "gateway";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    source: Option<String>,
    license: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// Absent for what is linked.
    kind: Option<String>,
}

/// The checksums of crates.io, by name and version.
type Checksums = BTreeMap<(String, String), String>;

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// Writes the list for `target`, such as `aarch64-unknown-linux-gnu`.
pub(crate) fn write(target: &str, out: &Path) -> Result<()> {
    let text = output(cargo("metadata").args([
        "--format-version=1",
        "--locked",
        "--filter-platform",
        target,
    ]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cannot read cargo metadata")?;
    let list = document(&metadata, &checksums()?)?;
    let text = serde_json::to_string_pretty(&list)? + "\n";
    fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))
}

fn checksums() -> Result<Checksums> {
    let text = fs::read_to_string(root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let lock: Lock = toml::from_str(&text).context("cannot read Cargo.lock")?;
    let sums = lock.package.into_iter().filter_map(|package| {
        let checksum = package.checksum?;
        Some(((package.name, package.version), checksum))
    });
    Ok(sums.collect())
}

fn document(metadata: &Metadata, checksums: &Checksums) -> Result<Value> {
    let product = metadata
        .packages
        .iter()
        .find(|package| package.name == PRODUCT);
    let product = product.context("no package gateway")?;
    let linked = linked(metadata, &product.id);
    let mut listed: Vec<&Package> = metadata
        .packages
        .iter()
        .filter(|package| package.id != product.id && linked.contains_key(package.id.as_str()))
        .collect();
    listed.sort_by_key(|package| (&package.name, &package.version));
    let reference = |id: &str| {
        let package = metadata.packages.iter().find(|package| package.id == id);
        package.map(name_in_list)
    };
    let mut dependencies: Vec<(Option<String>, Vec<String>)> = linked
        .iter()
        .map(|(id, needs)| {
            let mut needs: Vec<_> = needs.iter().filter_map(|id| reference(id)).collect();
            needs.sort();
            (reference(id), needs)
        })
        .collect();
    dependencies.sort();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(product, "application", checksums) },
        "components": listed
            .iter()
            .map(|package| component(package, "library", checksums))
            .collect::<Vec<_>>(),
        "dependencies": dependencies
            .iter()
            .map(|(id, needs)| json!({ "ref": id, "dependsOn": needs }))
            .collect::<Vec<_>>(),
    }))
}

/// What is linked into the product, with what each part needs.
fn linked<'m>(metadata: &'m Metadata, product: &'m str) -> BTreeMap<&'m str, BTreeSet<&'m str>> {
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut found = BTreeMap::new();
    let mut pending = vec![product];
    while let Some(id) = pending.pop() {
        if found.contains_key(id) {
            continue;
        }
        let needs: BTreeSet<&str> = nodes
            .get(id)
            .into_iter()
            .flat_map(|node| &node.deps)
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()))
            .map(|dependency| dependency.pkg.as_str())
            .collect();
        pending.extend(&needs);
        found.insert(id, needs);
    }
    found
}

fn component(package: &Package, kind: &str, checksums: &Checksums) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": name_in_list(package),
        "name": package.name,
        "version": package.version,
    });
    // What is not from crates.io must not be taken for a namesake there.
    if package.source.is_some() {
        component["purl"] = purl(package).into();
    }
    if let Some(license) = &package.license {
        // Cargo's old form of "or".
        let expression = license.replace('/', " OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    let key = (package.name.clone(), package.version.clone());
    if let (Some(_), Some(checksum)) = (&package.source, checksums.get(&key)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn name_in_list(package: &Package) -> String {
    match package.source {
        Some(_) => purl(package),
        None => format!("{}@{}", package.name, package.version),
    }
}

/// The package's name for vulnerability databases (package-url). `+` separates build metadata and is encoded.
fn purl(package: &Package) -> String {
    let version = package.version.replace('+', "%2B");
    format!("pkg:cargo/{}@{version}", package.name)
}

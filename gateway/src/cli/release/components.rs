//! A list of components as releases carry it: CycloneDX, JSON. Value.
//!
//! Invariant: a component that has no name for vulnerability databases is counted, not forgotten.

use serde::Deserialize;

/// A CycloneDX document, as far as it is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    bom_format: String,
    #[serde(default)]
    components: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    version: Option<String>,
    purl: Option<String>,
    /// Components in components.
    #[serde(default)]
    components: Vec<Listed>,
}

/// A part of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Component {
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// How databases know it, where the list says so.
    pub(super) package: Option<Package>,
}

/// A package by ecosystem and name, as OSV has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// `crates.io`, `Debian`, …
    pub(super) ecosystem: &'static str,
    /// Its name there.
    pub(super) name: String,
}

/// The components of a list.
///
/// # Errors
/// When it is no CycloneDX document in JSON.
pub(super) fn read(text: &[u8]) -> Result<Vec<Component>, String> {
    let document: Document = serde_json::from_slice(text)
        .map_err(|error| format!("no list of components (CycloneDX, JSON): {error}"))?;
    if document.bom_format != "CycloneDX" {
        return Err(format!(
            "a list of components by {}, not CycloneDX",
            document.bom_format
        ));
    }
    let mut components = Vec::new();
    let mut pending = document.components;
    while let Some(listed) = pending.pop() {
        pending.extend(listed.components);
        let named = listed.purl.as_deref().and_then(package_url);
        let (package, version) = match named {
            Some((package, version)) => (Some(package), version),
            None => (None, None),
        };
        components.push(Component {
            version: listed.version.or(version).unwrap_or_default(),
            name: listed.name,
            package,
        });
    }
    components.sort_by(|one, next| (&one.name, &one.version).cmp(&(&next.name, &next.version)));
    Ok(components)
}

/// `pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS#SUBPATH`, for the types that OSV has by the same names.
fn package_url(purl: &str) -> Option<(Package, Option<String>)> {
    let rest = purl.strip_prefix("pkg:")?;
    let rest = rest.split(['?', '#']).next()?;
    let (path, version) = match rest.rsplit_once('@') {
        Some((path, version)) => (path, Some(decoded(version))),
        None => (rest, None),
    };
    let (kind, path) = path.split_once('/')?;
    let (ecosystem, name) = match (kind, path) {
        ("cargo", name) => ("crates.io", name),
        ("deb", path) => ("Debian", path.strip_prefix("debian/")?),
        ("pypi", name) => ("PyPI", name),
        ("npm", name) => ("npm", name),
        ("golang", name) => ("Go", name),
        _ => return None,
    };
    let name = decoded(name);
    Some((Package { ecosystem, name }, version))
}

/// Percent-decoded; what is no code stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| first == b'%');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_known_by_the_names_that_databases_use() {
        let check = |purl, expected: Option<(&str, &str, Option<&str>)>| {
            let found = package_url(purl);
            let found = found.as_ref().map(|(package, version)| {
                (package.ecosystem, package.name.as_str(), version.as_deref())
            });
            assert_eq!(found, expected, "{purl}");
        };
        check(
            "pkg:cargo/ring@0.17.14",
            Some(("crates.io", "ring", Some("0.17.14"))),
        );
        check(
            "pkg:cargo/zstd-sys@2.0.16%2Bzstd.1.5.7",
            Some(("crates.io", "zstd-sys", Some("2.0.16+zstd.1.5.7"))),
        );
        check(
            "pkg:deb/debian/openssl@3.0.15-1~deb12u1?arch=arm64",
            Some(("Debian", "openssl", Some("3.0.15-1~deb12u1"))),
        );
        check(
            "pkg:npm/%40scope/name@1.0.0",
            Some(("npm", "@scope/name", Some("1.0.0"))),
        );
        check("pkg:generic/linux@6.6", None);
        check("linux", None);
    }

    #[test]
    fn components_within_components_are_found_and_nameless_ones_kept() {
        let list =
            br#"{"bomFormat":"CycloneDX","components":[{"name":"b","version":"1","components":[
            {"name":"a","version":"2","purl":"pkg:cargo/a@2"}]}]}"#;
        let found = read(list).unwrap();
        assert_eq!(
            found
                .iter()
                .map(|one| one.name.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert!(found[0].package.is_some() && found[1].package.is_none());
        assert!(read(br#"{"bomFormat":"SPDX"}"#).is_err());
    }
}

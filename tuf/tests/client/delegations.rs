//! Promise: a role speaks for what was delegated to it, in the order of trust, and searches end. Layer: tests.

use tuf::repository::{DelegationDraft, Scheme, Signer, TargetsDraft};
use tuf::time::days_after;

use crate::support::{Device, Vendor, key, now, signed, target};

#[test]
fn a_role_that_is_present_but_absent_from_the_snapshot_is_not_asked() {
    let mut vendor = Vendor::new();
    delegate(&mut vendor, "team", &["team/*"], false, &[]);
    let team = vendor.delegated.remove("team").unwrap();
    vendor.publish_next();
    vendor.shelf.metadata.insert("1.team.json".into(), team);
    let mut device = Device::updated(&mut vendor);
    let refusal = device.download(&mut vendor.shelf, "team/x").unwrap_err();
    assert!(refusal.to_string().contains("do not list it"), "{refusal}");
    assert_eq!(device.kept("team"), None);
}

#[test]
fn a_delegated_target_is_found_in_the_order_of_trust() {
    let mut vendor = Vendor::new();
    let content = |text: &str| text.as_bytes().to_vec();
    let files = |text: &str| vec![("team/x".to_owned(), content(text))];
    delegate(&mut vendor, "first", &["team/*"], false, &files("first"));
    delegate(&mut vendor, "second", &["*/*"], false, &files("second"));
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    let target = device.update(&mut vendor.shelf, |update| update.find("team/x"));
    assert_eq!(target.unwrap().length, 5);
    assert_eq!(
        vendor.shelf.requests.last().map(String::as_str),
        Some("1.first.json")
    );
}

#[test]
fn a_terminating_delegation_ends_the_search() {
    for terminating in [false, true] {
        let mut vendor = Vendor::new();
        let files = [("team/x".to_owned(), b"x".to_vec())];
        delegate(&mut vendor, "first", &["team/*"], terminating, &[]);
        delegate(&mut vendor, "second", &["team/*"], false, &files);
        vendor.publish_next();
        let mut device = Device::updated(&mut vendor);
        let found = device.update(&mut vendor.shelf, |update| update.find("team/x"));
        assert_eq!(found.is_err(), terminating);
    }
}

#[test]
fn a_role_speaks_only_for_the_paths_delegated_to_it() {
    let mut vendor = Vendor::new();
    let files = [("other/x".to_owned(), b"x".to_vec())];
    delegate(&mut vendor, "team", &["team/*"], false, &files);
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    device
        .update(&mut vendor.shelf, |update| update.find("other/x"))
        .unwrap_err();
    assert!(!vendor.shelf.requests.contains(&"1.team.json".to_owned()));
}

#[test]
fn a_search_through_too_many_roles_ends() {
    let mut vendor = Vendor::new();
    for number in 0..40 {
        delegate(&mut vendor, &format!("r{number}"), &["*"], false, &[]);
    }
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    vendor.shelf.requests.clear();
    let ended = device.update(&mut vendor.shelf, |update| update.find("nowhere"));
    let refusal = ended.unwrap_err().to_string();
    assert!(refusal.contains("limit of 32 delegated roles"), "{refusal}");
    assert_eq!(vendor.shelf.requests.len(), 2 + 32);
}

#[test]
fn a_search_through_too_deep_a_chain_ends() {
    let mut vendor = Vendor::new();
    // From the deepest up: each role delegates to the one made before it.
    let mut below: Vec<DelegationDraft> = Vec::new();
    for depth in (1..=9).rev() {
        let name = format!("d{depth}");
        let owner = key(Scheme::Ed25519);
        let file = TargetsDraft {
            version: 1,
            expires: days_after(now(), 30),
            targets: Vec::new(),
            delegations: below,
        };
        let file = signed(&file.to_file().unwrap(), &[&owner]);
        vendor.delegated.insert(name.clone(), file);
        below = vec![delegation(&name, &owner, &["*"], false)];
    }
    vendor.delegations = below;
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    let ended = device.update(&mut vendor.shelf, |update| update.find("nowhere"));
    let refusal = ended.unwrap_err().to_string();
    assert!(
        refusal.contains("limit of 8 delegations in a row"),
        "{refusal}"
    );
}

#[test]
fn roles_that_delegate_to_each_other_are_visited_once() {
    let mut vendor = Vendor::new();
    let (one, other) = (key(Scheme::Ed25519), key(Scheme::Ed25519));
    for (name, owner, to, to_owner) in [
        ("one", &one, "other", &other),
        ("other", &other, "one", &one),
    ] {
        let file = TargetsDraft {
            version: 1,
            expires: days_after(now(), 30),
            targets: Vec::new(),
            delegations: vec![delegation(to, to_owner, &["*"], false)],
        };
        let file = signed(&file.to_file().unwrap(), &[owner]);
        vendor.delegated.insert(name.into(), file);
    }
    vendor.delegations = vec![delegation("one", &one, &["*"], false)];
    vendor.publish_next();
    let mut device = Device::updated(&mut vendor);
    vendor.shelf.requests.clear();
    let absent = device.update(&mut vendor.shelf, |update| update.find("nowhere"));
    assert!(absent.unwrap_err().to_string().contains("describes"));
    assert_eq!(
        vendor.shelf.requests[2..],
        ["1.one.json".to_owned(), "1.other.json".to_owned()]
    );
}

/// Delegates to a new role with files of its own.
pub(crate) fn delegate(
    vendor: &mut Vendor,
    name: &str,
    paths: &[&str],
    terminating: bool,
    files: &[(String, Vec<u8>)],
) {
    let owner = key(Scheme::Ed25519);
    let draft = TargetsDraft {
        version: 1,
        expires: days_after(now(), 30),
        targets: files
            .iter()
            .map(|(path, bytes)| target(path, bytes))
            .collect(),
        delegations: Vec::new(),
    };
    let file = signed(&draft.to_file().unwrap(), &[&owner]);
    vendor.delegated.insert(name.into(), file);
    vendor
        .delegations
        .push(delegation(name, &owner, paths, terminating));
}

fn delegation(
    name: &str,
    owner: &impl Signer,
    paths: &[&str],
    terminating: bool,
) -> DelegationDraft {
    DelegationDraft {
        name: name.into(),
        keys: vec![owner.public_key().clone()],
        threshold: 1,
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        terminating,
    }
}

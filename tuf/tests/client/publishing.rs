//! Promise: what the vendor's tools publish is what devices accept, and nothing else is published. Layer: tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tuf::metadata::TopRole;
use tuf::repository::{
    Edition, PublishFailure, Scheme, SignFailure, Signer, SnapshotDraft, TargetsDraft,
    TimestampDraft, Tree, merge, sign, signed_by,
};
use tuf::time::days_after;

use crate::support::{Device, Shelf, Vendor, key, now, signed};

#[test]
fn a_published_folder_is_followed_by_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let tree = Tree::new(folder.path());
    let mut vendor = Vendor::new();
    vendor.files.clear();
    let source = folder.path().join("source");
    fs::write(&source, b"image").unwrap();
    let image = tree.add_target("app/image.idx", &source).unwrap();
    let first = edition(&vendor, vec![image.clone()]);
    tree.publish(&first, now()).unwrap();
    let mut device = Device::new(&first.roots[&1]);
    let mut shelf = shelf_of(folder.path());
    assert_eq!(
        device.download(&mut shelf, "app/image.idx").unwrap(),
        b"image"
    );

    vendor.root_version = 2;
    vendor.raise(&[TopRole::Targets, TopRole::Snapshot, TopRole::Timestamp]);
    tree.publish(&edition(&vendor, vec![image]), now()).unwrap();
    let mut shelf = shelf_of(folder.path());
    device.refresh(&mut shelf).unwrap();
    assert!(device.floor.0.root.is_some_and(|root| root.version == 2));
}

#[test]
fn what_a_device_would_refuse_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let tree = Tree::new(folder.path());
    let mut vendor = Vendor::new();
    let mut one_signature = edition(&vendor, Vec::new());
    one_signature.roots.insert(1, vendor.root(&[0]));
    let mut no_first_root = edition(&vendor, Vec::new());
    no_first_root.roots = [(2, no_first_root.roots[&1].clone())].into();
    let mut stray = edition(&vendor, Vec::new());
    stray
        .targets
        .insert("team".into(), stray.targets["targets"].clone());
    vendor.forgetful = Some(TopRole::Targets);
    let unsigned = edition(&vendor, Vec::new());
    for (edition, expected) in [
        (one_signature, "1 of the 2 signatures"),
        (no_first_root, "no root version 1"),
        (stray, "role \"team\""),
        (unsigned, "0 of the 1 signatures"),
    ] {
        let refusal = tree.publish(&edition, now()).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
        assert_eq!(
            fs::read_dir(folder.path().join("metadata"))
                .unwrap()
                .count(),
            0
        );
    }
}

#[test]
fn an_edition_older_than_the_published_one_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let tree = Tree::new(folder.path());
    let mut vendor = Vendor::new();
    vendor.versions.insert(TopRole::Timestamp, 2);
    tree.publish(&edition(&vendor, Vec::new()), now()).unwrap();
    vendor.versions.insert(TopRole::Timestamp, 1);
    let refused = tree.publish(&edition(&vendor, Vec::new()), now());
    assert!(matches!(refused, Err(PublishFailure::Refused(_))));
}

#[test]
fn signatures_from_separate_machines_are_joined() {
    let vendor = Vendor::new();
    let draft = vendor.root_draft().to_file().unwrap();
    let [here, there, _] = &vendor.root_keys[..] else {
        panic!("a root has three keys")
    };
    let joined = merge(&sign(&draft, here).unwrap(), &sign(&draft, there).unwrap()).unwrap();
    let mut expected = [here.public_key().id(), there.public_key().id()];
    expected.sort();
    assert_eq!(signed_by(&joined).unwrap(), expected);
    Device::new(&joined);

    let mut other = vendor.root_draft();
    other.version = 2;
    let other = sign(&other.to_file().unwrap(), there).unwrap();
    assert_eq!(merge(&joined, &other), Err(SignFailure::Different));
}

#[test]
fn the_same_draft_makes_the_same_bytes_and_a_signature_changes_nothing_else() {
    let vendor = Vendor::new();
    let draft = vendor.root_draft().to_file().unwrap();
    assert_eq!(vendor.root_draft().to_file().unwrap(), draft);
    let owner = key(Scheme::Ed25519);
    let once = sign(&draft, &owner).unwrap();
    assert_eq!(sign(&once, &owner).unwrap(), once);
    let part = |file: &[u8]| {
        let file: serde_json::Value = serde_json::from_slice(file).unwrap();
        file["signed"].clone()
    };
    assert_eq!(part(&once), part(&draft));
}

#[test]
fn a_draft_that_no_device_would_accept_is_refused() {
    let mut root = Vendor::new().root_draft();
    root.roles.remove(&TopRole::Snapshot);
    assert!(root.to_file().is_err());
    let mut root = Vendor::new().root_draft();
    root.roles.get_mut(&TopRole::Root).unwrap().1 = 4;
    let refusal = root.to_file().unwrap_err().to_string();
    assert!(refusal.contains("3 keys cannot reach a threshold of 4"));
    let targets = TargetsDraft {
        version: 0,
        expires: now(),
        targets: Vec::new(),
        delegations: Vec::new(),
    };
    assert!(targets.to_file().is_err());
}

fn edition(vendor: &Vendor, targets: Vec<tuf::repository::TargetDraft>) -> Edition {
    let expires = days_after(now(), 30);
    let draft = TargetsDraft {
        version: vendor.versions[&TopRole::Targets],
        expires,
        targets,
        delegations: Vec::new(),
    };
    let targets = vendor.sign(TopRole::Targets, &draft.to_file().unwrap());
    let roles: BTreeMap<_, _> = [("targets".to_owned(), targets)].into();
    let draft = SnapshotDraft {
        version: vendor.versions[&TopRole::Snapshot],
        expires,
        roles: roles.clone(),
    };
    let snapshot = vendor.sign(TopRole::Snapshot, &draft.to_file().unwrap());
    let draft = TimestampDraft {
        version: vendor.versions[&TopRole::Timestamp],
        expires,
        snapshot: snapshot.clone(),
    };
    let draft = draft.to_file().unwrap();
    Edition {
        roots: [(vendor.root_version, vendor.root(&[0, 1]))].into(),
        timestamp: signed(&draft, &[&vendor.keys[&TopRole::Timestamp]]),
        snapshot,
        targets: roles,
    }
}

/// The files of a published folder, as a web server would hand them out.
fn shelf_of(folder: &Path) -> Shelf {
    let mut shelf = Shelf::default();
    read_into(&folder.join("metadata"), "", &mut shelf.metadata);
    read_into(&folder.join("targets"), "", &mut shelf.targets);
    shelf
}

fn read_into(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = prefix.to_owned() + path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            read_into(&path, &(name + "/"), files);
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

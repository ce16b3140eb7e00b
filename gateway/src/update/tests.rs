//! What downloads promise, against a repository on loopback that can be made to lie. Layer: tests.

#[expect(dead_code, reason = "the metadata's own tests use all of it")]
#[path = "../../../tuf/tests/client/support.rs"]
mod repository;

mod server;

use std::{fs, sync::Arc};

use tempfile::TempDir;
use update::release::{
    About, CHUNK, ContentKey, FileKey, Grants, Index, WrappedKey,
    pack::{Parameters, pack},
};

use super::{
    download::{DownloadError, Downloader, Fetched},
    repository::FetchError,
};
use crate::config;
use repository::Vendor;
use server::{Server, Shelf, Trick};

const TARGET: &str = "board/release.index";

/// A vendor that publishes on loopback, and a device that downloads.
struct Stage {
    vendor: Vendor,
    server: Server,
    folder: TempDir,
}

impl Stage {
    fn new() -> Stage {
        let vendor = Vendor::new();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("root.json"), vendor.first_root()).unwrap();
        Stage {
            vendor,
            server: Server::start(),
            folder,
        }
    }

    /// Publishes an image of chunks that are all `salt`s and noise.
    fn publish(&mut self, version: &str, salts: &[u8]) -> Index {
        let image: Vec<u8> = salts.iter().flat_map(|salt| chunk(*salt)).collect();
        let key = ContentKey::new(&[7; 32]);
        let file_key = FileKey::new(&[9; 32]);
        let sealed = file_key.wrap(1, &key);
        let parameters = Parameters {
            about: About {
                product: "gateway".into(),
                version: version.into(),
                hardware: vec!["board".into()],
                epoch: 1,
                image_size: image.len() as u64,
                sbom: None,
            },
            grants: Grants {
                approval: None,
                keys: vec![(file_key.recipient(), WrappedKey::File(sealed))],
            },
            key,
            sbom: None,
            level: 1,
        };
        let packed = self.folder.path().join("packed");
        let index = pack(&mut &image[..], &parameters, &packed, &mut |_| {}).unwrap();
        self.vendor.files = vec![(TARGET.into(), index.to_bytes())];
        self.vendor.publish_next();
        let mut shelf = Shelf::default();
        for (name, bytes) in &self.vendor.shelf.metadata {
            shelf.insert(format!("/metadata/{name}"), bytes.clone());
        }
        for (name, bytes) in &self.vendor.shelf.targets {
            shelf.insert(format!("/targets/{name}"), bytes.clone());
        }
        for entry in fs::read_dir(packed.join("chunks")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            shelf.insert(format!("/chunks/{name}"), fs::read(entry.path()).unwrap());
        }
        self.server.set(shelf);
        index
    }

    fn downloader(&self, more: &str) -> Downloader {
        let folder = self.folder.path().display();
        let text = format!(
            "[update]\nrepository = \"http://{}\"\ntarget = \"{TARGET}\"\nhardware = \"board\"\n\
             root = \"{folder}/root.json\"\ndirectory = \"{folder}/update\"\n\
             [update.slots]\na = \"{folder}/a\"\nb = \"{folder}/b\"\nboot = {{ files = \"{folder}/boot\" }}\n\
             [update.staging]\ndirectory = \"{folder}/staging\"\n{more}",
            self.server.address()
        );
        let config = config::parse("gateway.toml", &text).unwrap().value;
        Downloader::new(&config.update.unwrap(), None).unwrap()
    }

    fn staged(&self) -> usize {
        let chunks = fs::read_dir(self.folder.path().join("staging/chunks"));
        chunks.unwrap().count()
    }
}

fn chunk(salt: u8) -> Vec<u8> {
    let mut state = u64::from(salt) + 1;
    let noise = std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    });
    noise.take(CHUNK).collect()
}

async fn fetch(downloader: &Downloader, running: Option<&str>) -> Result<Fetched, DownloadError> {
    let offer = downloader.look().await?;
    let mut last = Fetched::default();
    downloader
        .fetch(&offer, running, &[], &mut |fetched| last = fetched)
        .await?;
    Ok(last)
}

fn chunk_path(index: &Index, number: usize) -> String {
    format!(
        "/chunks/{}",
        tpm::hex::encode(&index.chunks()[number].stored)
    )
}

#[tokio::test]
async fn a_release_gets_into_staging_whole_and_the_next_one_without_what_runs() {
    let mut stage = Stage::new();
    let first = stage.publish("1.0", &[1, 2, 3]);
    let downloader = stage.downloader("");
    let fetched = fetch(&downloader, None).await.unwrap();
    assert_eq!((fetched.done, stage.staged()), (first.stored_bytes(), 3));
    downloader.clear().unwrap();
    let second = stage.publish("2.0", &[3, 1, 9]);
    let fetched = fetch(&downloader, Some(&first.release().root))
        .await
        .unwrap();
    assert_eq!(fetched.done, u64::from(second.chunks()[2].stored_length));
    assert_eq!(stage.server.asked(&chunk_path(&second, 0)), 0);
    assert_eq!(stage.staged(), 1);
}

#[tokio::test]
async fn a_download_that_was_broken_off_goes_on_and_takes_nothing_that_was_changed_meanwhile() {
    let mut stage = Stage::new();
    let index = stage.publish("1.0", &[1, 2, 3]);
    let mut other = vec![0; index.chunks()[1].stored_length as usize];
    other[0] = 1;
    stage
        .server
        .trick(&chunk_path(&index, 1), Trick::Instead(other));
    let error = fetch(&stage.downloader(""), None).await.unwrap_err();
    assert!(matches!(error, DownloadError::Changed(1)), "{error}");
    assert_eq!(stage.staged(), 1);
    stage.server.trick(&chunk_path(&index, 1), Trick::Truncated);
    let error = fetch(&stage.downloader(""), None).await.unwrap_err();
    assert!(matches!(error, DownloadError::Fetch(_)), "{error}");
    stage.server.forgive();
    fetch(&stage.downloader(""), None).await.unwrap();
    assert_eq!(stage.staged(), 3);
    assert_eq!(
        stage.server.asked(&chunk_path(&index, 0)),
        1,
        "it was there"
    );
}

#[tokio::test]
async fn a_chunk_that_staging_holds_damaged_is_fetched_again() {
    let mut stage = Stage::new();
    let index = stage.publish("1.0", &[1, 2]);
    fetch(&stage.downloader(""), None).await.unwrap();
    let name = chunk_path(&index, 0);
    let path = stage.folder.path().join(format!("staging{name}"));
    let torn = vec![0; fs::read(&path).unwrap().len()];
    fs::write(&path, torn).unwrap();
    fetch(&stage.downloader(""), None).await.unwrap();
    assert_eq!(stage.server.asked(&name), 2);
    assert_eq!(stage.server.asked(&chunk_path(&index, 1)), 1);
}

#[tokio::test]
async fn a_budget_fails_rather_than_overspends_across_restarts_of_the_process() {
    let mut stage = Stage::new();
    stage.publish("1.0", &[1, 2, 3, 4]);
    let budget = "[update.budget]\nper_day = \"600KiB\"\n";
    let error = fetch(&stage.downloader(budget), None).await.unwrap_err();
    assert!(matches!(error, DownloadError::Budget { .. }), "{error}");
    assert_eq!(stage.staged(), 0, "a download that cannot end is not begun");
    // Enough for two chunks, and then never more, however often somebody tries.
    stage.publish("2.0", &[1, 2]);
    fetch(&stage.downloader(budget), None).await.unwrap();
    stage.publish("3.0", &[5, 6]);
    let mut spent = 0;
    for _ in 0..100 {
        let downloader = stage.downloader(budget);
        assert!(fetch(&downloader, None).await.is_err());
        spent += downloader.total();
        assert!(spent < 600 << 10, "{spent} bytes");
    }
    let error = stage.downloader(budget).look().await.unwrap_err();
    assert!(error.to_string().contains("is used up"), "{error}");
}

#[tokio::test]
async fn endless_data_and_redirects_end_at_what_was_asked_for() {
    let mut stage = Stage::new();
    let index = stage.publish("1.0", &[1]);
    for (path, most) in [
        ("/metadata/timestamp.json".to_owned(), 100 << 10),
        (chunk_path(&index, 0), 2 * CHUNK as u64),
    ] {
        stage.server.trick(&path, Trick::Endless);
        let downloader = stage.downloader("");
        assert!(fetch(&downloader, None).await.is_err(), "{path}");
        assert!(downloader.total() < most, "{path}: {}", downloader.total());
        stage.server.forgive();
    }
    stage.server.trick(&chunk_path(&index, 0), Trick::Redirect);
    let error = fetch(&stage.downloader(""), None).await.unwrap_err();
    assert!(
        error.to_string().contains("redirects are not followed"),
        "{error}"
    );
}

#[tokio::test]
async fn staging_is_bounded() {
    let mut stage = Stage::new();
    stage.publish("1.0", &[1, 2, 3, 4, 5]);
    let error = fetch(&stage.downloader("max_size = \"1MiB\"\n"), None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("max_size"), "{error}");
    assert_eq!(stage.staged(), 0);
}

#[tokio::test]
async fn a_release_that_is_not_signed_or_no_longer_there_is_not_taken() {
    let mut stage = Stage::new();
    let index = stage.publish("1.0", &[1]);
    stage
        .server
        .trick("/metadata/timestamp.json", Trick::Instead(b"{}".to_vec()));
    let error = stage.downloader("").look().await.unwrap_err();
    assert!(error.is_security(), "{error}");
    stage.server.forgive();
    let downloader = stage.downloader("");
    let offer = downloader.look().await.unwrap();
    assert_eq!(Arc::as_ref(&offer.index), &index);
    stage.server.trick(&chunk_path(&index, 0), Trick::Missing);
    let error = fetch(&downloader, None).await.unwrap_err();
    assert!(
        matches!(error, DownloadError::Fetch(FetchError::NotFound(_))),
        "{error}"
    );
}

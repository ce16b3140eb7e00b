//! The identity changes under a live link: a new one is tried beside the old one, and used when the
//! upstream takes it.

use rcgen::CertificateSigningRequestParams;

use super::*;
use crate::{
    config::{KeyPlace, Renew, RenewCommand},
    identity::{Directory, request},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_identity_is_taken_up_without_a_restart_and_nothing_is_lost() {
    let plant = Plant::new();
    let directory = enrolled(&plant, 1);
    let broker = plant.broker(MUTUAL).await;
    let observer = plant.observe(&broker, "gw-1/#").await;
    let link = plant.link(&broker, from_directory);
    wait_until("the first is in use", || in_use(&directory) == Some(1)).await;
    plant.keep(0..300).await;
    enrol(&plant.pki, &directory, 2, 2090);
    plant.keep(300..600).await;
    wait_until("the second is in use", || in_use(&directory) == Some(2)).await;
    plant.keep(600..900).await;
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    observer.has_all(900).await;
    let certificate = link.status().certificate.unwrap();
    assert_eq!(
        (certificate.generation, certificate.trouble),
        (Some(2), None)
    );
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_the_upstream_does_not_take_leaves_the_old_one_in_use() {
    let plant = Plant::new();
    let directory = enrolled(&plant, 1);
    let broker = plant.broker(MUTUAL).await;
    let link = plant.link(&broker, from_directory);
    wait_until("the first is in use", || in_use(&directory) == Some(1)).await;
    // It is noted just before the link counts as connected.
    wait_until("connected", || link.status().is_connected()).await;
    let since = link.status().since;
    enrol(
        &Pki::new(plant.directory.path(), "other"),
        &directory,
        2,
        2090,
    );
    let trouble = || link.status().certificate.and_then(|shown| shown.trouble);
    wait_until("the second is refused", || trouble().is_some()).await;
    plant.keep(0..30).await;
    wait_until("the buffer is empty", || plant.buffer.status().rows == 0).await;
    assert_eq!((link.status().since, in_use(&directory)), (since, Some(1)));
    enrol(&plant.pki, &directory, 3, 2090);
    wait_until("the third is in use", || in_use(&directory) == Some(3)).await;
    wait_until("the trouble is over", || trouble().is_none()).await;
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_was_renewed_while_away_replaces_an_expired_one_at_the_start() {
    let plant = Plant::new();
    let directory = Directory::new(&plant.path("identity"));
    enrol(&plant.pki, &directory, 1, 2020);
    directory.commit(1).unwrap();
    enrol(&plant.pki, &directory, 2, 2090);
    let broker = plant.broker(MUTUAL).await;
    let link = plant.link(&broker, from_directory);
    wait_until("the second is in use", || in_use(&directory) == Some(2)).await;
    wait_until("connected", || link.status().is_connected()).await;
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_the_link_says_what_to_do_and_takes_one_when_it_comes() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let link = plant.link(&broker, from_directory);
    let state = || link.status().state.to_string();
    wait_until("it is told", || state().contains("gateway identity csr")).await;
    let directory = Directory::new(&plant.path("identity"));
    enrol(&plant.pki, &directory, 1, 2090);
    wait_until("connected", || link.status().is_connected()).await;
    wait_until("it is noted", || in_use(&directory) == Some(1)).await;
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_replaced_by_hand_are_used_only_once_the_upstream_takes_them() {
    let plant = Plant::new();
    let mut broker = plant.broker(MUTUAL).await;
    let link = plant.link(&broker, |_| {});
    wait_until("connected", || link.status().is_connected()).await;
    let replace_with = |(certificate, key): (PathBuf, PathBuf)| {
        fs::rename(certificate, &plant.certificate).unwrap();
        fs::rename(key, &plant.key).unwrap();
    };
    let other = Pki::new(plant.directory.path(), "other");
    replace_with(other.issue("stranger"));
    let shown = || link.status().certificate.unwrap();
    wait_until("they are refused", || shown().trouble.is_some()).await;
    broker.stop();
    wait_until("the link is down", || !link.status().is_connected()).await;
    broker.start().await;
    wait_until("the old ones serve again", || link.status().is_connected()).await;
    replace_with(plant.pki.issue_until("renewed", 2080));
    let end = || shown().ends.to_string();
    wait_until("the new ones are in use", || end().starts_with("2080")).await;
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_keeps_failing_is_told_and_tried_until_it_succeeds() {
    let mut plant = Plant::new();
    let directory = Directory::new(&plant.path("identity"));
    // Its time had come before it was first seen.
    enrol(&plant.pki, &directory, 1, 2027);
    let broker = plant.broker(MUTUAL).await;
    let script = plant.path("sign.sh");
    fs::write(&script, "echo closed for today >&2; exit 1").unwrap();
    let program = ["sh".to_owned(), script.display().to_string()];
    let identity = config::Identity {
        renew: Renew::Command,
        renew_at: 10,
        retry: Period::from_millis(10),
        retry_max: Period::from_millis(50),
        command: Some(RenewCommand {
            program: program.to_vec(),
            time_limit: Period::from_secs(60),
        }),
        ..plant.identity()
    };
    let link = plant.link_with(&broker, &identity, from_directory);
    let renewal = || link.status().renewal.unwrap_or_default();
    wait_until("it keeps failing", || renewal().failures >= 3).await;
    assert!(renewal().why.unwrap().contains("closed for today"));
    let alert = plant.next_incoming().await.message;
    assert_eq!(alert.topic.as_str(), "alert/certificate/upstream");
    assert!(alert.retain && String::from_utf8_lossy(&alert.payload).contains("closed for today"));
    wait_until("the link is up all the same", || {
        link.status().is_connected()
    })
    .await;

    let key = plant.path("ca.key");
    fs::write(&key, plant.pki.issuer.key().serialize_pem()).unwrap();
    let sign = format!(
        "openssl x509 -req -copy_extensions copy -days 90 -CA {} -CAkey {} -in \"$1\" -out \"$2\"",
        plant.pki.ca.display(),
        key.display()
    );
    fs::write(&script, sign).unwrap();
    wait_until("the second is in use", || in_use(&directory) == Some(2)).await;
    let over = plant.next_incoming().await.message;
    assert!(over.topic == alert.topic && over.payload.is_empty());
    assert_eq!((renewal().failures, renewal().why), (0, None));
    link.stop().await;
}

fn from_directory(config: &mut Upstream) {
    config.certificate = None;
    config.key = None;
    config.identity = Some(KeyPlace::File);
}

/// A directory with one generation, which nobody has let in yet.
fn enrolled(plant: &Plant, generation: u32) -> Directory {
    let directory = Directory::new(&plant.path("identity"));
    enrol(&plant.pki, &directory, generation, 2090);
    directory
}

fn enrol(pki: &Pki, directory: &Directory, generation: u32, year: i32) {
    directory.make_key(generation).unwrap();
    let key = directory.key(generation).unwrap();
    let asked = request(&*key, "gw-1").unwrap().pem().unwrap();
    let mut asked = CertificateSigningRequestParams::from_pem(&asked).unwrap();
    asked.params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    asked.params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let certificate = asked.signed_by(&pki.issuer).unwrap();
    directory
        .put_certificate(generation, &certificate.pem())
        .unwrap();
}

fn in_use(directory: &Directory) -> Option<u32> {
    directory.inventory().unwrap().current
}

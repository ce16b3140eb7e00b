//! A vendor without anything gets to a published release by the ten commands in the documents, and
//! others read it: python-tuf the metadata, and a reader written from the documents the image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};

use crate::harness::{Scene, gateway, peers, promise};

const TARGET: &str = "press-gateway";
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Runs `gateway` and its arguments in the scene's folder.
fn run(scene: &Scene, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(gateway::binary()?);
    command.current_dir(scene.path("")).args(words);
    Ok(command.env("PIN", "1234").output()?)
}

/// What it prints when it ends with this code.
fn says(scene: &Scene, code: i32, words: &[&str]) -> Result<String> {
    let output = run(scene, words)?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let status = output.status;
    ensure!(status.code() == Some(code), "{words:?} {status}: {said}");
    Ok(said)
}

fn does(scene: &Scene, line: &str) -> Result<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    says(scene, 0, &words)
}

/// The commands of the walk-through, without `gateway`.
fn walk_through() -> Result<Vec<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/releases.md");
    let page = fs::read_to_string(page)?;
    let block = page.split("```sh\n").nth(1).context("no commands")?;
    let block = block
        .split("```")
        .next()
        .context("no end of the commands")?;
    let lines = block
        .lines()
        .filter_map(|line| line.strip_prefix("gateway "));
    Ok(lines.map(str::to_owned).collect())
}

/// Text, zeros, noise and a shorter end.
fn image(scene: &Scene) -> Result<Vec<u8>> {
    let mut image = b"a root file system ".repeat(30_000);
    image.extend(vec![0; 600_000]);
    let mut state = 1u64;
    image.extend((0..300_000).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    }));
    fs::write(scene.path("image"), &image)?;
    Ok(image)
}

/// The ten commands, each done.
fn published(scene: &Scene) -> Result<Vec<u8>> {
    let image = image(scene)?;
    for line in walk_through()? {
        does(scene, &line)?;
    }
    Ok(image)
}

fn verify(scene: &Scene, code: i32, more: &[&str]) -> Result<String> {
    let words = "release verify --repository repository --root root.json --name press-gateway";
    let words: Vec<_> = words.split(' ').chain(more.iter().copied()).collect();
    says(scene, code, &words)
}

/// A stored chunk of the published release.
fn a_chunk(scene: &Scene) -> Result<PathBuf> {
    let entry = fs::read_dir(scene.path("repository/chunks"))?.next();
    Ok(entry.context("no chunk")??.path())
}

#[test]
fn ten_commands_lead_from_nothing_to_a_release_that_others_can_read() {
    promise(|scene| {
        ensure!(
            walk_through()?.len() == 10,
            "the walk-through has ten commands"
        );
        let image = published(scene)?;
        let device =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuf/tests/python_tuf/device.py");
        let state = scene.path("state");
        fs::create_dir(&state)?;
        fs::copy(scene.path("root.json"), state.join("root.json"))?;
        let mut python_tuf = peers::script("release.py")?;
        let program = python_tuf.get_program().to_owned();
        let followed = Command::new(&program)
            .args([&device, &scene.path("repository"), &state])
            .arg(TARGET)
            .output()?;
        ensure!(followed.status.success(), "{followed:?}");
        let index = fs::read(scene.path("release-1.0/release.index"))?;
        ensure!(followed.stdout == index, "python-tuf got another index");
        let opened = python_tuf
            .args([scene.path("release-1.0"), scene.path("keys/fleet.key")])
            .output()?;
        ensure!(
            opened.status.success(),
            "{}",
            String::from_utf8_lossy(&opened.stderr)
        );
        ensure!(
            opened.stdout == image,
            "the documents' reader got another image"
        );
        let told = does(scene, "release inspect release-1.0 --json")?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        ensure!(
            told["image_size"] == image.len() && told["epoch"] == 1,
            "{told}"
        );
        Ok(())
    });
}

#[test]
fn what_a_device_would_refuse_is_refused_at_the_vendors_desk() {
    promise(|scene| {
        published(scene)?;
        let said = verify(scene, 3, &["--hardware", "ti,am335x-bone"])?;
        ensure!(said.contains("not for ti,am335x-bone"), "{said}");
        does(scene, "release keygen --kind file-key --out keys other")?;
        let said = verify(scene, 3, &["--file-key", "keys/other.key"])?;
        ensure!(said.contains("not for the holder"), "{said}");

        let chunk = a_chunk(scene)?;
        let honest = fs::read(&chunk)?;
        let mut altered = honest.clone();
        altered[40] ^= 1;
        fs::write(&chunk, altered)?;
        let said = verify(scene, 3, &[])?;
        ensure!(said.contains("SHA-256 differs"), "{said}");
        fs::remove_file(&chunk)?;
        verify(scene, 4, &[])?;
        fs::write(&chunk, honest)?;

        let again = "release draft targets --repository repository --release release-1.0 --name press-gateway --out unsigned.json";
        does(scene, again)?;
        let words = "release publish --repository repository --targets unsigned.json --release release-1.0 --key keys/online.key";
        let said = says(scene, 3, &words.split(' ').collect::<Vec<_>>())?;
        ensure!(said.contains("devices would not accept"), "{said}");
        verify(scene, 0, &["--file-key", "keys/fleet.key"])?;
        Ok(())
    });
}

#[test]
fn the_same_image_content_key_and_parameters_make_the_same_release() {
    promise(|scene| {
        image(scene)?;
        does(scene, "release keygen --kind file-key --out keys fleet")?;
        let pack = |out: &str, more: &str| {
            does(
                scene,
                &format!(
                    "release pack image --out {out} --product p --version 1 --hardware h --epoch 1 --content-key kept.key{more}"
                ),
            )
        };
        pack("one", " --recipient keys/fleet.key")?;
        pack("two", "")?;
        let same = Command::new("diff")
            .arg("-r")
            .args(["one", "two"].map(|name| scene.path(name)))
            .output()?;
        ensure!(same.status.success(), "{same:?}");
        let said = says(scene, 2, &"release pack image --out three --product p --version 1 --hardware h --epoch 2 --content-key kept.key".split(' ').collect::<Vec<_>>())?;
        ensure!(said.contains("for epoch 1"), "{said}");
        Ok(())
    });
}

#[test]
fn a_root_changes_its_keys_by_the_signatures_of_old_and_new() {
    promise(|scene| {
        published(scene)?;
        does(scene, "release keygen --out keys root-4 approval")?;
        does(
            scene,
            "release draft root --version 2 --root keys/root-2.pub keys/root-3.pub keys/root-4.pub --targets keys/targets.pub --snapshot keys/online.pub --timestamp keys/online.pub --out root-2.json",
        )?;
        // Each on a machine of its own.
        for (key, out) in [("root-1", "a"), ("root-2", "b"), ("root-4", "c")] {
            does(
                scene,
                &format!("release sign root-2.json --key keys/{key}.key --out {out}.json"),
            )?;
        }
        let publish = "release publish --repository repository --root root-2.json --key keys/online.key --root-approval root-2.approval";
        let approve = || -> Result<()> {
            let approval = does(
                scene,
                "tpm approve --key keys/approval.key root root-2.json --version 2",
            )?;
            Ok(fs::write(scene.path("root-2.approval"), approval)?)
        };
        does(scene, "release merge b.json c.json --out root-2.json")?;
        approve()?;
        says(scene, 3, &publish.split(' ').collect::<Vec<_>>())?;
        does(
            scene,
            "release merge a.json b.json c.json --out root-2.json",
        )?;
        // Of the file as it was before the last signature.
        says(scene, 3, &publish.split(' ').collect::<Vec<_>>())?;
        approve()?;
        does(scene, publish)?;
        ensure!(
            scene
                .path("repository/metadata/2.root.approval.json")
                .exists()
        );
        verify(scene, 0, &["--file-key", "keys/fleet.key"])?;
        Ok(())
    });
}

#[test]
fn a_key_in_a_token_signs_without_leaving_it() {
    promise(|scene| {
        let tokens = scene.path("tokens");
        fs::create_dir(&tokens)?;
        scene.write(
            "softhsm.conf",
            &format!("directories.tokendir = {}\n", tokens.display()),
        )?;
        let tool = |program: &str, words: &str| -> Result<()> {
            let output = Command::new(program)
                .env("SOFTHSM2_CONF", scene.path("softhsm.conf"))
                .current_dir(scene.path(""))
                .args(words.split(' '))
                .output()?;
            ensure!(output.status.success(), "{program} {words}: {output:?}");
            Ok(())
        };
        tool(
            "softhsm2-util",
            "--init-token --free --label vendor --so-pin 5678 --pin 1234",
        )?;
        let login = format!("--module {SOFTHSM} --login --pin 1234");
        tool(
            "pkcs11-tool",
            &format!("{login} --keypairgen --key-type EC:prime256v1 --id 01 --label targets"),
        )?;
        tool(
            "pkcs11-tool",
            &format!("{login} --read-object --type pubkey --id 01 --output-file token.der"),
        )?;
        tool(
            "openssl",
            "pkey -pubin -inform DER -in token.der -out token.pub",
        )?;
        does(scene, "release keygen --out keys other")?;
        does(
            scene,
            "release draft root --threshold 1 --root token.pub --targets token.pub --snapshot token.pub --timestamp token.pub --out root.json",
        )?;
        let signer = format!(
            "env SOFTHSM2_CONF={} pkcs11-tool --module {SOFTHSM} --login --pin env:PIN --sign --mechanism ECDSA --id 01 --input-file /dev/stdin",
            scene.path("softhsm.conf").display()
        );
        let said = says(
            scene,
            0,
            &[
                "release",
                "sign",
                "root.json",
                "--public",
                "token.pub",
                "--digest",
                "--signer",
                &signer,
            ],
        )?;
        ensure!(said.contains("signed by"), "{said}");
        let said = says(
            scene,
            1,
            &[
                "release",
                "sign",
                "root.json",
                "--public",
                "keys/other.pub",
                "--digest",
                "--signer",
                &signer,
            ],
        )?;
        ensure!(
            said.contains("no signature of the key in --public"),
            "{said}"
        );
        let approval = says(
            scene,
            0,
            &[
                "tpm",
                "approve",
                "--public",
                "token.pub",
                "--digest",
                "--signer",
                &signer,
                "epoch",
                "1",
            ],
        )?;
        ensure!(approval.contains("\"approves\": \"epoch\""), "{approval}");
        Ok(())
    });
}

/// `cargo xtask sbom`, for a board's binary.
fn components(scene: &Scene) -> Result<PathBuf> {
    let list = scene.path("gateway.cdx.json");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let made = Command::new("cargo")
        .current_dir(top)
        .args(["run", "--quiet", "--package", "xtask", "--", "sbom"])
        .arg(&list)
        .output()?;
    ensure!(made.status.success(), "{made:?}");
    Ok(list)
}

#[test]
fn vulnerable_components_are_named_before_they_ship() {
    promise(|scene| {
        let list = components(scene)?;
        let valid = peers::script("sbom.py")?.arg(&list).output()?;
        ensure!(valid.status.success(), "{valid:?}");
        let again = fs::read(&list)?;
        ensure!(
            fs::read(components(scene)?)? == again,
            "the same lock file makes another list"
        );
        let listed: serde_json::Value = serde_json::from_slice(&again)?;
        let listed = listed["components"].as_array().context("no components")?;
        let version = |name: &str| listed.iter().find(|one| one["name"] == name);
        let ring = version("ring").context("ring is not listed")?["version"].as_str();
        let ring = ring.context("ring has no version")?.to_owned();
        ensure!(
            version("proptest").is_none(),
            "what only tests use is listed"
        );

        image(scene)?;
        does(scene, "release keygen --kind file-key --out keys fleet")?;
        does(
            scene,
            "release pack image --out one --product p --version 1 --hardware h --epoch 1 --recipient keys/fleet.key --sbom gateway.cdx.json",
        )?;
        let advisory = |ranges: &str| {
            let record = format!(
                r#"{{"id":"RUSTSEC-2099-0001","aliases":["CVE-2099-1"],"summary":"wrong","affected":[{{"package":
                {{"ecosystem":"crates.io","name":"ring"}},"ranges":[{{"type":"SEMVER","events":[{ranges}]}}]}}]}}"#
            );
            scene.write("osv.json", &record)
        };
        advisory(r#"{"introduced":"0.0.0-0"},{"fixed":"999.0.0"}"#)?;
        let inspect = ["release", "inspect", "one", "--advisories", "osv.json"];
        let said = says(scene, 1, &inspect)?;
        let expected = format!(
            "ring {ring} is vulnerable: RUSTSEC-2099-0001 = CVE-2099-1, wrong; put right in 999.0.0"
        );
        ensure!(said.contains(&expected), "{said}");
        advisory(&format!(
            r#"{{"introduced":"0.0.0-0"}},{{"fixed":"{ring}"}}"#
        ))?;
        says(scene, 0, &inspect)?;

        let sbom = fs::read_dir(scene.path("one/sbom"))?
            .next()
            .context("no list")??
            .path();
        fs::write(&sbom, "{}")?;
        says(scene, 3, &inspect)?;
        scene.write("other.json", "{}")?;
        let other = "release pack image --out two --product p --version 1 --hardware h --epoch 1 --recipient keys/fleet.key --sbom other.json";
        let said = says(scene, 2, &other.split(' ').collect::<Vec<_>>())?;
        ensure!(said.contains("no list of components"), "{said}");
        Ok(())
    });
}

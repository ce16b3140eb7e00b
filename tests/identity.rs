//! The gateway's identity is made, enrolled and renewed without anybody's help, and changed under a live link: against
//! an EST server made of Python and openssl, an authority that is openssl alone, and Mosquitto.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::harness::{
    Client, Gateway, Identity, Mosquitto, Pki, Plant, Process, Scene, gateway, peers,
    plant::{GATEWAY, upstream},
    promise, until,
};

/// Looks for a new identity are seconds apart.
const LIMIT: Duration = Duration::from_secs(90);
const COUNT: &str = "telemetry/press-3/count";

/// A plant whose link takes its identity from a directory.
pub(crate) fn config(
    scene: &Scene,
    plant: &Plant,
    mosquitto: &Mosquitto<'_>,
    cloud: &Pki,
    how: &str,
) -> String {
    let nobody = Identity {
        certificate: "nowhere".into(),
        key: "nowhere".into(),
    };
    let link: String = upstream(mosquitto.port, cloud, &nobody)
        .lines()
        .filter(|line| !line.starts_with("certificate =") && !line.starts_with("key ="))
        .map(|line| match line {
            "[upstream]" => "[upstream]\nidentity = \"file\"\n".to_owned(),
            line => format!("{line}\n"),
        })
        .collect();
    let identity = format!(
        "\n[identity]\ndirectory = \"{}\"\n{how}",
        scene.path("identity").display()
    );
    [plant.base(scene), link, identity].concat()
}

/// What `gateway identity ACTION` prints.
pub(crate) fn identity(scene: &Scene, action: &[&str]) -> Result<String> {
    let config = scene.path("gateway.toml").display().to_string();
    let arguments = [&["identity"], action, &["--config", &config]].concat();
    let output = gateway::run(&arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "identity {action:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The generation in use.
fn in_use(scene: &Scene) -> Result<Option<u64>> {
    let shown = gateway::ask(scene, &["identity", "show"])?;
    let generations = shown.as_array().context("a list")?;
    let current = fs::read_to_string(scene.path("identity/current"));
    let noted: Option<u64> = current.ok().and_then(|text| text.trim().parse().ok());
    let used = generations.iter().find(|one| one["state"] == "in-use");
    Ok(used
        .and_then(|one| one["number"].as_u64())
        .filter(|number| noted == Some(*number)))
}

fn openssl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("openssl").args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl {arguments:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Has openssl sign a request with the authority's key; the certificate's file.
pub(crate) fn signed(scene: &Scene, authority: &Pki, request: &str) -> Result<String> {
    let request = text(&scene.write("gw.csr", request)?);
    let read = openssl(&["req", "-in", &request, "-verify", "-noout", "-text"])?;
    ensure!(read.contains(&format!("CN = {GATEWAY}")), "{read}");
    ensure!(read.contains("prime256v1"), "{read}");
    let issued = text(&scene.path("gw.pem"));
    let sign = ["x509", "-req", "-copy_extensions", "copy", "-days", "90"];
    let (ca, key) = (text(&authority.ca), text(&authority.authority_key(scene)?));
    let files = ["-in", &request, "-CA", &ca, "-CAkey", &key, "-out", &issued];
    openssl(&[&sign[..], &files].concat())?;
    Ok(issued)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn an_identity_is_enrolled_and_renewed_over_est_under_a_live_link() {
    promise(|scene| renews_over_est(scene, None, |config| Ok(config.to_owned())));
}

/// Enrols, renews, and follows that at the upstream. `tpm` is the directory of the identity's keys in a TPM, which `ready`
/// makes ready for a configuration and adds to it; without, keys are in files.
pub(crate) fn renews_over_est(
    scene: &Scene,
    tpm: Option<&str>,
    mut ready: impl FnMut(&str) -> Result<String>,
) -> Result<()> {
    let first_number = u64::from(tpm.is_none());
    let in_use = || match tpm {
        None => in_use(scene),
        // One process at a time has the simulated TPM, and that is the gateway.
        Some(directory) => Ok(fs::read_to_string(scene.path(directory).join("current"))
            .ok()
            .and_then(|text| text.trim().parse().ok())),
    };
    let cloud = Pki::new(scene, "cloud")?;
    let plant = Plant::new(scene)?;
    let mosquitto = Mosquitto::start(scene, &cloud)?;
    let observer = mosquitto.observer(&cloud)?;
    let est_port = scene.free_port()?;
    let how = over_est(scene, &cloud, est_port)?;
    let config = ready(&config(scene, &plant, &mosquitto, &cloud, &how))?;
    scene.write("gateway.toml", &config)?;
    let mut est = est_server(scene, &cloud, est_port, 20)?;

    identity(scene, &["enrol"])?;
    let first = est
        .events_named("issued")?
        .pop()
        .context("nothing was issued")?;
    ensure!(first["operation"] == "simpleenroll", "{first}");
    // The server goes before the certificate, which began long ago, can be renewed.
    est.kill()?;
    let _gateway = Gateway::start(scene, &config, plant.port)?;
    let mut press = Client::new("press-3", plant.port).start(scene)?;
    press.event("connected", |_| true)?;
    press.publish(COUNT, "1")?;
    observer.message(&format!("{GATEWAY}/{COUNT}"), |payload| payload == "1")?;
    until("the failing renewal is told", LIMIT, || {
        let status = gateway::ask(scene, &["status"])?;
        let renewal = &status["upstream"]["renewal"];
        Ok((renewal["failures"].as_u64() >= Some(3)).then_some(()))
    })?;
    ensure!(in_use()? == Some(first_number), "the first is in use");

    let est = est_server(scene, &cloud, est_port, 20)?;
    until("the second identity is in use", LIMIT, || {
        Ok((in_use()? == Some(first_number + 1)).then_some(()))
    })?;
    press.publish(COUNT, "2")?;
    observer.message(&format!("{GATEWAY}/{COUNT}"), |payload| payload == "2")?;
    ensure!(est.events_named("later")?.len() == 1, "it was put off once");
    let renewed = est
        .events_named("issued")?
        .pop()
        .context("nothing was renewed")?;
    ensure!(renewed["operation"] == "simplereenroll", "{renewed}");
    ensure!(renewed["client"] == GATEWAY, "{renewed}");
    ensure!(
        renewed["key"] != first["key"],
        "a new key for a new certificate"
    );
    until("the renewal is told", LIMIT, || {
        let status = gateway::ask(scene, &["status"])?;
        let upstream = &status["upstream"];
        let is_told = upstream["renewal"]["failures"] == 0
            && upstream["certificate"]["generation"] == first_number + 1
            && upstream["certificate"]["days_left"].as_i64() >= Some(88);
        Ok(is_told.then_some(()))
    })?;
    Ok(())
}

#[test]
fn an_identity_is_enrolled_by_hand_with_openssl_as_the_authority_and_renewed_by_a_program() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let authority = [text(&cloud.ca), text(&cloud.authority_key(scene)?)];
        let script = scene.write(
            "sign.sh",
            "openssl x509 -req -copy_extensions copy -days 30 -CA \"$1\" -CAkey \"$2\" -in \"$3\" -out \"$4\"\n",
        )?;
        let how = format!(
            "renew = \"command\"\n[identity.command]\nprogram = [\"sh\", {:?}, {:?}, {:?}]\n",
            text(&script),
            authority[0],
            authority[1],
        );
        let config = config(scene, &plant, &mosquitto, &cloud, &how);
        scene.write("gateway.toml", &config)?;

        identity(scene, &["init"])?;
        let key = fs::read(scene.path("identity/1.key"))?;
        ensure!(
            identity(scene, &["init"])?.contains("there is one already"),
            "init is said twice"
        );
        ensure!(
            fs::read(scene.path("identity/1.key"))? == key,
            "the key was overwritten"
        );
        let issued = signed(scene, &cloud, &identity(scene, &["csr"])?)?;
        identity(scene, &["enrol", "--certificate", &issued])?;

        let mut gateway = Gateway::start(scene, &config, plant.port)?;
        let mut press = Client::new("press-3", plant.port).start(scene)?;
        press.event("connected", |_| true)?;
        press.publish(COUNT, "1")?;
        observer.message(&format!("{GATEWAY}/{COUNT}"), |payload| payload == "1")?;
        until("the first identity is in use", LIMIT, || {
            Ok((in_use(scene)? == Some(1)).then_some(()))
        })?;

        identity(scene, &["renew"])?;
        until("the second identity is in use", LIMIT, || {
            Ok((in_use(scene)? == Some(2)).then_some(()))
        })?;
        press.publish(COUNT, "2")?;
        observer.message(&format!("{GATEWAY}/{COUNT}"), |payload| payload == "2")?;

        gateway.stop()?;
        gateway.restart()?;
        let mut press = Client::new("press-4", plant.port).start(scene)?;
        press.event("connected", |_| true)?;
        press.publish(COUNT, "3")?;
        observer.message(&format!("{GATEWAY}/{COUNT}"), |payload| payload == "3")?;
        until("the second is in use after a restart", LIMIT, || {
            let status = gateway::ask(scene, &["status"])?;
            Ok((status["upstream"]["certificate"]["generation"] == 2).then_some(()))
        })
    });
}

#[test]
fn a_certificate_that_could_not_be_renewed_in_time_costs_the_link_alone_until_it_can() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let est_port = scene.free_port()?;
        let how = over_est(scene, &cloud, est_port)?;
        let config = config(scene, &plant, &mosquitto, &cloud, &how);
        scene.write("gateway.toml", &config)?;
        let mut est = est_server(scene, &cloud, est_port, -1)?;
        identity(scene, &["enrol"])?;
        est.kill()?;

        let mut gateway = Gateway::start(scene, &config, plant.port)?;
        let watcher = Client::new("watcher", plant.port)
            .start(scene)?
            .subscribed(&["telemetry/#"])?;
        let mut press = Client::new("press-3", plant.port).start(scene)?;
        press.event("connected", |_| true)?;
        press.publish(COUNT, "1")?;
        watcher.message(COUNT, |payload| payload == "1")?;
        until("the link is refused and the renewal fails", LIMIT, || {
            let status = gateway::ask(scene, &["status"])?;
            let upstream = &status["upstream"];
            let is_told = upstream["connected"] == false
                && upstream["renewal"]["failures"].as_u64() >= Some(3);
            Ok(is_told.then_some(()))
        })?;
        press.publish(COUNT, "2")?;
        watcher.message(COUNT, |payload| payload == "2")?;
        ensure!(
            gateway.process.is_running()?,
            "the gateway went with its link"
        );

        let _est = est_server(scene, &cloud, est_port, 20)?;
        for number in ["1", "2"] {
            observer.message(&format!("{GATEWAY}/{COUNT}"), |payload| payload == number)?;
        }
        Ok(())
    });
}

/// The table of an identity that an EST server renews.
fn over_est(scene: &Scene, cloud: &Pki, port: u16) -> Result<String> {
    Ok(format!(
        "renew = \"est\"\nretry = \"1s\"\nretry_max = \"1s\"\n[identity.est]\n\
         url = \"https://localhost:{port}\"\nca = \"{}\"\nuser = \"factory\"\n\
         password = {{ file = \"{}\" }}\n",
        cloud.ca.display(),
        scene.write_secret("est.secret", "first light")?.display(),
    ))
}

/// First certificates end so many days from now.
fn est_server(scene: &Scene, cloud: &Pki, port: u16, first_ends: i32) -> Result<Process> {
    // Not the files of the broker, which may still be reading them.
    let server = cloud.server_named(scene, &["est", "localhost"])?;
    let mut command = peers::script("est_server.py")?;
    command.arg("--ca").arg(&cloud.ca);
    command.arg("--ca-key").arg(cloud.authority_key(scene)?);
    command.arg("--certificate").arg(&server.certificate);
    command.arg("--key").arg(&server.key);
    command.args(["--user", "factory", "--password", "first light"]);
    command.args(["--port", &port.to_string(), "--later", "1"]);
    command.args(["--first-ends", &first_ends.to_string()]);
    let name = format!("est-{}", scene.free_port()?);
    peers::ready(Process::start("est", &scene.log_path(&name), command)?)
}

//! The TPM guards what the device is and may become, and its loss costs the plant nothing.

use std::{os::unix::net::UnixStream, process::Command};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{
    harness::{
        Client, Gateway, Mosquitto, PATIENCE, Pki, Plant, Process, Scene, gateway, plant::GATEWAY,
        promise, until,
    },
    identity,
};

const COUNT: &str = "telemetry/press-3/count";

/// A TPM in software, and a vendor's key with the first approvals.
pub(crate) struct Tpm<'a> {
    scene: &'a Scene,
    pub(crate) process: Process,
}

impl<'a> Tpm<'a> {
    pub(crate) fn start(scene: &'a Scene) -> Result<Tpm<'a>> {
        std::fs::create_dir_all(scene.path("tpm-state"))?;
        let mut command = Command::new("swtpm");
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init", "--tpmstate"])
            .arg(format!("dir={}", scene.path("tpm-state").display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket(scene)));
        let _ = std::fs::remove_file(socket(scene));
        let process = Process::start("swtpm", &scene.log_path("swtpm"), command)?;
        until("swtpm listens", PATIENCE, || {
            Ok(UnixStream::connect(socket(scene)).ok())
        })?;
        Ok(Tpm { scene, process })
    }

    /// What `gateway tpm ARGUMENTS` prints, with the configuration file; it must end with that code.
    pub(crate) fn gateway(&self, arguments: &[&str], code: i32) -> Result<String> {
        let config = self.scene.path("gateway.toml").display().to_string();
        let arguments = [&["tpm"], arguments, &["--config", &config]].concat();
        let output = gateway::run(&arguments)?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {:?} {said}",
            output.status
        );
        Ok(said)
    }
}

fn socket(scene: &Scene) -> String {
    scene.path("tpm.sock").display().to_string()
}

fn table(scene: &Scene) -> String {
    let key = scene.path("approval.pem");
    bare_table(scene) + &format!("approval_key = \"{}\"\n", key.display())
}

/// The same without a vendor's key: for keys alone.
pub(crate) fn bare_table(scene: &Scene) -> String {
    format!(
        "\n[tpm]\ndevice = \"unix:{}\"\ndirectory = \"{}\"\n",
        socket(scene),
        scene.path("tpm-files").display()
    )
}

/// Makes the vendor's key with OpenSSL and approves root 1 and floor 0 with the product's own command.
fn approve(scene: &Scene) -> Result<()> {
    let key = scene.path("approval.key").display().to_string();
    let public = scene.path("approval.pem").display().to_string();
    let make = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        &key,
    ];
    for arguments in [
        &make[..],
        &["pkey", "-in", &key, "-pubout", "-out", &public],
    ] {
        let output = Command::new("openssl").args(arguments).output()?;
        ensure!(output.status.success(), "openssl {arguments:?}: {output:?}");
    }
    let root = scene.write("1.root.json", "{}")?.display().to_string();
    for (name, what) in [
        ("root", &["root", &root, "--version", "1"][..]),
        ("floor", &["floor", "0"]),
    ] {
        let output = gateway::run(&[&["tpm", "approve", "--key", &key], what].concat())?;
        ensure!(output.status.success(), "approve {name}: {output:?}");
        scene.write(
            &format!("{name}.approval"),
            &String::from_utf8(output.stdout)?,
        )?;
    }
    Ok(())
}

fn provision(tpm: &Tpm<'_>, how: &str) -> Result<String> {
    let root = tpm.scene.path("root.approval").display().to_string();
    let floor = tpm.scene.path("floor.approval").display().to_string();
    tpm.gateway(&["provision", "--root", &root, "--floor", &floor, how], 0)
}

fn awaits_tpm(scene: &Scene, state: &str) -> Result<()> {
    until(
        &format!("the status says that the TPM is {state}"),
        PATIENCE,
        || Ok((gateway::ask(scene, &["status"])?["tpm"]["state"] == state).then_some(())),
    )
}

#[test]
fn a_tpm_is_provisioned_once_and_says_what_stands_there() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        approve(scene)?;
        scene.write("gateway.toml", &(plant.config(scene) + &table(scene)))?;
        let tpm = Tpm::start(scene)?;
        let announced = provision(&tpm, "--dry-run")?;
        ensure!(announced.matches("to do").count() == 14, "{announced}");
        ensure!(
            !scene.path("tpm-files").exists(),
            "a dry run has written files"
        );
        ensure!(provision(&tpm, "--yes")?.ends_with("the TPM is provisioned\n"));
        let again = provision(&tpm, "--yes")?;
        ensure!(
            again.matches("done ").count() == 14 && !again.contains("to do"),
            "{again}"
        );
        let said = tpm.gateway(&["status"], 0)?;
        ensure!(
            said.contains("trusted root: version 1, SHA-256 44136fa3"),
            "{said}"
        );
        ensure!(said.ends_with("all is well\n"), "{said}");
        let report: Value = serde_json::from_str(&tpm.gateway(&["status", "--json"], 0)?)?;
        ensure!(report["anchors"]["security_floor"] == 0, "{report}");
        Ok(())
    });
}

#[test]
fn a_required_tpm_that_is_not_provisioned_or_away_keeps_the_service_from_starting() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let config = plant.config(scene) + &table(scene) + "require_tpm = true\n";
        approve(scene)?;
        let path = scene.write("gateway.toml", &config)?.display().to_string();
        for (given, why) in [(false, "require_tpm is set"), (true, "is not provisioned")] {
            let _tpm = given.then(|| Tpm::start(scene)).transpose()?;
            let (code, said) = gateway::refusal(scene, &["run", "--config", &path])?;
            ensure!(code == Some(1) && said.contains(why), "{code:?} {said}");
        }
        Ok(())
    });
}

#[test]
fn a_tpm_lost_while_the_plant_runs_is_said_and_found_again_and_the_plant_goes_on() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        approve(scene)?;
        let config = plant.config(scene) + &table(scene);
        scene.write("gateway.toml", &config)?;
        let mut tpm = Tpm::start(scene)?;
        provision(&tpm, "--yes")?;
        let mut gateway = Gateway::start(scene, &config, plant.port)?;
        awaits_tpm(scene, "ready")?;
        tpm.process.kill()?;
        awaits_tpm(scene, "away")?;
        ensure!(
            gateway.process.is_running()?,
            "the gateway ended with its TPM"
        );
        let _back = Tpm::start(scene)?;
        awaits_tpm(scene, "ready")
    });
}

#[test]
fn the_link_signs_with_the_tpm_waits_while_it_is_away_and_leaves_the_plant_alone() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mut mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        approve(scene)?;
        let config = identity::config(scene, &plant, &mosquitto, &cloud, "")
            .replace("identity = \"file\"", "identity = \"tpm\"")
            + &table(scene);
        scene.write("gateway.toml", &config)?;
        let mut tpm = Tpm::start(scene)?;
        provision(&tpm, "--yes")?;
        enrol(scene, &cloud)?;

        tpm.process.kill()?;
        let _gateway = Gateway::start(scene, &config, plant.port)?;
        link_says(scene, "key in the TPM cannot be used")?;
        let watcher = Client::new("watcher", plant.port)
            .start(scene)?
            .subscribed(&["telemetry/#"])?;
        let mut press = Client::new("press-3", plant.port).start(scene)?;
        press.event("connected", |_| true)?;
        press.publish(COUNT, "1")?;
        watcher.message(COUNT, |payload| payload == "1")?;
        let mut tpm = Tpm::start(scene)?;
        observer.message(&format!("{GATEWAY}/{COUNT}"), |payload| payload == "1")?;
        until("the status says where the key is", PATIENCE, || {
            let status = gateway::ask(scene, &["status"])?;
            Ok((status["upstream"]["certificate"]["key"] == "tpm").then_some(()))
        })?;

        tpm.process.kill()?;
        awaits_tpm(scene, "away")?;
        // A broker that begins anew resumes no session, so that a signature is needed.
        mosquitto.stop()?;
        mosquitto.restart()?;
        link_says(scene, "the device's key does not sign: the TPM is away")?;
        press.publish(COUNT, "2")?;
        watcher.message(COUNT, |payload| payload == "2")?;
        let _back = Tpm::start(scene)?;
        observer.message(&format!("{GATEWAY}/{COUNT}"), |payload| payload == "2")?;
        Ok(())
    });
}

#[test]
fn an_identity_in_the_tpm_is_renewed_with_a_new_key_of_the_tpm_under_a_live_link() {
    promise(|scene| {
        approve(scene)?;
        let tpm = Tpm::start(scene)?;
        identity::renews_over_est(scene, Some("identity/tpm"), |config| {
            let config = config.replace("identity = \"file\"", "identity = \"tpm\"");
            let config = config + &table(scene);
            scene.write("gateway.toml", &config)?;
            provision(&tpm, "--yes")?;
            Ok(config)
        })?;
        let made = std::fs::read_to_string(scene.path("identity/tpm/1.key"))?;
        ensure!(
            made.contains("\"private\"") && !made.contains("PRIVATE KEY"),
            "a key that the TPM did not make: {made}"
        );
        Ok(())
    });
}

/// Gets the certificate of the TPM's key; another one's is not taken, and nothing else is written.
fn enrol(scene: &Scene, cloud: &Pki) -> Result<()> {
    let config = scene.path("gateway.toml").display().to_string();
    let foreign = cloud.client(scene, GATEWAY)?.certificate;
    let foreign = foreign.display().to_string();
    for (action, code, why) in [
        (
            &["enrol", "--certificate", &foreign][..],
            1,
            "does not belong to key 0",
        ),
        (&["renew"], 2, "[identity] renew is off"),
    ] {
        let arguments = [&["identity"], action, &["--config", &config]].concat();
        let (ended, said) = gateway::refusal(scene, &arguments)?;
        ensure!(
            ended == Some(code) && said.contains(why),
            "{action:?}: {ended:?} {said}"
        );
    }
    let evidence = scene.path("evidence.json").display().to_string();
    let request = identity::identity(scene, &["csr", "--attest", &evidence])?;
    let own = scene.write("own.csr", &request)?.display().to_string();
    let other = identity::identity(scene, &["csr"])?;
    let other = scene.write("other.csr", &other)?.display().to_string();
    for (request, code) in [(own, 0), (other, 3)] {
        let arguments = [
            "identity",
            "check-evidence",
            &evidence,
            "--request",
            &request,
        ];
        let output = gateway::run(&arguments)?;
        ensure!(output.status.code() == Some(code), "{output:?}");
    }
    let issued = identity::signed(scene, cloud, &request)?;
    identity::identity(scene, &["enrol", "--certificate", &issued])?;
    let written: Vec<_> = std::fs::read_dir(scene.path("identity/tpm"))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    ensure!(written == ["0.pem"], "{written:?}");
    let shown = gateway::ask(scene, &["identity", "show"])?;
    let is_shown = shown[0]["state"] == "in-use" && shown[0]["trouble"].is_null();
    ensure!(is_shown, "{shown}");
    let checked = gateway::run(&["check", "--config", &config])?;
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(
        checked.contains("the upstream link signs with the TPM's key")
            && !checked.contains("error"),
        "{checked}"
    );
    Ok(())
}

fn link_says(scene: &Scene, why: &str) -> Result<()> {
    until(&format!("the link says {why:?}"), PATIENCE, || {
        let status = gateway::ask(scene, &["status"])?;
        let state = status["upstream"]["state"].as_str();
        Ok(state.is_some_and(|state| state.contains(why)).then_some(()))
    })
}

//! Local clients: each gets what it needs in one command, its own topics alone, and is out at once
//! when it is revoked, whatever happens to the gateway meanwhile.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    harness::{Client, Gateway, Identity, PATIENCE, Scene, gateway, promise, until},
    trust::{self, Tpm},
};

/// MQTT 5 reason code "Not authorized" [MQTT-3.4.2, 3.9.3].
const NOT_AUTHORIZED: u64 = 0x87;

/// A gateway without devices that serves with its own authority, and with passwords.
struct Site<'a> {
    scene: &'a Scene,
    tls: u16,
    plain: u16,
}

impl<'a> Site<'a> {
    fn new(scene: &'a Scene) -> Result<Site<'a>> {
        Ok(Site {
            scene,
            tls: scene.free_port()?,
            plain: scene.free_port()?,
        })
    }

    fn config(&self, clients: &str) -> String {
        format!(
            r#"
[gateway]
id = "plant-7"
control = "{control}"
[buffer]
path = "{buffer}"
[clients]
directory = "{directory}"
{clients}
[[broker.listener]]
address = "127.0.0.1:{tls}"
tls = {{ certificate = "own", key = "own", client_ca = "own" }}
[[broker.listener]]
address = "127.0.0.1:{plain}"
anonymous = false
"#,
            control = self.scene.path("control.sock").display(),
            buffer = self.scene.path("buffer.db").display(),
            directory = self.scene.path("clients").display(),
            tls = self.tls,
            plain = self.plain,
        )
    }

    fn start(&self, clients: &str) -> Result<Gateway<'a>> {
        Gateway::start(self.scene, &self.config(clients), self.plain)
    }

    /// `gateway client ARGUMENTS`, which must end with that code; what it said.
    fn run(&self, arguments: &[&str], code: i32) -> Result<String> {
        let config = self.scene.path("gateway.toml").display().to_string();
        let output = gateway::run(&[&["client"], arguments, &["--config", &config]].concat())?;
        let said = text(&output);
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {:?} {said}",
            output.status
        );
        Ok(said)
    }

    /// Adds a client or gives it another certificate, whose files are in the scene.
    fn issue(&self, verb: &str, name: &str, more: &[&str]) -> Result<String> {
        let out = self.scene.path("").display().to_string();
        self.run(&[&[verb, name, "--out", &out], more].concat(), 0)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scene.path(name)
    }

    fn shown(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    fn identity(&self, name: &str) -> Identity {
        Identity {
            certificate: self.file(&format!("{name}.pem")),
            key: self.file(&format!("{name}.key")),
        }
    }

    /// A copy of it, before it is replaced.
    fn kept(&self, name: &str) -> Result<Identity> {
        let kept = Identity {
            certificate: self.file("kept.pem"),
            key: self.file("kept.key"),
        };
        let Identity { certificate, key } = self.identity(name);
        std::fs::copy(certificate, &kept.certificate)?;
        std::fs::copy(key, &kept.key)?;
        Ok(kept)
    }

    fn client(&self, name: &str, identity: &Identity) -> Result<Client> {
        let ca = self.scene.path("clients/ca.pem");
        Client::new(name, self.tls)
            .over_tls(&ca, identity)
            .start(self.scene)
    }

    /// Whether mosquitto_pub is let in with this identity.
    fn is_let_in(&self, identity: &Identity, name: &str) -> Result<bool> {
        let port = self.tls.to_string();
        let output = Command::new("mosquitto_pub")
            .args([
                "-V",
                "5",
                "-q",
                "1",
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-m",
                "1",
            ])
            .args(["-t", &format!("telemetry/{name}/x"), "--cafile"])
            .arg(self.scene.path("clients/ca.pem"))
            .arg("--cert")
            .arg(&identity.certificate)
            .arg("--key")
            .arg(&identity.key)
            .output()?;
        Ok(output.status.success() && text(&output).is_empty())
    }
}

#[test]
fn an_added_client_publishes_with_the_line_that_was_printed_and_on_its_own_topics_alone() {
    promise(|scene| {
        let site = Site::new(scene)?;
        scene.write("gateway.toml", &site.config(""))?;
        let before = site.issue("add", "press-2", &[])?;
        ensure!(before.contains("the service does not run"), "{before}");
        let _gateway = site.start("")?;
        let said = site.issue("add", "press-3", &[])?;
        for said in [&before, &said] {
            let line = said.lines().find(|line| line.contains("mosquitto_pub"));
            let line = line.with_context(|| format!("no line to try: {said}"))?;
            let tried = Command::new("sh")
                .args(["-c", &format!("{line} -q 1 -V 5")])
                .output()?;
            ensure!(
                tried.status.success() && tried.stderr.is_empty(),
                "{line}: {tried:?}"
            );
        }
        let mut press = site.client("three", &site.identity("press-3"))?;
        press.event("connected", |_| true)?;
        ensure!(press.publish("telemetry/press-3/count", "1")? < 0x80);
        ensure!(press.publish("telemetry/press-2/count", "1")? == NOT_AUTHORIZED);
        ensure!(press.publish("client/press-2/renew", "1")? == NOT_AUTHORIZED);
        ensure!(press.subscribe("command/press-3/#")? < 0x80);
        ensure!(press.subscribe("response/press-2/#")? == NOT_AUTHORIZED);

        let ca = site.shown("press-3.ca.pem");
        let certificate = site.shown("press-3.pem");
        openssl(&format!(
            "verify -purpose sslclient -CAfile {ca} {certificate}"
        ))?;
        let as_server = openssl(&format!(
            "verify -purpose sslserver -CAfile {ca} {certificate}"
        ));
        ensure!(as_server.is_err(), "a client's certificate would serve");
        let out = scene.path("clients").display().to_string();
        let twice = site.run(&["add", "press-3", "--out", &out], 2)?;
        ensure!(
            twice.contains("there is a client press-3 already"),
            "{twice}"
        );
        Ok(())
    });
}

#[test]
fn a_revoked_client_is_out_at_once_and_stays_out_when_the_gateway_is_killed() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let mut gateway = site.start("")?;
        for name in ["press-3", "press-4"] {
            site.issue("add", name, &[])?;
        }
        let press = site.client("three", &site.identity("press-3"))?;
        let mut bystander = site.client("four", &site.identity("press-4"))?;
        for client in [&press, &bystander] {
            client.event("connected", |_| true)?;
        }
        let said = site.run(&["revoke", "press-3"], 0)?;
        ensure!(said.contains("1 session ended"), "{said}");
        press.event("disconnected", |_| true)?;
        ensure!(!site.is_let_in(&site.identity("press-3"), "press-3")?);
        gateway.says(&["certificate-revoked"])?;
        gateway.says(&["client-revoked", "press-3"])?;
        ensure!(bystander.publish("telemetry/press-4/count", "1")? < 0x80);
        let gone = bystander.process()?.events_named("disconnected")?;
        ensure!(gone.is_empty(), "another client was sent away: {gone:?}");

        gateway.process.kill()?;
        gateway.restart()?;
        ensure!(!site.is_let_in(&site.identity("press-3"), "press-3")?);
        ensure!(site.is_let_in(&site.identity("press-4"), "press-4")?);
        let (list, ca) = (site.shown("clients/crl.pem"), site.shown("clients/ca.pem"));
        let shown = openssl(&format!("crl -in {list} -CAfile {ca} -noout -text"))?;
        ensure!(shown.matches("Serial Number").count() == 1, "{shown}");
        Ok(())
    });
}

#[test]
fn a_rotated_client_keeps_its_old_certificate_until_it_ends_or_is_revoked() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let _gateway = site.start("")?;
        site.issue("add", "press-3", &[])?;
        let first = site.kept("press-3")?;
        let session = site.client("three", &first)?;
        session.event("connected", |_| true)?;
        site.issue("rotate", "press-3", &[])?;
        let second = site.identity("press-3");
        ensure!(site.is_let_in(&first, "press-3")? && site.is_let_in(&second, "press-3")?);
        site.issue("rotate", "press-3", &["--revoke-old"])?;
        session.event("disconnected", |_| true)?;
        ensure!(!site.is_let_in(&first, "press-3")?);
        ensure!(site.is_let_in(&site.identity("press-3"), "press-3")?);
        Ok(())
    });
}

#[test]
fn a_client_with_a_password_is_let_in_by_it_and_out_when_it_changes_or_is_revoked() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let _gateway = site.start("")?;
        let added: Value =
            serde_json::from_str(&site.issue("add", "panel", &["--password", "--json"])?)?;
        let password = added["password"].as_str().context("no password")?;
        let login = |name: &str, password: &str| {
            Client::new(name, site.plain)
                .with("--username", "panel")
                .with("--password", password)
                .start(scene)
        };
        let mut panel = login("panel", password)?;
        panel.event("connected", |_| true)?;
        ensure!(panel.publish("telemetry/panel/x", "1")? < 0x80);
        ensure!(panel.publish("client/panel/renew", "1")? == NOT_AUTHORIZED);
        login("guesser", "battery staple")?.event("refused", |_| true)?;
        let given = scene.write_secret("password", "correct horse\n")?;
        let given = given.display().to_string();
        site.issue("rotate", "panel", &["--password-file", &given])?;
        panel.event("disconnected", |_| true)?;
        let panel = login("again", "correct horse")?;
        panel.event("connected", |_| true)?;
        site.run(&["revoke", "panel"], 0)?;
        panel.event("disconnected", |_| true)?;
        let files = std::fs::read_dir(scene.path("clients"))?;
        for file in files {
            let text = std::fs::read_to_string(file?.path())?;
            ensure!(!text.contains("correct horse"), "a password is on disk");
        }
        Ok(())
    });
}

#[test]
fn a_request_of_the_clients_own_is_signed_for_its_name_alone() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let _gateway = site.start("")?;
        let (key, request) = (site.shown("press-3.key"), site.shown("press-3.csr"));
        openssl(&format!(
            "req -new -newkey rsa:2048 -nodes -subj /CN=press-3 -addext extendedKeyUsage=serverAuth \
             -keyout {key} -out {request}"
        ))?;
        let refused = site.run(&["add", "press-4", "--csr", &request], 3)?;
        ensure!(
            refused.contains("names \"press-3\", not press-4"),
            "{refused}"
        );
        site.issue("add", "press-3", &["--csr", &request])?;
        ensure!(site.is_let_in(&site.identity("press-3"), "press-3")?);
        let shown = openssl(&format!(
            "x509 -in {} -noout -text",
            site.shown("press-3.pem")
        ))?;
        ensure!(!shown.contains("TLS Web Server Authentication"), "{shown}");
        Ok(())
    });
}

#[test]
fn a_client_renews_over_the_broker_and_nobody_does_for_another() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let gateway = site.start("renewals_per_hour = 3")?;
        for name in ["press-3", "press-4"] {
            site.issue("add", name, &[])?;
        }
        let renew = |days: &str| -> Result<Output> {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/renew-client.sh");
            let output = Command::new("sh")
                .arg(script)
                .args(["127.0.0.1", &site.tls.to_string(), "press-3"])
                .arg(scene.path(""))
                .arg(days)
                .output()?;
            Ok(output)
        };
        let serial = || {
            openssl(&format!(
                "x509 -in {} -noout -serial",
                site.shown("press-3.pem")
            ))
        };
        let first = serial()?;
        let early = renew("10")?;
        ensure!(early.status.success() && serial()? == first, "{early:?}");
        let renewed = renew("90")?;
        ensure!(
            renewed.status.success() && serial()? != first,
            "{renewed:?}"
        );
        ensure!(site.is_let_in(&site.identity("press-3"), "press-3")?);
        gateway.says(&["client-renewed", "press-3"])?;

        // With a key of another, whose name the request bears.
        let (key, request) = (site.file("new.key"), site.file("new.csr"));
        openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=press-3 \
             -keyout {} -out {}",
            key.display(),
            request.display()
        ))?;
        let request = std::fs::read_to_string(request)?;
        let mut other = site
            .client("four", &site.identity("press-4"))?
            .subscribed(&["response/press-4/#"])?;
        ensure!(other.publish("client/press-3/renew", &request)? == NOT_AUTHORIZED);
        ensure!(other.publish("client/press-4/renew", &request)? < 0x80);
        other.message("response/press-4/renew", |answer| {
            answer.contains("refused") && answer.contains("not press-4")
        })?;
        // With a new key of its own; then too often.
        let mut own = site
            .client("three", &site.identity("press-3"))?
            .subscribed(&["response/press-3/#"])?;
        ensure!(own.publish("client/press-3/renew", &request)? < 0x80);
        let answer = own.message("response/press-3/renew", |answer| answer.contains("issued"))?;
        let answer: Value = serde_json::from_str(&answer)?;
        let certificate = answer["certificate"].as_str().context("no certificate")?;
        let newest = Identity {
            certificate: scene.write("newest.pem", certificate)?,
            key,
        };
        ensure!(site.is_let_in(&newest, "press-3")?);
        own.publish("client/press-3/renew", "no request")?;
        own.message("response/press-3/renew", |answer| {
            answer.contains("PKCS#10")
        })?;
        own.publish("client/press-3/renew", &format!("{request}\n"))?;
        own.message("response/press-3/renew", |answer| {
            answer.contains("renewals_per_hour")
        })?;
        site.run(&["revoke", "press-3"], 0)?;
        own.event("disconnected", |_| true)?;
        for identity in [&newest, &site.identity("press-3")] {
            ensure!(!site.is_let_in(identity, "press-3")?);
        }
        Ok(())
    });
}

#[test]
fn a_certificate_that_ends_takes_its_session_with_it_and_renews_no_more() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let _gateway = site.start("certificate_life = \"6s\"")?;
        site.issue("add", "press-3", &[])?;
        let press = site.client("three", &site.identity("press-3"))?;
        press.event("connected", |_| true)?;
        press.event("disconnected", |_| true)?;
        ensure!(!site.is_let_in(&site.identity("press-3"), "press-3")?);
        let status = gateway::ask(scene, &["status"])?;
        let shown = &status["clients"]["clients"][0];
        ensure!(
            shown["certificates"] == 0 && shown["ends_soon"] == true,
            "{status}"
        );
        Ok(())
    });
}

#[test]
fn the_authoritys_key_is_the_tpms_and_a_client_is_revoked_without_it() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let mut tpm = Tpm::start(scene)?;
        let table = trust::bare_table(scene);
        scene.write("gateway.toml", &(site.config("") + &table))?;
        tpm.gateway(&["provision", "--yes"], 0)?;
        let config = site.config("") + &table;
        let gateway = Gateway::start(scene, &config, site.plain)?;
        for name in ["press-3", "press-4"] {
            site.issue("add", name, &[])?;
        }
        ensure!(site.file("clients/ca-1.tpm").exists());
        ensure!(!site.file("clients/ca-1.key").exists(), "the key is a file");
        ensure!(site.is_let_in(&site.identity("press-4"), "press-4")?);
        let press = site.client("three", &site.identity("press-3"))?;
        press.event("connected", |_| true)?;

        tpm.process.kill()?;
        let said = site.run(&["revoke", "press-3"], 0)?;
        ensure!(said.contains("NOT signed"), "{said}");
        press.event("disconnected", |_| true)?;
        ensure!(site.is_let_in(&site.identity("press-4"), "press-4")?);
        let _back = Tpm::start(scene)?;
        until("the list is signed once the TPM is back", PATIENCE, || {
            gateway.reload(&config)?;
            let listed = gateway::ask(scene, &["client", "list"])?;
            Ok((listed["list_is_due"] == false).then_some(()))
        })?;
        ensure!(!site.is_let_in(&site.identity("press-3"), "press-3")?);
        Ok(())
    });
}

/// `openssl` with the words of `line`; what it said.
fn openssl(line: &str) -> Result<String> {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .output()?;
    ensure!(output.status.success(), "openssl {line}: {}", text(&output));
    Ok(text(&output))
}

fn text(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&said).into_owned()
}

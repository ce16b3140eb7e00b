//! Wires to devices: Modbus/TCP Security against pymodbus' TLS server.

use anyhow::{Result, ensure};

use crate::harness::{
    Gateway, Identity, Ledger, PATIENCE, Pki, Plant, Scene, messages, plant::GATEWAY, promise,
    subscriber, until, vault,
};

const LEVEL: &str = "telemetry/vault-1/level";

fn secure_bus(port: u16, ca: &Pki, ours: &Identity) -> String {
    format!(
        r#"
[[bus]]
name = "vault"
tcp = "127.0.0.1:{port}"
tls = {{ ca = "{ca}", certificate = "{certificate}", key = "{key}" }}

[[device]]
name = "vault-1"
bus = "vault"
unit = 1
interval = "200ms"
point = [{{ name = "level", register = "input:0", type = "i32", order = "CDAB" }}]
"#,
        ca = ca.ca.display(),
        certificate = ours.certificate.display(),
        key = ours.key.display(),
    )
}

fn gateway<'a>(scene: &'a Scene, plant: &Plant, bus: &str) -> Result<Gateway<'a>> {
    let config = [plant.base(scene).as_str(), bus].concat();
    Gateway::start(scene, &config, plant.port)
}

#[test]
fn a_device_with_modbus_tcp_security_is_read_with_our_certificate() {
    promise(|scene| {
        let (plant, pki) = (Plant::new(scene)?, Pki::new(scene, "plant")?);
        let port = scene.free_port()?;
        let _device = vault(scene, port, &pki.ca, &pki.server(scene)?)?;
        let bus = secure_bus(port, &pki, &pki.client(scene, GATEWAY)?);
        let _gateway = gateway(scene, &plant, &bus)?;
        let reader = subscriber(scene, plant.port, &["telemetry/#"])?;
        until("the level arrives, each time another", PATIENCE, || {
            let ledger = Ledger::read(&reader, "")?;
            Ok((ledger.in_order(LEVEL)?.len() >= 3).then_some(()))
        })
    });
}

#[test]
fn a_device_that_refuses_our_certificate_is_said_to() {
    promise(|scene| {
        let (plant, pki) = (Plant::new(scene)?, Pki::new(scene, "plant")?);
        let strangers = Pki::new(scene, "strangers")?;
        let port = scene.free_port()?;
        let _device = vault(scene, port, &pki.ca, &pki.server(scene)?)?;
        let bus = secure_bus(port, &pki, &strangers.client(scene, GATEWAY)?);
        let gateway = gateway(scene, &plant, &bus)?;
        gateway.says(&["vault", "refuses our certificate"])?;
        let reader = subscriber(scene, plant.port, &["state/#"])?;
        let told = until("the state says why", PATIENCE, || {
            let mut told = messages(&reader)?;
            told.retain(|message| message.topic == "state/vault-1");
            Ok(told.pop())
        })?;
        let why = told.payload;
        ensure!(why.contains("refuses our certificate"), "{why}");
        Ok(())
    });
}

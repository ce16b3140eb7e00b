//! Looks at the plant as far as a release's health goes. Shell.
//!
//! Invariant: the broker and the buffer count as working only after a message went through the one, and
//! something written to the other is on disk.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use broker_lite::{
    observe::probe::Probe,
    server::{Broker, LocalClient},
};
use tokio::time::timeout;

use crate::{
    buffer::Buffer,
    fieldbus::DeviceState,
    update::sight::{Polls, Sight},
};

use super::super::{field::Field, status::StatusSource, trusted::Trusted};

/// Longest that a message through the broker, or a write to the buffer, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a proof of either counts, so that proving wears no card.
const PROOF_LASTS: Duration = Duration::from_secs(5);
/// Where the kernel lists network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// What is looked at.
pub(in crate::appliance) struct Plant {
    broker: Broker,
    buffer: Buffer,
    field: Arc<Field>,
    trusted: Trusted,
    has_tpm: bool,
    status: StatusSource,
    probe: Probe,
    proved: Option<(Instant, Proofs)>,
}

/// Why the broker does not deliver, and why the buffer does not keep; `None`: it does.
type Proofs = (Option<String>, Option<String>);

impl Plant {
    pub(in crate::appliance) fn new(
        broker: &Broker,
        buffer: &Buffer,
        field: &Arc<Field>,
        trusted: &Trusted,
        status: &StatusSource,
    ) -> Plant {
        Plant {
            broker: broker.clone(),
            buffer: buffer.clone(),
            field: field.clone(),
            has_tpm: trusted.key().is_some(),
            trusted: trusted.clone(),
            status: status.clone(),
            probe: Probe::new(broker),
            proved: None,
        }
    }

    /// A client for what is told of releases.
    pub(super) fn client(&self) -> LocalClient {
        self.broker.local("gateway-releases")
    }

    /// What can be seen without touching anything.
    pub(super) fn glance(&self) -> Sight {
        let of_buses = self.field.buses().into_iter().flat_map(|bus| bus.devices);
        let of_buses = of_buses.map(|device| {
            let online = matches!(device.state, Some((DeviceState::Online, _)));
            let good = device.good_polls;
            (device.name, Polls { online, good })
        });
        let of_lines = self.field.serials().into_iter().map(|line| {
            let online = matches!(line.state, Some(DeviceState::Online));
            let good = line.frames;
            (line.device, Polls { online, good })
        });
        Sight {
            devices: of_buses.chain(of_lines).collect(),
            broker: None,
            buffer: None,
            tpm: self.has_tpm.then(|| self.trusted.status().state == "ready"),
            upstream: self.status.upstream().map(|link| link.connected),
            interfaces: interfaces(Path::new(INTERFACES)),
        }
    }

    /// The same, and whether broker and buffer really work.
    pub(super) async fn look(&mut self) -> Sight {
        let lasts = |at: Instant| at.elapsed() < PROOF_LASTS;
        let (broker, buffer) = match &self.proved {
            Some((at, proofs @ (None, None))) if lasts(*at) => proofs.clone(),
            _ => self.prove().await,
        };
        Sight {
            broker,
            buffer,
            ..self.glance()
        }
    }

    async fn prove(&mut self) -> Proofs {
        let broker = self.probe.round_trip(PATIENCE).await.err();
        let proofs = (
            broker.map(|lost| lost.to_string()),
            self.prove_buffer().await,
        );
        self.proved = Some((Instant::now(), proofs.clone()));
        proofs
    }

    async fn prove_buffer(&self) -> Option<String> {
        let Some(written) = self.buffer.prove() else {
            return Some("it takes nothing".to_owned());
        };
        match timeout(PATIENCE, written).await {
            Ok(Ok(_)) => None,
            Ok(Err(_)) => Some("it was closed".to_owned()),
            Err(_) => {
                let fault = self.buffer.status().fault.map(|fault| fault.cause);
                let late = || format!("nothing was written in {} s", PATIENCE.as_secs());
                Some(fault.unwrap_or_else(late))
            }
        }
    }
}

/// Interfaces of real hardware, and whether each has a carrier.
fn interfaces(directory: &Path) -> BTreeMap<String, bool> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let real = entries.filter(|entry| entry.path().join("device").exists());
    real.map(|entry| {
        // The kernel refuses to say it of an interface that is switched off.
        let carrier = fs::read_to_string(entry.path().join("carrier")).unwrap_or_default();
        (
            entry.file_name().to_string_lossy().into_owned(),
            carrier.trim() == "1",
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_interfaces_count_and_one_that_is_switched_off_has_no_carrier() {
        let folder = tempfile::tempdir().unwrap();
        for (name, carrier) in [
            ("eth0", Some("1\n")),
            ("eth1", Some("0\n")),
            ("wlan0", None),
        ] {
            let interface = folder.path().join(name);
            fs::create_dir_all(interface.join("device")).unwrap();
            if let Some(carrier) = carrier {
                fs::write(interface.join("carrier"), carrier).unwrap();
            }
        }
        fs::create_dir(folder.path().join("lo")).unwrap();
        let expected = [("eth0", true), ("eth1", false), ("wlan0", false)];
        let expected = expected.map(|(name, up)| (name.to_owned(), up));
        assert_eq!(interfaces(folder.path()), expected.into());
        assert!(interfaces(&folder.path().join("none")).is_empty());
    }
}

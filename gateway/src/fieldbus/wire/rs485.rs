//! Lets the kernel turn a transceiver around: RS-485 direction by `TIOCSRS485`. Driver.
//!
//! Invariant: the setting is made before the port is taken for use, so that no request leaves with
//! the transceiver pointing the wrong way.

use std::{fs::OpenOptions, io, os::fd::OwnedFd, os::unix::fs::OpenOptionsExt, path::Path};

use nix::fcntl::OFlag;
use serial2::{
    SerialPort,
    rs4xx::{Rs485Config, TransceiverMode},
};

use tracing::warn;

use crate::config::Rs485;

/// Hands the direction of the transceiver at `path` to the kernel. What it returns holds the port
/// open, so that the lines do not drop before it is opened for use.
///
/// # Errors
/// The port cannot be opened, or its driver cannot do this.
pub(super) fn hand_over(path: &Path, settings: &Rs485) -> Result<SerialPort, Rs485Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits())
        .open(path)
        .map_err(Rs485Error::Open)?;
    let port = SerialPort::from(OwnedFd::from(file));
    let wanted = mode(settings);
    port.set_rs4xx_mode(wanted.clone())
        .map_err(Rs485Error::Refused)?;
    match port.get_rs4xx_mode().map_err(Rs485Error::Refused)? {
        // Drivers clamp delays and leave out what their hardware lacks, without a word.
        TransceiverMode::Rs485(made) if same(&made, &wanted) => {}
        made => {
            warn!(port = %path.display(), ?made, ?wanted, "the port's driver made something else of rs485")
        }
    }
    Ok(port)
}

/// Why the kernel does not turn the transceiver.
#[derive(Debug)]
pub(super) enum Rs485Error {
    /// The port cannot be opened.
    Open(io::Error),
    /// Its driver cannot do this.
    Refused(io::Error),
}

fn same(made: &Rs485Config, wanted: &Rs485Config) -> bool {
    let parts = |mode: &Rs485Config| {
        (
            mode.get_invert_rts(),
            mode.get_delay_before_send(),
            mode.get_delay_after_send(),
            mode.get_full_duplex(),
            mode.get_bus_termination(),
        )
    };
    parts(made) == parts(wanted)
}

fn mode(settings: &Rs485) -> Rs485Config {
    let mut mode = Rs485Config::new();
    mode.set_invert_rts(!settings.rts_on_send);
    mode.set_delay_before_send(settings.delay_before_send.as_duration());
    mode.set_delay_after_send(settings.delay_after_send.as_duration());
    mode.set_full_duplex(settings.rx_during_tx);
    mode.set_bus_termination(settings.terminate);
    mode
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use settings::Period;

    use super::*;

    #[test]
    fn each_key_becomes_its_flag_and_its_delay() {
        let usual = mode(&Rs485::default());
        assert!(!usual.get_invert_rts());
        assert!(!usual.get_full_duplex());
        assert!(!usual.get_bus_termination());
        assert_eq!(usual.get_delay_before_send(), Duration::ZERO);
        let all = mode(&Rs485 {
            rts_on_send: false,
            delay_before_send: Period::from_millis(2),
            delay_after_send: Period::from_millis(3),
            rx_during_tx: true,
            terminate: true,
        });
        assert!(all.get_invert_rts() && all.get_full_duplex() && all.get_bus_termination());
        assert_eq!(all.get_delay_before_send(), Duration::from_millis(2));
        assert_eq!(all.get_delay_after_send(), Duration::from_millis(3));
        assert!(!same(&all, &usual) && same(&all, &all.clone()));
    }
}

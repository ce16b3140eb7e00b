//! Opens serial ports, and says in the operator's words why one cannot be opened. Driver.
//!
//! Invariant: a port has one owner; two programs on one line would take each other's bytes.

use std::path::{Path, PathBuf};

use tokio_serial::{DataBits, ErrorKind, SerialStream, StopBits};

use crate::{
    config::{Parity, Rs485},
    wording::plain,
};

use super::rs485::{self, Rs485Error};

/// How the bits of a character stand on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineSettings {
    /// Bits per second.
    pub(crate) baud: u32,
    /// Parity bit.
    pub(crate) parity: Parity,
    /// Data bits, 7 or 8.
    pub(crate) data_bits: u8,
    /// Stop bits, 1 or 2.
    pub(crate) stop_bits: u8,
    /// How the kernel turns an RS-485 transceiver around; `None`: it does not.
    pub(crate) rs485: Option<Rs485>,
}

/// A port that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PortError {
    /// It cannot be opened.
    #[error("cannot open serial port {}: {}{}", path.display(), source, hint(source))]
    Open {
        /// Which.
        path: PathBuf,
        /// As the system says.
        source: tokio_serial::Error,
    },
    /// Its driver does not turn an RS-485 transceiver around.
    #[error(
        "serial port {} cannot switch RS-485 direction by itself ({reason}): USB adapters and many \
         boards do so in hardware; remove rs485, or enable it for this UART in the device tree",
        path.display()
    )]
    Rs485 {
        /// Which.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
}

/// Opens a port for this process alone; needs a tokio runtime.
pub(crate) fn open(path: &Path, line: LineSettings) -> Result<SerialStream, PortError> {
    let builder = tokio_serial::new(path.to_string_lossy(), line.baud)
        .parity(match line.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        })
        .data_bits(match line.data_bits {
            7 => DataBits::Seven,
            _ => DataBits::Eight,
        })
        .stop_bits(match line.stop_bits {
            2 => StopBits::Two,
            _ => StopBits::One,
        });
    let failed = |source| PortError::Open {
        path: path.to_owned(),
        source,
    };
    let _kept_until_opened = match line.rs485 {
        None => None,
        Some(settings) => match rs485::hand_over(path, &settings) {
            Ok(port) => Some(port),
            Err(Rs485Error::Open(error)) => return Err(failed(error.into())),
            Err(Rs485Error::Refused(error)) => {
                return Err(PortError::Rs485 {
                    path: path.to_owned(),
                    reason: plain(&error),
                });
            }
        },
    };
    SerialStream::open(&builder).map_err(failed)
}

fn hint(error: &tokio_serial::Error) -> &'static str {
    match error.kind {
        ErrorKind::Io(std::io::ErrorKind::NotFound) => " (is the adapter plugged in?)",
        ErrorKind::Io(std::io::ErrorKind::PermissionDenied) => {
            " (is the service user in group dialout?)"
        }
        // What the library calls "no device" is a port that is locked.
        ErrorKind::NoDevice => " (does another program use it?)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: LineSettings = LineSettings {
        baud: 19_200,
        parity: Parity::Even,
        data_bits: 8,
        stop_bits: 1,
        rs485: None,
    };

    #[tokio::test]
    async fn a_pseudo_terminal_opens_with_any_line_setting_but_once() {
        let (_wire, far) = SerialStream::pair().unwrap();
        let path = PathBuf::from(tokio_serial::SerialPort::name(&far).unwrap());
        let seven_bits = LineSettings {
            parity: Parity::Odd,
            data_bits: 7,
            stop_bits: 2,
            ..LINE
        };
        drop(open(&path, seven_bits).unwrap());
        let _owner = open(&path, LINE).unwrap();
        let error = open(&path, LINE).unwrap_err().to_string();
        assert!(error.ends_with("(does another program use it?)"), "{error}");
    }

    #[tokio::test]
    async fn a_port_that_cannot_switch_direction_is_not_used_and_says_so() {
        let (_wire, far) = SerialStream::pair().unwrap();
        let path = PathBuf::from(tokio_serial::SerialPort::name(&far).unwrap());
        drop(far);
        let switched = LineSettings {
            rs485: Some(Rs485::default()),
            ..LINE
        };
        let error = open(&path, switched).unwrap_err().to_string();
        let begin = format!("serial port {} cannot switch RS-485", path.display());
        assert!(error.starts_with(&begin), "{error}");
        assert!(error.contains("Inappropriate ioctl"), "{error}");
        let missing = open(Path::new("/dev/no-such-port"), switched).unwrap_err();
        assert!(matches!(missing, PortError::Open { .. }), "{missing}");
    }

    #[tokio::test]
    async fn a_missing_port_is_named() {
        let error = open(Path::new("/dev/no-such-port"), LINE)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot open serial port /dev/no-such-port: No such file"));
        assert!(error.ends_with("(is the adapter plugged in?)"), "{error}");
    }
}

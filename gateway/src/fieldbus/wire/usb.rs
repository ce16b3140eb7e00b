//! What is known of a USB converter's habit of holding bytes back. Driver.
//!
//! FTDI's chips send what they have received when 62 bytes are there or a timer has run down: 16 ms
//! unless told otherwise, which is longer than most answers take at 19,200 baud.
//!
//! Invariant: it only looks; the timer belongs to the system's administrator.

use std::{fs, path::Path, time::Duration};

/// Where the kernel tells of serial ports.
const PORTS: &str = "/sys/class/tty";

/// How long the converter behind `port` may hold bytes back; `None`: it does not tell.
pub(crate) fn latency(port: &Path) -> Option<Duration> {
    latency_below(Path::new(PORTS), port)
}

fn latency_below(ports: &Path, port: &Path) -> Option<Duration> {
    // Ports by identity are links to the device.
    let device = fs::canonicalize(port).ok()?;
    let file = ports.join(device.file_name()?).join("device/latency_timer");
    let millis = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_of_a_port_by_identity_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        fs::write(at("ttyUSB0"), "").unwrap();
        std::os::unix::fs::symlink(at("ttyUSB0"), at("usb-FTDI")).unwrap();
        assert_eq!(latency_below(directory.path(), &at("usb-FTDI")), None);
        fs::create_dir_all(at("class/ttyUSB0/device")).unwrap();
        fs::write(at("class/ttyUSB0/device/latency_timer"), "16\n").unwrap();
        let found = latency_below(&at("class"), &at("usb-FTDI"));
        assert_eq!(found, Some(Duration::from_millis(16)));
        assert_eq!(latency_below(&at("class"), &at("ttyUSB7")), None);
    }
}

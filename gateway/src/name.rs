//! The gateway's name. Shell.
//!
//! Invariant: the machine id itself never leaves the machine (machine-id(5)); a hash of it does.

use std::{fs, sync::Arc};

use ring::digest;

use crate::config::Gateway;

/// Where systemd keeps the machine's id.
const MACHINE_ID: &str = "/etc/machine-id";
/// Keeps this hash apart from any other program's.
const APPLICATION: &[u8] = b"edge gateway identity 1";
/// Bytes of the hash in a name; 2^32 names keep a fleet apart.
const NAME_BYTES: usize = 4;

/// The configured name, or one derived from the machine id, or the host's name.
pub(crate) fn gateway_id(config: &Gateway) -> Arc<str> {
    config
        .id
        .clone()
        .or_else(from_machine_id)
        .unwrap_or_else(from_host_name)
        .into()
}

fn from_machine_id() -> Option<String> {
    let machine_id = fs::read_to_string(MACHINE_ID).ok()?;
    let machine_id = machine_id.trim();
    (!machine_id.is_empty()).then(|| derive(machine_id))
}

fn derive(machine_id: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(APPLICATION);
    hash.update(machine_id.as_bytes());
    let hash = hash.finish();
    hash.as_ref()[..NAME_BYTES]
        .iter()
        .fold("gw-".to_owned(), |name, byte| name + &format!("{byte:02x}"))
}

fn from_host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "gateway".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_stable_and_hides_the_machine_id() {
        let machine_id = "0123456789abcdef0123456789abcdef";
        assert_eq!(derive(machine_id), derive(machine_id));
        assert_ne!(
            derive(machine_id),
            derive("fedcba9876543210fedcba9876543210")
        );
        assert!(derive(machine_id).starts_with("gw-") && derive(machine_id).len() == 11);
        assert!(!machine_id.contains(&derive(machine_id)[3..]));
    }

    #[test]
    fn the_configured_name_counts() {
        let config = Gateway {
            id: Some("plant-7".to_owned()),
            ..Gateway::default()
        };
        assert_eq!(&*gateway_id(&config), "plant-7");
    }
}

//! What the gateway's own authority signs: itself, certificates of clients and of the broker, lists
//! of revoked ones (RFC 5280). Driver: signs with keys wherever they are.
//!
//! Invariant: a client's certificate opens TLS as a client and nothing else, bears one name, and ends
//! before its authority does.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::{ClientName, request::Request, serial::Serial};
use crate::identity::{DeviceKey, Requester};

/// Certificates begin so long before they are made: clients' clocks may be behind.
const BACKDATED: Duration = Duration::from_secs(86_400);
/// A list names a next one within this time; the broker takes an older one, too, others may not.
pub(crate) const LIST_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Bytes of the gateway's id in an authority's name, which has 64.
const ID_BYTES_MAX: usize = 32;

/// From when until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) starts: Timestamp,
    pub(crate) ends: Timestamp,
}

impl Life {
    /// From `now` on, a little before that, but not past `bound`.
    pub(crate) fn of(now: Timestamp, life: Duration, bound: Timestamp) -> Life {
        Life {
            starts: now.saturating_sub(BACKDATED).unwrap_or(now),
            ends: now
                .saturating_add(life)
                .map_or(bound, |ends| ends.min(bound)),
        }
    }
}

/// An authority's own certificate for `key`.
///
/// # Errors
/// The key does not sign.
pub(crate) fn certify_self(
    key: &dyn DeviceKey,
    gateway: &str,
    generation: u32,
    serial: &Serial,
    life: Life,
) -> Result<String, rcgen::Error> {
    let id: String = gateway.chars().take(ID_BYTES_MAX).collect();
    // The number keeps the lists of two generations apart, which are found by the issuer's name.
    let mut params = bare(&format!("{id} clients CA {generation}"), serial, life);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    Ok(params.self_signed(&Requester::new(key))?.pem())
}

/// One generation of the authority, with its key.
pub(crate) struct Authority<'a>(Issuer<'a, Requester<'a>>);

impl<'a> Authority<'a> {
    /// The authority of this certificate, which is `key`'s.
    ///
    /// # Errors
    /// It is no certificate of an authority.
    pub(crate) fn new(
        certificate: &str,
        key: &'a dyn DeviceKey,
    ) -> Result<Authority<'a>, rcgen::Error> {
        Ok(Authority(Issuer::from_ca_cert_pem(
            certificate,
            Requester::new(key),
        )?))
    }

    /// A client's certificate, for the key that it asked with.
    pub(crate) fn certify_client(
        &self,
        request: &Request,
        name: &ClientName,
        serial: &Serial,
        life: Life,
    ) -> Result<String, rcgen::Error> {
        let mut params = bare(name.as_str(), serial, life);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(&request.key, &self.0)?.pem())
    }

    /// The certificate of the broker's own listeners, for these names and addresses.
    pub(crate) fn certify_server(
        &self,
        key: &impl PublicKeyData,
        names: &[String],
        serial: &Serial,
        life: Life,
    ) -> Result<String, rcgen::Error> {
        let common_name = names.first().map_or("gateway", String::as_str);
        let mut params = bare(common_name, serial, life);
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(params.signed_by(key, &self.0)?.pem())
    }

    /// The list of what this generation has issued and is not to be trusted any more.
    pub(crate) fn list(
        &self,
        revoked: impl Iterator<Item = (&'a Serial, Timestamp)>,
        number: u64,
        now: Timestamp,
    ) -> Result<String, rcgen::Error> {
        let entry = |(serial, at): (&Serial, Timestamp)| RevokedCertParams {
            serial_number: number_of(serial),
            revocation_time: date_time_ymd(1970, 1, 1) + since_1970(at),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1) + since_1970(now),
            next_update: date_time_ymd(1970, 1, 1) + since_1970(now) + LIST_LIFE,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0)?.pem()
    }
}

fn bare(common_name: &str, serial: &Serial, life: Life) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.serial_number = Some(number_of(serial));
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(life.starts);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(life.ends);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn number_of(serial: &Serial) -> SerialNumber {
    SerialNumber::from_slice(serial.bytes())
}

/// Since 1970, with which rcgen's dates are made here.
fn since_1970(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default()
}

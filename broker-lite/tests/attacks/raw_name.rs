//! A client certificate whose common name is no text, which no library makes: another name of the same
//! length is put in its place as it is signed.

use std::fs;

use base64ct::{Base64, Encoding};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, PublicKeyData, SerialNumber,
    SignatureAlgorithm, SigningKey,
};

use crate::pki::Pki;

/// Issues a certificate with these bytes as its common name.
pub(crate) fn issue(pki: &Pki, file: &str, serial: u8, name: &[u8]) {
    let stand_in = "n".repeat(name.len() - 1) + "!";
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    let names = &mut params.distinguished_name;
    names.push(DnType::CommonName, stand_in.as_str());
    params.serial_number = Some(SerialNumber::from_slice(&[serial]));
    let renaming = Renaming {
        key: pki.authority.key(),
        stand_in: stand_in.as_bytes(),
        name,
    };
    let authority = fs::read_to_string(pki.path("ca", "crt")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&authority, &renaming).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let renamed = Base64::encode_string(&renaming.rename(certificate.der()));
    let pem = format!("-----BEGIN CERTIFICATE-----\n{renamed}\n-----END CERTIFICATE-----\n");
    fs::write(pki.path(file, "crt"), pem).unwrap();
    fs::write(pki.path(file, "key"), key.serialize_pem()).unwrap();
}

/// Signs what it is given with the name in its place.
struct Renaming<'a> {
    key: &'a KeyPair,
    stand_in: &'a [u8],
    name: &'a [u8],
}

impl Renaming<'_> {
    fn rename(&self, der: &[u8]) -> Vec<u8> {
        let length = self.name.len();
        let mut der = der.to_vec();
        let place = der.windows(length).position(|part| part == self.stand_in);
        let place = place.expect("the name that stands in");
        der[place..place + length].copy_from_slice(self.name);
        der
    }
}

impl PublicKeyData for &Renaming<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for &Renaming<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(&self.rename(message))
    }
}

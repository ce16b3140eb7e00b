//! SCRAM-SHA-256, the server's side (RFC 5802, 7677): the client proves that it knows the
//! password, the server that it knows the client, and neither learns the password.
//!
//! ```text
//!  client                               server
//!  n,,n=ann,r=NONCE               ──▶             CONNECT
//!                                 ◀──  r=NONCE+OURS,s=SALT,i=10000      AUTH
//!  c=biws,r=NONCE+OURS,p=PROOF    ──▶             AUTH
//!                                 ◀──  v=SIGNATURE                      CONNACK
//! ```
//!
//! Core. Invariant: an unknown user is refused no sooner than a wrong proof is. Channel binding
//! is not offered. User names are compared as they come: whoever uses other than ASCII has to
//! write them in the same Unicode form everywhere.

use std::sync::Arc;

use base64ct::{Base64, Encoding};

use crate::{
    login::auth::{Exchange, Method, Step},
    login::password::{Key, ScramKeys},
    login::{Login, Logins},
};

/// Longest message taken from a client, in bytes: names and nonces are shorter by far.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Bytes of our nonce, before they are written as Base64.
const NONCE_BYTES: usize = 18;

/// The method.
#[derive(Debug)]
pub(crate) struct ScramSha256;

impl Method for ScramSha256 {
    fn name(&self) -> &'static str {
        "SCRAM-SHA-256"
    }

    fn begin(&self, nonce: Key) -> Box<dyn Exchange> {
        let nonce = Base64::encode_string(&nonce[..NONCE_BYTES]);
        Box::new(Scram::AwaitsFirst {
            nonce,
            asked: false,
        })
    }
}

#[derive(Debug)]
enum Scram {
    AwaitsFirst {
        /// Our half.
        nonce: String,
        /// The client has said nothing once already.
        asked: bool,
    },
    AwaitsFinal(Box<AwaitsFinal>),
    Over,
}

#[derive(Debug)]
struct AwaitsFinal {
    user: String,
    keys: ScramKeys,
    /// Nobody, if the user is not known or has no keys.
    login: Option<Arc<Login>>,
    /// What "c=" must repeat.
    header: String,
    nonce: String,
    /// The first messages of both sides, as the proof covers them.
    said: String,
}

impl Exchange for Scram {
    fn step(&mut self, data: &[u8], logins: &Logins) -> Step {
        let failed = |why| Step::Failed { user: None, why };
        // Whatever fails ends the exchange.
        let state = std::mem::replace(self, Scram::Over);
        if data.len() > MESSAGE_BYTES_MAX {
            return failed("a SCRAM message has more than 1,024 bytes");
        }
        let Ok(message) = std::str::from_utf8(data) else {
            return failed("a SCRAM message is not UTF-8");
        };
        match state {
            // CONNECT may leave its data out: the client begins when it is asked.
            Scram::AwaitsFirst { asked: true, .. } if message.is_empty() => {
                failed("a client that was asked to begin did not")
            }
            Scram::AwaitsFirst { nonce, .. } if message.is_empty() => {
                *self = Scram::AwaitsFirst { nonce, asked: true };
                Step::Continue(Vec::new())
            }
            Scram::AwaitsFirst { nonce, .. } => match begin(message, &nonce, logins) {
                Ok((next, answer)) => {
                    *self = Scram::AwaitsFinal(Box::new(next));
                    Step::Continue(answer.into_bytes())
                }
                Err(why) => failed(why),
            },
            Scram::AwaitsFinal(state) => match state.finish(message) {
                Ok((login, answer)) => Step::Done { login, answer },
                Err(why) => Step::Failed {
                    user: Some(state.user),
                    why,
                },
            },
            Scram::Over => failed("the SCRAM exchange is over"),
        }
    }
}

/// From `client-first-message` to `server-first-message` (RFC 5802, section 7).
fn begin(
    message: &str,
    ours: &str,
    logins: &Logins,
) -> Result<(AwaitsFinal, String), &'static str> {
    let (binding, rest) = message.split_once(',').ok_or("no GS2 header")?;
    match binding {
        "n" | "y" => {}
        _ if binding.starts_with("p=") => return Err("channel binding is not offered"),
        _ => return Err("no GS2 header"),
    }
    let (acting_as, bare) = rest.split_once(',').ok_or("no GS2 header")?;
    let header = &message[..message.len() - bare.len()];
    let mut attributes = bare.split(',');
    let name = attributes.next().and_then(|text| text.strip_prefix("n="));
    let name = name.ok_or("no user name, or an extension that must be understood")?;
    let user = unescape(name).ok_or("the user name is badly escaped")?;
    if !acting_as.is_empty() && acting_as.strip_prefix("a=") != Some(name) {
        return Err("nobody may act for another user");
    }
    let theirs = attributes.next().and_then(|text| text.strip_prefix("r="));
    let theirs = theirs.filter(|nonce| is_nonce(nonce)).ok_or("no nonce")?;
    let nonce = format!("{theirs}{ours}");
    let (keys, login) = logins.scram(&user);
    let salt = Base64::encode_string(&keys.salt);
    let answer = format!("r={nonce},s={salt},i={}", keys.iterations);
    let next = AwaitsFinal {
        user,
        keys,
        login,
        header: Base64::encode_string(header.as_bytes()),
        nonce,
        said: format!("{bare},{answer}"),
    };
    Ok((next, answer))
}

impl AwaitsFinal {
    /// From `client-final-message` to `server-final-message`.
    fn finish(&self, message: &str) -> Result<(Arc<Login>, Vec<u8>), &'static str> {
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or("no proof")?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|text| text.strip_prefix("c="));
        if binding != Some(&self.header) {
            return Err("the GS2 header is another than at first");
        }
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r="));
        if nonce != Some(&self.nonce) {
            return Err("the nonce is another than at first");
        }
        let proof = Base64::decode_vec(proof).ok();
        let proof = proof.and_then(|proof| Key::try_from(proof).ok());
        let proof = proof.ok_or("the proof is not 32 bytes in Base64")?;
        let said = format!("{},{without_proof}", self.said);
        let fits = self.keys.accepts(said.as_bytes(), &proof);
        match &self.login {
            Some(login) if fits => {
                let signature = self.keys.server_signature(said.as_bytes());
                let answer = format!("v={}", Base64::encode_string(&signature));
                Ok((Arc::clone(login), answer.into_bytes()))
            }
            // One text for all, which may reach the client.
            Some(_) | None => Err("wrong password, or no user of this name with keys for SCRAM"),
        }
    }
}

/// `saslname`: "=2C" is a comma, "=3D" an equals sign, and no other "=" may stand there. Empty
/// names and control characters are nobody's (RFC 4013, section 2.3).
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return None,
        };
        plain.push(character);
        plain.push_str(rest);
    }
    (!plain.is_empty() && !plain.chars().any(char::is_control)).then_some(plain)
}

/// `printable`: ASCII that shows, without the comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn logins() -> Logins {
        let keys = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let keys = ScramKeys::parse(keys).unwrap();
        Logins::new(vec![Login::kept("user", None, Some(keys))], [7; 32])
    }

    fn exchange() -> Scram {
        Scram::AwaitsFirst {
            nonce: NONCE.to_owned(),
            asked: false,
        }
    }

    fn answer(exchange: &mut Scram, message: &str) -> Result<String, &'static str> {
        match exchange.step(message.as_bytes(), &logins()) {
            Step::Continue(answer) | Step::Done { answer, .. } => {
                Ok(String::from_utf8(answer).unwrap())
            }
            Step::Failed { why, .. } => Err(why),
        }
    }

    #[test]
    fn the_example_of_rfc_7677_is_spoken_word_by_word() {
        let mut exchange = exchange();
        assert_eq!(answer(&mut exchange, ""), Ok(String::new()));
        assert_eq!(
            answer(&mut exchange, CLIENT_FIRST),
            Ok(SERVER_FIRST.to_owned())
        );
        match exchange.step(CLIENT_FINAL.as_bytes(), &logins()) {
            Step::Done { login, answer } => {
                assert_eq!(login.name, "user");
                assert_eq!(answer, SERVER_FINAL.as_bytes());
            }
            other => panic!("not let in but {other:?}"),
        }
        assert!(answer(&mut exchange, CLIENT_FINAL).is_err(), "spoken twice");
    }

    #[test]
    fn a_stranger_sees_what_a_known_user_sees_and_is_refused_at_the_end() {
        let mut exchange = exchange();
        let stranger = CLIENT_FIRST.replace("user", "nobody");
        let first = answer(&mut exchange, &stranger).unwrap();
        assert_eq!(first, answer(&mut self::exchange(), &stranger).unwrap());
        assert!(first.starts_with(&format!("r=rOprNGfwEbeRWgbNEkqO{NONCE},s=")));
        assert!(first.ends_with(",i=4096"), "{first}");
        assert!(answer(&mut exchange, CLIENT_FINAL).is_err());
    }

    #[test]
    fn a_proof_fits_its_own_exchange_alone() {
        for spoiled in [
            CLIENT_FINAL.replace("p=dHzb", "p=eHzb"),
            CLIENT_FINAL.replace("c=biws", "c=eSws"),
            CLIENT_FINAL.replace("k0,p=", "k1,p="),
            CLIENT_FINAL.replace("AndVQ=", "AndV"),
            CLIENT_FINAL.replace(",p=", ",q="),
            String::new(),
        ] {
            let mut exchange = exchange();
            answer(&mut exchange, CLIENT_FIRST).unwrap();
            assert!(answer(&mut exchange, &spoiled).is_err(), "{spoiled}");
        }
    }

    #[test]
    fn what_is_no_client_first_message_is_refused() {
        let long = format!("n,,n=user,r={}", "x".repeat(1_024));
        for message in [
            "n",
            "n,",
            "n,,",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=user,r=a b",
            "n,,n=,r=abc",
            "n,,n=us=er,r=abc",
            "n,,n=us\u{0}er,r=abc",
            "n,,m=ext,n=user,r=abc",
            "n,a=admin,n=user,r=abc",
            "p=tls-exporter,,n=user,r=abc",
            "x,,n=user,r=abc",
            &long,
        ] {
            assert!(
                answer(&mut exchange(), message).is_err(),
                "{message:?} was taken"
            );
        }
        let mut exchange = exchange();
        for message in [&b"n,,n=\xff,r=abc"[..], CLIENT_FIRST.as_bytes()] {
            let step = exchange.step(message, &logins());
            assert!(matches!(step, Step::Failed { .. }), "it is over");
        }
    }

    #[test]
    fn names_are_unescaped_once() {
        assert_eq!(unescape("a=2Cb=3D2C").as_deref(), Some("a,b=2C"));
        assert_eq!(unescape("a=2c"), None);
    }
}

//! Enhanced authentication (MQTT 5, 4.12): methods by which a client proves who it is in several
//! steps, each carried by CONNECT, AUTH or CONNACK.
//!
//! Core. Invariant: an exchange decides from what it is given alone; whom it names is let in only
//! if that login is still in force.

use std::{fmt::Debug, sync::Arc};

use crate::{
    login::password::Key,
    login::scram::ScramSha256,
    login::{Login, Logins},
};

/// The methods offered, none of which sends a password.
pub(crate) const METHODS: [&dyn Method; 1] = [&ScramSha256];

/// A way to prove who one is.
pub(crate) trait Method: Sync {
    /// As CONNECT names it.
    fn name(&self) -> &'static str;

    /// Begins an exchange; `nonce` is fresh, and nobody could foresee it.
    fn begin(&self, nonce: Key) -> Box<dyn Exchange>;
}

/// One client's proof, under way.
pub(crate) trait Exchange: Debug + Send {
    /// Takes what the client says, which may be nothing.
    fn step(&mut self, data: &[u8], logins: &Logins) -> Step;
}

/// What follows from a client's step.
#[derive(Debug)]
pub(crate) enum Step {
    /// Answer this, and wait for the next.
    Continue(Vec<u8>),
    /// It is this user; the answer goes along.
    Done { login: Arc<Login>, answer: Vec<u8> },
    /// It is not who it claims to be, or does not speak the method.
    Failed {
        user: Option<String>,
        why: &'static str,
    },
}

/// The method of this name.
pub(crate) fn method(name: &str) -> Option<&'static dyn Method> {
    METHODS.into_iter().find(|method| method.name() == name)
}

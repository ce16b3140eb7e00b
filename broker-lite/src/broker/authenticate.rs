//! Who a client is: the name in its certificate, a password that is checked elsewhere, or an
//! exchange of AUTH packets.
//!
//! ```text
//!             certificate, nobody ───────────────────────────────────┐
//!  CONNECT ─▶ password ─▶ waits for its turn ─▶ Output::Verify ──────┼─▶ admitted, or turned away
//!             method ───▶ AUTH ⇄ AUTH ───────────────────────────────┘
//! ```
//!
//! Core. Invariant: until it is known who a client is, nothing of it touches a session, and it
//! has the time for a CONNECT to become known.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    broker::{
        ConnectionId, Core, Output, SessionId,
        connect::{Rejected, rejected},
        link::Peer,
    },
    config::IdentitySource,
    login::auth::{self, Exchange, Method, Step},
    login::bans::source_of,
    login::{Check, Login, Logins},
    observe::audit::Refusal,
    packet::{Auth, Authentication, Connect, Credential, Packet, ReasonCode, Text},
};

/// How far a connection has come in saying who it is, where that takes more than its CONNECT.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Its password is being checked, or waits to be.
    Checked {
        connect: Box<Connect>,
        login: Arc<Login>,
        /// Until its turn comes.
        check: Option<Check>,
    },
    /// It proves itself in steps before its CONNECT is answered.
    Proves {
        connect: Box<Connect>,
        method: &'static dyn Method,
        exchange: Box<dyn Exchange>,
        expected: Option<String>,
    },
    /// It was let in by a method, and may prove itself again [MQTT-4.12.1-1].
    Proved {
        method: &'static dyn Method,
        /// For CONNACK.
        answer: Vec<u8>,
        again: Option<Box<dyn Exchange>>,
    },
}

impl std::fmt::Debug for dyn Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a CONNECT offers as a proof.
enum Claim {
    /// None is needed: the certificate's user, or nobody.
    Is(Option<String>),
    /// This user's password.
    Password(String),
    /// An exchange, after which it has to be this user if one is named.
    Exchange(Option<String>),
}

impl Core {
    /// Finds out who sent this CONNECT; goes on at [`Core::identified`], perhaps later.
    pub(super) fn authenticate(
        &mut self,
        connection: ConnectionId,
        connect: Box<Connect>,
        now: Instant,
    ) {
        let Some(link) = self.links.get(connection.0) else {
            return;
        };
        if self.is_banned(&link.peer.address, now) {
            return self.turn_away(connection, &connect, banned());
        }
        match claim(&link.peer, &connect) {
            Ok(Claim::Is(user)) => self.identified(connection, connect, user, now),
            Ok(Claim::Password(user)) => self.check_password(connection, connect, user, now),
            Ok(Claim::Exchange(expected)) => {
                self.begin_exchange(connection, connect, expected, now);
            }
            Err(failure) => {
                self.count_failure_of(connection, now);
                self.turn_away(connection, &connect, failure);
            }
        }
    }

    fn check_password(
        &mut self,
        connection: ConnectionId,
        mut connect: Box<Connect>,
        user: String,
        now: Instant,
    ) {
        let given = connect.password.take();
        let Some(check) = self.rules.logins.check(&user, given) else {
            return self.not_known(connection, &connect, now);
        };
        if check.login.is_quick() {
            return match check.run() {
                true => self.identified(connection, connect, Some(user), now),
                false => self.not_known(connection, &connect, now),
            };
        }
        let patience = self.rules.limits.connect_timeout.as_duration();
        self.arm(connection, Some(now + patience));
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        let source = source_of(&link.peer.address);
        link.waits = true;
        link.stage = Some(Box::new(Stage::Checked {
            connect,
            login: Arc::clone(&check.login),
            check: Some(check),
        }));
        let maximum = self.rules.limits.password_checks_waiting;
        if let Some(last) = self.checks.join(source, connection, maximum) {
            self.crowd_out(last);
        }
        self.begin_checks(now);
    }

    /// The driver has checked a password.
    pub(crate) fn handle_verified(&mut self, connection: ConnectionId, fits: bool, now: Instant) {
        self.checks.end();
        if let Some((connect, login)) = self.checked(connection) {
            // The login may have changed meanwhile.
            if fits && self.rules.logins.has(&login) {
                let user = Some(login.name.clone());
                self.identified(connection, connect, user, now);
            } else {
                self.not_known(connection, &connect, now);
            }
        }
        self.begin_checks(now);
    }

    /// Has the driver check as many passwords as may be at once.
    fn begin_checks(&mut self, now: Instant) {
        let at_once = self.rules.limits.password_checks;
        while let Some(connection) = self.checks.begin(at_once) {
            match self.take_check(connection, now) {
                Some(check) => self.outputs.push_back(Output::Verify { connection, check }),
                None => self.checks.end(),
            }
        }
    }

    /// What is to be checked for a connection, unless it has gone or been banned while it waited.
    fn take_check(&mut self, connection: ConnectionId, now: Instant) -> Option<Check> {
        let address = self.links.get(connection.0)?.peer.address;
        if self.is_banned(&address, now) {
            let (connect, _) = self.checked(connection)?;
            self.turn_away(connection, &connect, banned());
            return None;
        }
        let link = self.links.get_mut(connection.0)?;
        match link.stage.as_deref_mut()? {
            Stage::Checked { check, .. } => check.take(),
            Stage::Proves { .. } | Stage::Proved { .. } => None,
        }
    }

    /// The CONNECT whose password was being checked, if it is still to be answered.
    fn checked(&mut self, connection: ConnectionId) -> Option<(Box<Connect>, Arc<Login>)> {
        let link = self.links.get_mut(connection.0)?;
        match *link.stage.take()? {
            Stage::Checked { connect, login, .. } if !link.is_closing() => {
                link.waits = false;
                Some((connect, login))
            }
            other => {
                link.stage = Some(Box::new(other));
                None
            }
        }
    }

    /// Too many logins wait to be checked, and this one has waited least.
    fn crowd_out(&mut self, connection: ConnectionId) {
        if let Some((connect, _)) = self.checked(connection) {
            let why = "too many passwords wait to be checked (limits.password_checks_waiting)";
            let busy = rejected(ReasonCode::ServerBusy, Refusal::TooManyLogins, why);
            self.turn_away(connection, &connect, busy);
        }
    }

    fn not_known(&mut self, connection: ConnectionId, connect: &Connect, now: Instant) {
        let why = "unknown user name or wrong password";
        let code = ReasonCode::BadUserNameOrPassword;
        self.failed_login(connection, connect, code, why, now);
    }

    fn failed_login(
        &mut self,
        connection: ConnectionId,
        connect: &Connect,
        code: ReasonCode,
        why: &str,
        now: Instant,
    ) {
        self.count_failure_of(connection, now);
        self.turn_away(
            connection,
            connect,
            rejected(code, Refusal::Authentication, why),
        );
    }

    fn begin_exchange(
        &mut self,
        connection: ConnectionId,
        connect: Box<Connect>,
        expected: Option<String>,
        now: Instant,
    ) {
        let Some(asked) = connect.properties.authentication.clone() else {
            return;
        };
        let Some(method) = auth::method(asked.method.as_str()) else {
            let why = format!(
                "the method {:?} is not offered [MQTT-4.12.0-1]",
                asked.method
            );
            let code = ReasonCode::BadAuthenticationMethod;
            return self.turn_away(
                connection,
                &connect,
                rejected(code, Refusal::Authentication, why),
            );
        };
        let exchange = method.begin(self.nonce());
        let patience = self.rules.limits.connect_timeout.as_duration();
        self.arm(connection, Some(now + patience));
        if let Some(link) = self.links.get_mut(connection.0) {
            link.stage = Some(Box::new(Stage::Proves {
                connect,
                method,
                exchange,
                expected,
            }));
        }
        self.step(connection, asked.data, now);
    }

    fn nonce(&mut self) -> crate::login::password::Key {
        self.nonces += 1;
        self.rules.logins.nonce(self.nonces)
    }

    /// A packet before CONNACK, from a client that proves itself: only AUTH and DISCONNECT may
    /// come [MQTT-3.1.2-30]. False when it does not.
    pub(super) fn handle_proof(
        &mut self,
        connection: ConnectionId,
        packet: &Packet,
        now: Instant,
    ) -> bool {
        let stage = self
            .links
            .get(connection.0)
            .and_then(|link| link.stage.as_deref());
        let Some(Stage::Proves { method, .. }) = stage else {
            return false;
        };
        let fault = match packet {
            Packet::Auth(auth) => match of_method(auth, *method) {
                Ok(data) if auth.reason == ReasonCode::ContinueAuthentication => {
                    self.step(connection, data, now);
                    return true;
                }
                Ok(_) => "AUTH begins anew before CONNACK",
                Err(fault) => fault,
            },
            Packet::Disconnect(_) => {
                self.close(connection);
                return true;
            }
            _ => "a packet other than AUTH before CONNACK [MQTT-3.1.2-30]",
        };
        self.violated(connection, fault, now);
        true
    }

    /// One step of a client that is not let in yet.
    fn step(&mut self, connection: ConnectionId, data: Option<Credential>, now: Instant) {
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        let Some(Stage::Proves {
            exchange, method, ..
        }) = link.stage.as_deref_mut()
        else {
            return;
        };
        let (step, method) = (exchange.step(bytes(&data), &self.rules.logins), *method);
        if let Step::Continue(answer) = step {
            let code = ReasonCode::ContinueAuthentication;
            return self.send(connection, auth_packet(code, method, answer));
        }
        let Some(Stage::Proves {
            connect, expected, ..
        }) = link.stage.take().map(|stage| *stage)
        else {
            return;
        };
        match proved(step, &self.rules.logins, expected.as_deref()) {
            Ok((user, answer)) => {
                if let Some(link) = self.links.get_mut(connection.0) {
                    link.stage = Some(Box::new(Stage::Proved {
                        method,
                        answer,
                        again: None,
                    }));
                }
                self.identified(connection, connect, Some(user), now);
            }
            Err(why) => {
                let code = ReasonCode::NotAuthorized;
                self.failed_login(connection, &connect, code, &why, now);
            }
        }
    }

    /// What CONNACK says of the method by which the client was let in [MQTT-4.12.0-5].
    pub(super) fn last_step(&mut self, connection: ConnectionId) -> Option<Authentication> {
        let link = self.links.get_mut(connection.0)?;
        match link.stage.as_deref_mut()? {
            Stage::Proved { method, answer, .. } => {
                Some(authentication(*method, std::mem::take(answer)))
            }
            Stage::Checked { .. } | Stage::Proves { .. } => None,
        }
    }

    /// AUTH from a client that is served: it proves itself again, and goes on meanwhile as before.
    pub(super) fn prove_again(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        auth: &Auth,
        now: Instant,
    ) {
        let fresh = self.nonce();
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        let Some(Stage::Proved { method, again, .. }) = link.stage.as_deref_mut() else {
            let rule = "AUTH without an authentication method [MQTT-4.12.0-7]";
            return self.violated(connection, rule, now);
        };
        let method = *method;
        let data = match (of_method(auth, method), auth.reason) {
            (Err(fault), _) => Err(fault),
            (Ok(data), ReasonCode::ReAuthenticate) if again.is_none() => {
                *again = Some(method.begin(fresh));
                Ok(data)
            }
            (Ok(data), ReasonCode::ContinueAuthentication) => Ok(data),
            (Ok(_), _) => Err("AUTH with a reason that does not follow [MQTT-4.12.1-1]"),
        };
        let (data, exchange) = match (data, again.as_mut()) {
            (Ok(data), Some(exchange)) => (data, exchange),
            (Ok(_), None) => {
                let rule = "AUTH continues what was not begun [MQTT-4.12.1-1]";
                return self.violated(connection, rule, now);
            }
            (Err(fault), _) => return self.violated(connection, fault, now),
        };
        let step = exchange.step(bytes(&data), &self.rules.logins);
        if let Step::Continue(answer) = step {
            let code = ReasonCode::ContinueAuthentication;
            return self.send(connection, auth_packet(code, method, answer));
        }
        *again = None;
        let user = self
            .sessions
            .get(session.0)
            .and_then(|session| session.identity.user.clone());
        match proved(step, &self.rules.logins, user.as_deref()) {
            Ok((_, answer)) => {
                self.send(connection, auth_packet(ReasonCode::Success, method, answer));
            }
            Err(why) => self.not_proved_again(connection, &why, now),
        }
    }

    /// [MQTT-4.12.1-2]
    fn not_proved_again(&mut self, connection: ConnectionId, why: &str, now: Instant) {
        self.count_failure_of(connection, now);
        let code = ReasonCode::NotAuthorized;
        self.break_off(connection, code, Refusal::Authentication, why, now);
    }
}

fn banned() -> Rejected {
    rejected(
        ReasonCode::Banned,
        Refusal::Banned,
        "too many failed logins",
    )
}

/// What a client claims to be, by what its listener goes by; nobody, where that is allowed.
fn claim(peer: &Peer, connect: &Connect) -> Result<Claim, Rejected> {
    let user = connect.user_name.as_ref().map(|name| name.as_str());
    let owned = |name: &str| Some(name.to_owned());
    let proves = connect.properties.authentication.is_some();
    match (peer.admission.identity, &peer.certificate, user) {
        (IdentitySource::Certificate | IdentitySource::Both, None, _)
            if proves || user.is_some() || !peer.admission.anonymous =>
        {
            Err(refused("this listener serves nobody without a certificate"))
        }
        (IdentitySource::Password, _, user) if proves => Ok(Claim::Exchange(user.and_then(owned))),
        (_, Some(name), user) if proves && user.is_none_or(|user| user == name) => {
            Ok(Claim::Exchange(owned(name)))
        }
        (_, Some(name), _) if proves => Err(refused(format!(
            "the certificate is {name:?}'s, the user name another"
        ))),
        (_, None, user) if proves => Ok(Claim::Exchange(user.and_then(owned))),
        (IdentitySource::Either | IdentitySource::Certificate, Some(name), _) => {
            Ok(Claim::Is(owned(name)))
        }
        (IdentitySource::Both, Some(name), Some(user)) if name == user => {
            Ok(Claim::Password(user.to_owned()))
        }
        (IdentitySource::Both, Some(name), _) => Err(refused(format!(
            "this listener asks for the password of the certificate's user, {name:?}"
        ))),
        (IdentitySource::Either | IdentitySource::Password, _, Some(user)) => {
            Ok(Claim::Password(user.to_owned()))
        }
        (_, _, None) if peer.admission.anonymous => Ok(Claim::Is(None)),
        (_, _, _) => Err(refused("this listener serves no anonymous clients")),
    }
}

fn refused(why: impl Into<String>) -> Rejected {
    rejected(ReasonCode::NotAuthorized, Refusal::Authentication, why)
}

/// The user whom an exchange has proved, and the method's last word.
fn proved(
    step: Step,
    logins: &Logins,
    expected: Option<&str>,
) -> Result<(String, Vec<u8>), String> {
    match step {
        Step::Done { login, answer } => {
            let name = login.name.clone();
            if !logins.has(&login) {
                Err(format!("the login of {name:?} changed meanwhile"))
            } else if expected.is_some_and(|expected| expected != name) {
                Err(format!("{name:?} was proved, but another user is claimed"))
            } else {
                Ok((name, answer))
            }
        }
        Step::Failed {
            user: Some(user),
            why,
        } => Err(format!("user {user:?}: {why}")),
        Step::Failed { user: None, why } => Err(why.to_owned()),
        Step::Continue(_) => Err("the exchange is not over".to_owned()),
    }
}

/// The data of an AUTH, which must name the method of CONNECT [MQTT-4.12.0-5].
fn of_method(auth: &Auth, method: &dyn Method) -> Result<Option<Credential>, &'static str> {
    match &auth.authentication {
        Some(step) if step.method.as_str() == method.name() => Ok(step.data.clone()),
        _ => Err("AUTH names another method than CONNECT did [MQTT-4.12.0-5]"),
    }
}

fn bytes(data: &Option<Credential>) -> &[u8] {
    data.as_ref().map_or(&[], |data| &data.0)
}

fn auth_packet(reason: ReasonCode, method: &dyn Method, answer: Vec<u8>) -> Packet {
    Packet::Auth(Auth {
        reason,
        authentication: Some(authentication(method, answer)),
        details: None,
    })
}

fn authentication(method: &dyn Method, answer: Vec<u8>) -> Authentication {
    Authentication {
        method: Text::lossy(method.name()),
        data: (!answer.is_empty()).then(|| Credential(Bytes::from(answer))),
    }
}

//! The upstream side of the demonstration: a broker that demands client certificates. Driver.
//!
//! Invariant: it comes back on the address it had, as a real upstream does.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use broker_lite::{
    config::{AccessRule, ClientAuth, Config, Listener, ListenerTls, TopicPattern},
    packet::QoS,
    server::{Broker, LocalClient},
    topic::TopicFilter,
};

use super::pki::Pki;

/// The upstream broker, up or down.
pub(super) struct Cloud {
    config: Config,
    running: Option<Broker>,
}

impl Cloud {
    /// Starts on a free port of the loopback; `gateway_id` may publish below its own name only.
    ///
    /// # Errors
    /// The broker does not start.
    pub(super) async fn start(pki: &Pki, gateway_id: &str) -> anyhow::Result<(Cloud, LocalClient)> {
        let tls = ListenerTls {
            certificate: pki.server.certificate.clone(),
            key: pki.server.key.clone(),
            client_ca: Some(pki.ca.clone()),
            client_auth: Some(ClientAuth::Required),
            ..ListenerTls::default()
        };
        let rule = AccessRule {
            user: Some(gateway_id.to_owned()),
            publish: vec![TopicPattern("%u/#".to_owned())],
            subscribe: vec![TopicPattern("%u/command/#".to_owned())],
            ..AccessRule::default()
        };
        let listener = Listener {
            tls: Some(tls),
            ..Listener::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        };
        let mut cloud = Cloud {
            config: Config {
                listeners: vec![listener],
                access: vec![rule],
                ..Config::default()
            },
            running: None,
        };
        let observer = cloud.bring_up().await?;
        Ok((cloud, observer))
    }

    /// Starts the broker again, with nothing remembered, and gives someone who sees everything
    /// that arrives: there before anyone can connect, so that nothing arrives unseen.
    ///
    /// # Errors
    /// The address is taken.
    pub(super) async fn bring_up(&mut self) -> anyhow::Result<LocalClient> {
        let closed = Config {
            listeners: Vec::new(),
            ..self.config.clone()
        };
        let broker = Broker::start(&closed, None)
            .await
            .context("cannot start the upstream broker")?;
        let observer = broker.local("cloud-observer");
        observer.subscribe(TopicFilter::parse("#")?, QoS::AtLeastOnce);
        broker
            .reload(&self.config)
            .await
            .context("cannot open the upstream broker")?;
        if let Some(bound) = broker.addresses().first() {
            self.config.listeners[0].address = bound.address.socket_address();
        }
        self.running = Some(broker);
        Ok(observer)
    }

    /// Stops the broker: to the gateway, the link is gone. Its observer still has to read what
    /// was acknowledged until then.
    pub(super) async fn cut(&mut self) {
        if let Some(broker) = self.running.take() {
            broker.shutdown().await;
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        let address = self.config.listeners[0].address;
        address.expect("the cloud listens on a port")
    }
}

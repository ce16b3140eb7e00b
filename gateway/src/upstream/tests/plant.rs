//! A gateway's link with Mosquitto as its upstream: certificates, brokers that come and go, and who
//! looks on there.

use super::*;

pub(super) const MUTUAL: &str = "require_certificate true\nuse_identity_as_username true\n";

pub(super) type Change = fn(&mut Upstream);

/// A buffer, certificates and what comes down.
pub(super) struct Plant {
    pub(super) directory: TempDir,
    pub(super) pki: Pki,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) buffer: Buffer,
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) received: mpsc::Receiver<Incoming>,
    pub(super) cancel: CancellationToken,
}

impl Plant {
    pub(super) fn new() -> Plant {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::new(directory.path(), "plant");
        let (certificate, key) = pki.issue("gw-1");
        let config = config::Buffer {
            path: directory.path().join("buffer.db"),
            commit_delay: Period::from_millis(2),
            ..config::Buffer::default()
        };
        let buffer = Buffer::open(&config, &[forward()]).unwrap();
        let (incoming, received) = mpsc::channel(4);
        Plant {
            directory,
            pki,
            certificate,
            key,
            buffer,
            incoming,
            received,
            cancel: CancellationToken::new(),
        }
    }

    pub(super) async fn reopen_buffer(&mut self) {
        self.buffer.close().await;
        let config = config::Buffer {
            path: self.path("buffer.db"),
            ..config::Buffer::default()
        };
        self.buffer = Buffer::open(&config, &[forward()]).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn config(&self, url: &str) -> Upstream {
        let mut config: Upstream = upstream_with_defaults(url);
        config.ca = Some(self.pki.ca.clone());
        config.certificate = Some(self.certificate.clone());
        config.key = Some(self.key.clone());
        config
    }

    pub(super) fn identity(&self) -> config::Identity {
        config::Identity {
            directory: self.path("identity"),
            ..config::Identity::default()
        }
    }

    pub(super) fn link(
        &self,
        broker: &Mosquitto,
        change: impl FnOnce(&mut Upstream),
    ) -> LinkHandle {
        self.link_with(broker, &self.identity(), change)
    }

    pub(super) fn link_with(
        &self,
        broker: &Mosquitto,
        identity: &config::Identity,
        change: impl FnOnce(&mut Upstream),
    ) -> LinkHandle {
        let mut config = self.config(&format!("mqtts://127.0.0.1:{}", broker.port));
        change(&mut config);
        let receive = Receive {
            filter: TopicFilter::parse("command/#").unwrap(),
            topic: "{gateway}/{topic}".to_owned(),
        };
        let buffer = self.buffer.clone();
        let cancel = self.cancel.child_token();
        let settings = Settings {
            upstream: &config,
            identity,
            tpm: None,
            gateway: "gw-1",
            forwards: &[forward()],
            receives: &[receive],
        };
        let here = Here {
            buffer,
            incoming: self.incoming.clone(),
            plant: None,
        };
        start(&settings, here, cancel)
    }

    pub(super) async fn cause(
        &self,
        broker: &Mosquitto,
        change: impl FnOnce(&mut Upstream),
    ) -> Cause {
        let link = self.link(broker, change);
        let down = || match link.status().state {
            State::Down { cause, .. } | State::Unusable { cause } => Some(cause),
            _ => None,
        };
        wait_until("there is no link", || down().is_some()).await;
        let cause = down().unwrap();
        link.stop().await;
        cause
    }

    /// A broker that listens.
    pub(super) async fn broker(&self, options: &str) -> Mosquitto {
        let port = free_port();
        // Files of its own: it may still be reading them when the next broker is set up.
        let (certificate, key) = self.pki.issue(&format!("server-{port}"));
        let config = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {}/\n\
             cafile {}\ncertfile {}\nkeyfile {}\nmax_queued_messages 0\n{options}",
            self.directory.path().display(),
            self.pki.ca.display(),
            certificate.display(),
            key.display(),
        );
        let path = self.path(&format!("mosquitto-{port}.conf"));
        fs::write(&path, config).unwrap();
        let mut broker = Mosquitto {
            config: path,
            port,
            child: None,
        };
        broker.start().await;
        broker
    }

    pub(super) async fn keep_one(&self, topic: &str, payload: Vec<u8>) {
        let (answer, mut answers) = mpsc::unbounded_channel();
        let receipt = Receipt::new(move |kept| answer.send(kept).unwrap());
        let topic = TopicName::parse(topic).unwrap();
        self.buffer.keep(&Message::new(topic, payload), receipt);
        assert_eq!(answers.recv().await, Some(Kept::Committed));
    }

    /// Keeps numbered messages, spread over the topics.
    pub(super) async fn keep(&self, numbers: std::ops::Range<usize>) {
        let (answer, mut answers) = mpsc::unbounded_channel();
        let count = numbers.len();
        for number in numbers {
            let topic = TopicName::parse(TOPICS[number % TOPICS.len()]).unwrap();
            let answer = answer.clone();
            let receipt = Receipt::new(move |kept| answer.send(kept).unwrap());
            self.buffer
                .keep(&Message::new(topic, number.to_string()), receipt);
        }
        for _ in 0..count {
            assert_eq!(answers.recv().await, Some(Kept::Committed));
        }
    }

    pub(super) async fn next_incoming(&mut self) -> Incoming {
        let next = tokio::time::timeout(PATIENCE, self.received.recv()).await;
        next.expect("nothing came from upstream").unwrap()
    }

    /// Publishes as someone in the cloud.
    pub(super) fn command(&self, broker: &Mosquitto, topic: &str, payload: &str) {
        let (certificate, key) = self.pki.issue("operator");
        let arguments = ["-h", "127.0.0.1", "-q", "1", "-t", topic, "-m", payload];
        let status = Command::new("mosquitto_pub")
            .args(arguments)
            .args(["-p", &broker.port.to_string(), "--cafile"])
            .arg(&self.pki.ca)
            .arg("--cert")
            .arg(certificate)
            .arg("--key")
            .arg(key)
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Someone in the cloud who sees everything below `filter`.
    pub(super) async fn observe(&self, broker: &Mosquitto, filter: &str) -> Observer {
        use rumqttc::v5;
        let (certificate, key) = self.pki.issue("observer");
        let mut config = self.config(&format!("mqtts://127.0.0.1:{}", broker.port));
        config.certificate = Some(certificate);
        config.key = Some(key);
        let tls = offer(&config).unwrap().config;
        let mut options = v5::MqttOptions::new("observer", "127.0.0.1", broker.port);
        options
            .set_clean_start(false)
            .set_session_expiry_interval(Some(3600))
            .set_keep_alive(Duration::from_secs(5))
            .set_transport(rumqttc::Transport::tls_with_config(
                rumqttc::TlsConfiguration::Rustls(tls),
            ));
        let (client, mut events) = v5::AsyncClient::new(options, 100);
        let qos = v5::mqttbytes::QoS::AtLeastOnce;
        client.subscribe(filter, qos).await.unwrap();
        let messages: Seen = Arc::default();
        let (seen, ready) = (Arc::clone(&messages), Arc::new(tokio::sync::Notify::new()));
        let subscribed = Arc::clone(&ready);
        tokio::spawn(async move {
            loop {
                use v5::{Event, mqttbytes::v5::Packet};
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                        let properties = publish.properties.unwrap_or_default().user_properties;
                        seen.lock().unwrap().push((topic, payload, properties));
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => subscribed.notify_one(),
                    Ok(_) => {}
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        });
        tokio::time::timeout(PATIENCE, ready.notified())
            .await
            .unwrap();
        Observer {
            messages,
            _client: client,
        }
    }
}

type Seen = Arc<Mutex<Vec<(String, String, Vec<(String, String)>)>>>;

pub(super) struct Observer {
    pub(super) messages: Seen,
    pub(super) _client: rumqttc::v5::AsyncClient,
}

impl Observer {
    /// Waits for the messages 0 to `count`, and checks their order within each topic.
    pub(super) async fn has_all(&self, count: usize) {
        wait_until("all have arrived", || {
            let seen = self.messages.lock().unwrap();
            let mut numbers: Vec<_> = seen.iter().map(|(_, payload, _)| payload.clone()).collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers.len() == count
        })
        .await;
        let mut arrivals = BTreeMap::<String, Vec<usize>>::new();
        for (topic, payload, _) in self.messages.lock().unwrap().iter() {
            let arrived = arrivals.entry(topic.clone()).or_default();
            let number = payload.parse().unwrap();
            if !arrived.contains(&number) {
                arrived.push(number);
            }
        }
        for (topic, arrived) in arrivals {
            assert!(arrived.is_sorted(), "{topic} out of order: {arrived:?}");
        }
    }
}

pub(super) struct Mosquitto {
    pub(super) config: PathBuf,
    pub(super) port: u16,
    pub(super) child: Option<Child>,
}

impl Mosquitto {
    pub(super) async fn start(&mut self) {
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's mosquitto is installed");
        self.child = Some(child);
        wait_until("the broker listens", || self.listens()).await;
    }

    pub(super) fn listens(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// In order, so that it keeps what it has acknowledged.
    pub(super) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            signal::kill(pid, signal::Signal::SIGTERM).unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A certificate authority and its files.
pub(super) struct Pki {
    pub(super) directory: PathBuf,
    pub(super) issuer: CertifiedIssuer<'static, KeyPair>,
    pub(super) ca: PathBuf,
}

impl Pki {
    pub(super) fn new(directory: &Path, name: &str) -> Pki {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let ca = directory.join(format!("{name}-ca.pem"));
        fs::write(&ca, issuer.pem()).unwrap();
        Pki {
            directory: directory.to_owned(),
            issuer,
            ca,
        }
    }

    pub(super) fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue_until(name, 2090)
    }

    pub(super) fn issue_until(&self, name: &str, year: i32) -> (PathBuf, PathBuf) {
        let names = ["127.0.0.1", "localhost", "cloud.example"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = ["pem", "key"].map(|kind| self.directory.join(format!("{name}.{kind}")));
        fs::write(&paths[0], certificate.pem()).unwrap();
        fs::write(&paths[1], key.serialize_pem()).unwrap();
        fs::set_permissions(&paths[1], fs::Permissions::from_mode(0o600)).unwrap();
        let [certificate, key] = paths;
        (certificate, key)
    }
}

pub(super) fn forward() -> Forward {
    Forward::example("telemetry/#")
}

pub(super) fn offer(config: &Upstream) -> Result<tls::Offer, TlsError> {
    tls::Tls::new(config, &config::Identity::default(), None).newest(jiff::Timestamp::UNIX_EPOCH)
}

pub(super) fn upstream_with_defaults(url: &str) -> Upstream {
    Upstream {
        retry: Period::from_millis(50),
        retry_max: Period::from_millis(200),
        ..serde_json::from_value(serde_json::json!({ "url": url })).unwrap()
    }
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(super) async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

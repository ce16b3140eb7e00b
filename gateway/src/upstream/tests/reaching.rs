//! How the upstream is reached: slow keys, sessions that are resumed, and what a handshake takes.

use std::sync::mpsc as threads;

use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{net::TcpStream, time::Instant as Moment};
use tokio_rustls::client::TlsStream;

use super::*;
use crate::{
    config::url::UpstreamUrl,
    identity::{DeviceKey, FileKey, POINT_BYTES, SignError, TlsKey},
    upstream::{
        reach::{Reach, handshake},
        session::{Event, Options, Session},
    },
};

/// One that signs only when it is told to.
#[derive(Debug)]
struct WaitingKey {
    key: FileKey,
    asks: mpsc::UnboundedSender<()>,
    told: Mutex<threads::Receiver<()>>,
}

impl DeviceKey for WaitingKey {
    fn public_key(&self) -> [u8; POINT_BYTES] {
        self.key.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.asks.send(()).unwrap();
        let told = self.told.lock().unwrap().recv_timeout(PATIENCE);
        told.map_err(|_| SignError("nobody ran while it waited".to_owned()))?;
        self.key.sign(message)
    }
}

// One thread for everything: who blocks it stops the one who ends the wait.
#[tokio::test]
async fn a_key_that_takes_its_time_to_sign_holds_nobody_else_up() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let (asks, mut asked) = mpsc::unbounded_channel();
    let (tell, told) = threads::channel();
    let key = WaitingKey {
        key: FileKey::read(&plant.key).unwrap(),
        asks,
        told: Mutex::new(told),
    };
    tokio::spawn(async move {
        asked.recv().await.unwrap();
        tokio::task::yield_now().await;
        tell.send(()).unwrap();
    });
    let stream = shake(&broker, with_key(&plant, Arc::new(key))).await;
    assert_eq!(
        stream.unwrap().get_ref().1.handshake_kind(),
        Some(HandshakeKind::Full)
    );
}

#[tokio::test]
async fn a_key_that_does_not_sign_is_told_in_its_own_words() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let (asks, _asked) = mpsc::unbounded_channel();
    let (tell, told) = threads::channel();
    drop(tell);
    let key = WaitingKey {
        key: FileKey::read(&plant.key).unwrap(),
        asks,
        told: Mutex::new(told),
    };
    let cause = shake(&broker, with_key(&plant, Arc::new(key)))
        .await
        .unwrap_err();
    assert!(
        cause.to_string().contains("nobody ran while it waited"),
        "{cause}"
    );
}

#[tokio::test]
async fn a_session_is_resumed_until_the_certificate_changes() {
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let config = plant.config(&format!("mqtts://127.0.0.1:{}", broker.port));
    let tls = tls::Tls::new(&config, &plant.identity(), None);
    let connect = async || {
        let offer = tls.newest(jiff::Timestamp::UNIX_EPOCH).unwrap();
        let stream = shake(&broker, offer.config).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        speak(stream).await;
        kind
    };
    assert_eq!(connect().await, HandshakeKind::Full);
    assert_eq!(connect().await, HandshakeKind::Resumed);
    plant.pki.issue("gw-1");
    assert_eq!(connect().await, HandshakeKind::Full);
}

/// Until MQTT lets us in, by when the session's tickets have come.
async fn speak(stream: TlsStream<TcpStream>) {
    let options = Options {
        client_id: "gw-1".to_owned(),
        keep_alive: Duration::from_secs(10),
        window: 1,
        version: Protocol::V5,
        will: None,
    };
    let mut session = Session::open(options, Box::new(stream));
    let event = session.next().await;
    assert!(matches!(event, Ok(Event::Connected(_))), "{event:?}");
}

async fn shake(
    broker: &Mosquitto,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, Cause> {
    let url: UpstreamUrl = format!("mqtts://127.0.0.1:{}", broker.port)
        .parse()
        .unwrap();
    let deadline = Moment::now() + PATIENCE;
    let tcp = Reach::default().tcp(&url, deadline).await?;
    handshake(tcp, config, "127.0.0.1".try_into().unwrap(), deadline).await
}

fn with_key(plant: &Plant, key: Arc<dyn DeviceKey>) -> Arc<ClientConfig> {
    let mut anchors = RootCertStore::empty();
    anchors
        .add(CertificateDer::from_pem_file(&plant.pki.ca).unwrap())
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(&plant.certificate).unwrap()];
    let certified = CertifiedKey::new(chain, Arc::new(TlsKey::new(key)));
    certified.keys_match().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(anchors)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Arc::new(config)
}

/// One that takes as long as a TPM.
#[derive(Debug)]
struct SlowKey(FileKey, Duration);

impl DeviceKey for SlowKey {
    fn public_key(&self) -> [u8; POINT_BYTES] {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        std::thread::sleep(self.1);
        self.0.sign(message)
    }
}

#[tokio::test]
#[ignore = "measures; cargo test -p gateway --lib handshakes_take -- --ignored --nocapture"]
async fn how_long_handshakes_take() {
    const ROUNDS: u32 = 50;
    let plant = Plant::new();
    let broker = plant.broker(MUTUAL).await;
    let config = plant.config(&format!("mqtts://127.0.0.1:{}", broker.port));
    let tls = tls::Tls::new(&config, &plant.identity(), None);
    let mean = async |offer: &dyn Fn() -> Arc<ClientConfig>, kind| {
        let mut taken = Duration::ZERO;
        for _ in 0..ROUNDS {
            let config = offer();
            let begun = Instant::now();
            let stream = shake(&broker, config).await.unwrap();
            taken += begun.elapsed();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
            speak(stream).await;
        }
        taken / ROUNDS
    };
    for milliseconds in [0, 1, 150] {
        let slow = || {
            let key = FileKey::read(&plant.key).unwrap();
            with_key(
                &plant,
                Arc::new(SlowKey(key, Duration::from_millis(milliseconds))),
            )
        };
        let full = mean(&slow, HandshakeKind::Full).await;
        println!("full, signing takes {milliseconds} ms longer: {full:?}");
    }
    let newest = || tls.newest(jiff::Timestamp::UNIX_EPOCH).unwrap().config;
    speak(shake(&broker, newest()).await.unwrap()).await;
    let resumed = mean(&newest, HandshakeKind::Resumed).await;
    println!("resumed: {resumed:?}");
}

//! One client's connection, plain or TLS: first blocking, to connect and subscribe, then not. Driver.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use crate::packets::{self, Frame, Version, kind};

/// Whoever does not answer a CONNECT or SUBSCRIBE in this time never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// Read at once; far more than a window of messages takes.
const READ_BYTES: usize = 256 * 1024;

/// What rustls reads at once; less means that the socket is empty.
const TLS_READ_BYTES: usize = 4 * 1024;

/// One read can complete a record of this size and part of the next.
const TLS_ROOM_BYTES: usize = 40 * 1024;

/// How to speak TLS with the broker.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Shows `client.pem`; every handshake is a whole one.
    pub(crate) fn from_folder(folder: &Path) -> Result<Tls> {
        let file = |name: &str| folder.join(name);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file("client.pem"))?.collect();
        let key = PrivateKeyDer::from_pem_file(file("client.key"))?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
            .with_client_auth_cert(chain?, key)?;
        config.resumption = Resumption::disabled();
        Ok(Tls(Arc::new(config)))
    }

    fn connection(&self) -> Result<ClientConnection> {
        let name = ServerName::try_from("localhost").context("localhost is a name")?;
        Ok(ClientConnection::new(Arc::clone(&self.0), name)?)
    }
}

/// A connection in MQTT.
pub(crate) struct Wire {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    input: Vec<u8>,
    /// Packets that are to be sent.
    pub(crate) output: Vec<u8>,
}

impl Wire {
    /// Connects, and waits for a CONNACK that welcomes us.
    pub(crate) fn connect(
        port: u16,
        tls: Option<&Tls>,
        client: &str,
        version: Version,
        clean: bool,
    ) -> Result<Wire> {
        Wire::resume(port, tls, client, version, clean, |_, _| {})
    }

    /// The same, for a session to which the broker may send at once.
    pub(crate) fn resume(
        port: u16,
        tls: Option<&Tls>,
        client: &str,
        version: Version,
        clean: bool,
        early: impl FnMut(Frame, &mut Vec<u8>),
    ) -> Result<Wire> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot connect to 127.0.0.1:{port}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let tls = tls.map(Tls::connection).transpose()?.map(Box::new);
        let mut wire = Wire {
            socket,
            tls,
            input: Vec::new(),
            output: packets::connect(client, version, clean),
        };
        wire.answered(kind::CONNACK, early)?;
        Ok(wire)
    }

    /// Subscribes, and waits for the answer.
    pub(crate) fn subscribe(
        &mut self,
        filters: &[String],
        qos: u8,
        version: Version,
    ) -> Result<()> {
        self.output = packets::subscribe(filters, qos, version);
        self.answered(kind::SUBACK, |_, _| {})
    }

    /// Leaves in good order.
    pub(crate) fn leave(&mut self) -> Result<()> {
        self.output.extend(packets::DISCONNECT);
        self.flush()?;
        Ok(())
    }

    /// From here on nothing waits.
    pub(crate) fn stop_waiting(&self) -> Result<()> {
        Ok(self.socket.set_nonblocking(true)?)
    }

    /// What came in, packet by packet. An error if the broker has closed the connection.
    pub(crate) fn read(
        &mut self,
        scratch: &mut Scratch,
        mut take: impl FnMut(Frame, &mut Vec<u8>),
    ) -> io::Result<()> {
        let Wire {
            socket,
            tls,
            input,
            output,
        } = self;
        let count = match tls {
            None => read_plain(socket, &mut scratch.0)?,
            Some(tls) => read_tls(tls, socket, &mut scratch.0)?,
        };
        let fresh = &scratch.0[..count];
        if input.is_empty() {
            let taken = packets::each(fresh, |frame| take(frame, output));
            input.extend_from_slice(&fresh[taken..]);
        } else {
            input.extend_from_slice(fresh);
            let taken = packets::each(input, |frame| take(frame, output));
            input.drain(..taken);
        }
        Ok(())
    }

    /// Sends what it can; true when some is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            // What rustls does not take waits here.
            let taken = tls.writer().write(&self.output)?;
            self.output.drain(..taken);
            while tls.wants_write() {
                match tls.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                    Err(error) => return Err(error),
                }
            }
            return Ok(!self.output.is_empty());
        }
        let mut sent = 0;
        while sent < self.output.len() {
            match self.socket.write(&self.output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..sent);
        Ok(!self.output.is_empty())
    }

    /// Sends, then reads until a packet of this kind is there; others are handed over.
    fn answered(&mut self, wanted: u8, mut other: impl FnMut(Frame, &mut Vec<u8>)) -> Result<()> {
        let mut scratch = Scratch::small();
        if let Some(tls) = &mut self.tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut self.socket)
                    .context("the TLS handshake failed")?;
            }
        }
        self.flush()?;
        let mut answer = None;
        while answer.is_none() {
            self.read(&mut scratch, |frame, output| {
                if frame.kind() == wanted {
                    answer = Some(frame.is_refusal());
                } else {
                    other(frame, output);
                }
            })
            .with_context(|| format!("the broker does not answer with packet type {wanted}"))?;
        }
        ensure!(
            answer == Some(false),
            "the broker refuses with packet type {wanted}"
        );
        Ok(())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Where bytes are read to; one for all connections.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch(vec![0; READ_BYTES])
    }

    /// For one answer.
    fn small() -> Scratch {
        Scratch(vec![0; 64 * 1024])
    }
}

fn read_plain(socket: &mut TcpStream, space: &mut [u8]) -> io::Result<usize> {
    match socket.read(space)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

/// Reads what is there; it need not hold data. An error only if nothing could be read.
fn read_tls(
    tls: &mut ClientConnection,
    socket: &mut TcpStream,
    space: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    let mut is_first = true;
    loop {
        let count = match tls.read_tls(socket) {
            // What was read before filled the space to the byte, and was all there was.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_first => {
                return Ok(filled);
            }
            read => read?,
        };
        is_first = false;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let plain = state.plaintext_bytes_to_read();
        tls.reader()
            .read_exact(&mut space[filled..filled + plain])?;
        filled += plain;
        if count < TLS_READ_BYTES || filled + TLS_ROOM_BYTES > space.len() {
            return Ok(filled);
        }
    }
}

/// Believes the broker: our own checks of its certificate would be measured as well.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

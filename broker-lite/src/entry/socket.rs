//! Sockets, TCP or Unix: bound, accepted from, read and written alike. Driver.
//!
//! Invariant: a Unix socket's file is removed only when it is our own, or when nobody answers there.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::{
    address::{Address, Endpoint},
    config::SocketMode,
};

/// Connections that wait for `accept`, as tokio has it for TCP.
const BACKLOG: i32 = 1_024;

/// The kernel counts keep-alive in whole ones.
const SECOND: Duration = Duration::from_secs(1);

/// The kernel tells no user; none has this number.
const NOBODY: u32 = u32::MAX;

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix {
        socket: UnixListener,
        _file: SocketFile,
    },
}

/// One client's byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Listens; also says where, with the port that was taken where 0 was asked for.
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        mode: SocketMode,
    ) -> io::Result<(Socket, Endpoint)> {
        match endpoint {
            Endpoint::Network(address) => {
                let socket = TcpListener::bind(address).await?;
                // Connections inherit it; without it only latency suffers.
                let _slower = SockRef::from(&socket).set_tcp_nodelay(true);
                let bound = socket.local_addr()?;
                Ok((Socket::Tcp(socket), Endpoint::Network(bound)))
            }
            Endpoint::Unix(path) => {
                let socket = bind_unix(path, mode)?;
                Ok((socket, endpoint.clone()))
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, Address)> {
        match self {
            Socket::Tcp(socket) => {
                let (stream, mut address) = socket.accept().await?;
                // An IPv4 peer of an IPv6 socket counts as what it is.
                address.set_ip(address.ip().to_canonical());
                Ok((Stream::Tcp(stream), address.into()))
            }
            Socket::Unix { socket, .. } => {
                let (stream, _unnamed) = socket.accept().await?;
                let uid = stream.peer_cred().map_or(NOBODY, |peer| peer.uid());
                Ok((Stream::Unix(stream), Address::Unix { uid }))
            }
        }
    }
}

impl Socket {
    /// Has the kernel end connections whose peer has vanished for so long; those accepted from now
    /// on inherit it, which spares each its own system calls.
    pub(crate) fn notice_silence(&self, after: Duration) {
        if let Socket::Tcp(socket) = self {
            notice_silence(&SockRef::from(socket), after);
        }
    }
}

impl Stream {
    /// The same for one connection.
    pub(crate) fn notice_silence(&self, after: Duration) {
        if let Stream::Tcp(stream) = self {
            notice_silence(&SockRef::from(stream), after);
        }
    }
}

/// With bytes underway by the user time-out, without by keep-alive probes. Zero: it waits for ever.
fn notice_silence(socket: &SockRef<'_>, after: Duration) {
    if after.is_zero() {
        let _kept = socket.set_keepalive(false);
        let _kept = socket.set_tcp_user_timeout(None);
        return;
    }
    let keep_alive = TcpKeepalive::new()
        .with_time((after / 2).max(SECOND))
        .with_interval((after / 10).max(SECOND));
    // A probe that finds the time-out passed ends the connection: one interval earlier is in time.
    let given_up = (after.saturating_sub(after / 10)).max(SECOND);
    // Refused, a vanished peer is found by the keep alive of MQTT, later.
    let _later = socket.set_tcp_keepalive(&keep_alive);
    let _later = socket.set_tcp_user_timeout(Some(given_up));
}

/// The file of a bound Unix socket; removed with this, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours {
            // The next start removes it otherwise.
            let _left = fs::remove_file(&self.path);
        }
    }
}

/// Nobody can connect before the permissions are set, for it listens only then.
fn bind_unix(path: &Path, mode: SocketMode) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_if_stale(path, &address)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    let found = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        device: found.dev(),
        inode: found.ino(),
    };
    set_mode(path, mode)?;
    socket.listen(BACKLOG)?;
    Ok(Socket::Unix {
        socket: UnixListener::from_std(socket.into())?,
        _file: file,
    })
}

/// Sets who may connect to a Unix socket.
pub(crate) fn set_mode(path: &Path, mode: SocketMode) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode.bits()))
}

/// Removes a socket file on which nobody listens any more.
fn remove_if_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        // It answers, or its queue is full: somebody is there.
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

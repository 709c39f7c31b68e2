//! Accepting connections from other machines: TLS first, and no more of it at a time than this machine
//! can bear (`door`).
//!
//! ```text
//! TCP ─▶ may it shake hands now? ─▶ handshake, 5 s ─▶ who is it ─┬─ a node: HTTP/2
//!           └─ no: closed at once                                 └─ a stranger: so many, for a minute
//! ```

mod door;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use holdfast_trust::{Certificate, Principal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use self::door::{Door, Place};
use crate::keyring::{Keyring, Ring};

/// A peer that takes longer to shake hands is none.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A stranger's business is to join, which takes a few seconds.
const STAY: Duration = Duration::from_secs(60);

/// How long, and for how many bytes, one that was refused is listened to.
const LINGER: Duration = Duration::from_secs(1);
const UNREAD: u64 = 64 << 10;

/// After accepting failed: it is for want of descriptors or memory, which others may give back.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at who has been let go.
const LOOK: Duration = Duration::from_millis(500);

/// Connections that wait to be served.
const QUEUE: usize = 64;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whom its certificate names; nobody if it has shown none.
    pub(crate) principal: Option<Principal>,
}

/// What a server takes.
pub(crate) type Connections = ReceiverStream<io::Result<Connection>>;

/// A connection whose other end has shaken hands.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// When a stranger has been here for long enough.
    until: Option<Pin<Box<Sleep>>>,
    /// When its node is let go.
    shut_out: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

/// Connections as they come: those of nodes, and those of strangers.
pub(crate) fn connections(listener: TcpListener, keyring: Keyring) -> [Connections; 2] {
    let (nodes, of_nodes) = mpsc::channel(QUEUE);
    let (strangers, of_strangers) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let door = Door::default();
        let mut look = tokio::time::interval(LOOK);
        let mut believed = keyring.ring();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = look.tick() => {
                    shut_out(&door, &keyring, &mut believed);
                    continue;
                }
                () = nodes.closed() => return,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // What is dropped is closed.
            let Some(place) = door.knock(address.ip(), Instant::now()) else { continue };
            let (keyring, nodes, strangers) = (keyring.clone(), nodes.clone(), strangers.clone());
            tokio::spawn(async move {
                match timeout(HANDSHAKE, shake(tcp, address, &keyring, place)).await {
                    // If nobody takes it, the server is ending.
                    Ok(Ok(connection)) => drop(match connection.peer.principal {
                        Some(_) => nodes.send(Ok(connection)).await,
                        None => strangers.send(Ok(connection)).await,
                    }),
                    Ok(Err(error)) => debug!(%address, %error, "a handshake failed"),
                    Err(_) => debug!(%address, "a handshake took too long"),
                }
            });
        }
    });
    [of_nodes, of_strangers].map(ReceiverStream::new)
}

/// Ends the connections of nodes that the cluster has let go, and, once an authority is believed no more,
/// all: what was shown before may be of that one.
fn shut_out(door: &Door, keyring: &Keyring, believed: &mut Option<Arc<Ring>>) {
    door.shut_out(|principal| principal.node().is_some_and(|node| !keyring.knows(node)));
    let now = keyring.ring();
    if let (Some(before), Some(now)) = (&believed, &now) {
        let is_dropped = |authority: &Certificate| !now.bundle.believes(authority.fingerprint());
        if before.bundle.authorities.iter().any(is_dropped) {
            door.shut_out(|_| true);
        }
    }
    *believed = now;
}

async fn shake(
    tcp: TcpStream,
    address: SocketAddr,
    keyring: &Keyring,
    place: Place,
) -> io::Result<Connection> {
    tcp.set_nodelay(true)?;
    let ring = keyring.ring().ok_or_else(|| io::Error::other("this machine is of no cluster"))?;
    let accepting = TlsAcceptor::from(ring.server.config()).accept(tcp).into_fallible();
    let stream = match accepting.await {
        Ok(stream) => stream,
        Err((error, tcp)) => {
            linger(tcp).await;
            return Err(error);
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.map(|der| Certificate::from_der(der.to_vec())).transpose();
    let certificate = certificate.map_err(io::Error::other)?;
    let principal = certificate.map(|shown| shown.principal()).transpose();
    let principal = principal.map_err(io::Error::other)?;
    let full = || io::Error::other("there are too many of its kind");
    let place = place.pass(principal).ok_or_else(full)?;
    let until = principal.is_none().then(|| Box::pin(sleep(STAY)));
    let shut_out = Box::pin(place.shut_out().cancelled_owned());
    Ok(Connection { stream, peer: Peer { address, principal }, until, shut_out, _place: place })
}

/// Lets the peer read why it was refused: closed with something unread, the connection would be reset,
/// and the reason lost on its way.
async fn linger(mut tcp: TcpStream) {
    let reading = async {
        tcp.shutdown().await?;
        let mut unread = tcp.take(UNREAD);
        tokio::io::copy(&mut unread, &mut tokio::io::sink()).await
    };
    // It is refused, whatever comes of this.
    drop(timeout(LINGER, reading).await);
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let over = self.until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready());
        if over {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.shut_out.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! How to reach a server: `unix:/path` for the local socket, `host:port` for another machine, by TLS alone.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use holdfast_trust::{TlsClient, is_at, why_untrusted};
use holdfast_types::Code;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::RemoteError;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: write unix:/path/to/socket or host:port")]
pub struct AddressError {
    /// The text as given.
    pub text: String,
}

impl AddressError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(s: &str) -> Result<Self, AddressError> {
        let err = || AddressError { text: s.to_owned() };
        match s.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(err()),
            None => {
                let (host, port) = s.rsplit_once(':').ok_or_else(err)?;
                let ok = !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0);
                if ok { Ok(Self::Tcp(s.to_owned())) } else { Err(err()) }
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// Makes connections: to a Unix socket as it is, to a machine by TLS. Cheap to clone.
#[derive(Clone)]
pub struct Dialer(Way);

#[derive(Clone)]
enum Way {
    /// To the local socket alone.
    Local,
    /// With what this says at the moment of each connection: certificates are renewed meanwhile.
    Tls(Arc<dyn Fn() -> Option<TlsClient> + Send + Sync>),
    /// For tests: to everybody, in the clear.
    #[cfg(feature = "plaintext")]
    Plain,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// One that reaches the local socket, and no other machine.
    pub fn local() -> Self {
        Self(Way::Local)
    }

    /// One that always is the same client.
    pub fn tls(client: TlsClient) -> Self {
        Self::following(move || Some(client.clone()))
    }

    /// One that is, for each connection, the client that `now` says; none while it has no certificate.
    pub fn following(now: impl Fn() -> Option<TlsClient> + Send + Sync + 'static) -> Self {
        Self(Way::Tls(Arc::new(now)))
    }

    /// One that does not ask who is at the other end, and says everything in the clear. For tests of
    /// what is said.
    #[cfg(feature = "plaintext")]
    pub fn plaintext() -> Self {
        Self(Way::Plain)
    }

    /// Connects, or says why not within `timeout`.
    pub async fn connect(
        &self,
        address: &Address,
        timeout: Duration,
    ) -> Result<Channel, RemoteError> {
        let endpoint = endpoint(timeout);
        let connecting = endpoint.connect_with_connector(self.connector(address));
        match tokio::time::timeout(timeout, connecting).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(e)) => Err(match why_untrusted(&e) {
                Some(why) => RemoteError {
                    code: Code::Untrusted,
                    message: format!("{address}: {why}"),
                    leader: None,
                },
                None => unreachable(address, &root_cause(&e)),
            }),
            Err(_) => {
                let why = format!("no answer within {} ms", timeout.as_millis());
                Err(unreachable(address, &why))
            }
        }
    }

    /// A channel that connects at its first use and again after a failure.
    pub fn lazy(&self, address: &Address, timeout: Duration) -> Channel {
        endpoint(timeout).connect_with_connector_lazy(self.connector(address))
    }

    fn connector(
        &self,
        address: &Address,
    ) -> impl tower::Service<
        Uri,
        Response = TokioIo<Wire>,
        Error = io::Error,
        Future = impl Future<Output = io::Result<TokioIo<Wire>>> + Send,
    > + Clone
    + Send
    + 'static {
        let (way, address) = (self.0.clone(), address.clone());
        service_fn(move |_: Uri| {
            let (way, address) = (way.clone(), address.clone());
            async move { Ok(TokioIo::new(way.dial(&address).await?)) }
        })
    }
}

/// Whom a node calls, and as whom.
#[derive(Clone)]
pub struct Dialers {
    /// Any node of the cluster.
    pub nodes: Dialer,
    /// Only those that have the log: one of them leads.
    pub members: Dialer,
}

impl Dialers {
    /// Both the same.
    pub fn both(dialer: Dialer) -> Self {
        Self { nodes: dialer.clone(), members: dialer }
    }
}

impl Way {
    async fn dial(&self, address: &Address) -> io::Result<Wire> {
        let target = match address {
            Address::Unix(path) => {
                return Ok(Wire::Local(UnixStream::connect(path).await?));
            }
            Address::Tcp(target) => target,
        };
        let client = match self {
            Self::Local => return Err(io::Error::other("only the local socket is reached so")),
            Self::Tls(now) => now().ok_or_else(|| {
                io::Error::other("this machine has no certificate of a cluster yet")
            })?,
            #[cfg(feature = "plaintext")]
            Self::Plain => return Ok(Wire::Plain(connected(target).await?)),
        };
        let host = target.rsplit_once(':').map_or(target.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let tcp = connected(target).await?;
        let mut tls = TlsConnector::from(client.config()).connect(name, tcp).await?;
        is_at(tls.get_ref().1.peer_certificates(), target).map_err(io::Error::other)?;
        // A server judges this end's certificate after the handshake has ended here (RFC 8446, 4.4.4), and an
        // HTTP/2 server speaks first: what it says shows that it believes, or why it does not.
        if tls.fill_buf().await?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Wire::Tls(Box::new(tls)))
    }
}

async fn connected(target: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(target).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// What bytes go over.
enum Wire {
    Local(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(feature = "plaintext")]
    Plain(TcpStream),
}

macro_rules! on_wire {
    ($wire:expr, $inner:ident => $call:expr) => {
        match $wire.get_mut() {
            Wire::Local($inner) => $call,
            Wire::Tls($inner) => $call,
            #[cfg(feature = "plaintext")]
            Wire::Plain($inner) => $call,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_wire!(self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_wire!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_wire!(self, inner => Pin::new(inner).poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Local(inner) => inner.is_write_vectored(),
            Self::Tls(inner) => inner.is_write_vectored(),
            #[cfg(feature = "plaintext")]
            Self::Plain(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

/// The windows are those of a fast LAN: a snapshot stream must not wait for round trips.
fn endpoint(timeout: Duration) -> Endpoint {
    // Each connector knows its address.
    Endpoint::from_static("http://holdfast")
        .connect_timeout(timeout)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
}

fn unreachable(address: &Address, why: &str) -> RemoteError {
    let message = format!("cannot reach {address}: {why}");
    RemoteError { code: Code::Unavailable, message, leader: None }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print() {
        for text in ["unix:/run/x.sock", "10.0.0.1:7443", "node:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for bad in ["", "unix:x", "host", "host:", ":1", "host:0", "host:99999"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}

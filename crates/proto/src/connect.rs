//! How to reach a server: `unix:/path` for the local socket, `host:port` for TCP.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use holdfast_types::Code;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
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

fn endpoint(address: &Address, timeout: Duration) -> Result<Endpoint, RemoteError> {
    let uri = match address {
        Address::Unix(_) => "http://localhost".to_owned(),
        Address::Tcp(host_port) => format!("http://{host_port}"),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|e| RemoteError {
        code: Code::InvalidArgument,
        message: format!("{address} is not an address: {e}"),
        leader: None,
    })?;
    // The windows are those of a fast LAN: a snapshot stream must not wait for round trips.
    Ok(endpoint
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5)))
}

/// Connects, or says why not within `timeout`.
pub async fn connect(address: &Address, timeout: Duration) -> Result<Channel, RemoteError> {
    let endpoint = endpoint(address, timeout)?;
    let attempt = async {
        match address {
            Address::Tcp(_) => endpoint.connect().await,
            Address::Unix(path) => {
                endpoint.connect_with_connector(unix_connector(path.clone())).await
            }
        }
    };
    let unreachable = |why: String| RemoteError {
        code: Code::Unavailable,
        message: format!("cannot reach {address}: {why}"),
        leader: None,
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(e)) => Err(unreachable(root_cause(&e))),
        Err(_) => Err(unreachable(format!("no answer within {} ms", timeout.as_millis()))),
    }
}

/// A channel that connects at its first use and again after a failure.
pub fn connect_lazy(address: &Address, timeout: Duration) -> Result<Channel, RemoteError> {
    let endpoint = endpoint(address, timeout)?;
    Ok(match address {
        Address::Tcp(_) => endpoint.connect_lazy(),
        Address::Unix(path) => endpoint.connect_with_connector_lazy(unix_connector(path.clone())),
    })
}

fn unix_connector(
    path: PathBuf,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<UnixStream>,
    Error = std::io::Error,
    Future = impl Future<Output = std::io::Result<TokioIo<UnixStream>>> + Send,
> + Clone
+ Send {
    service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    })
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

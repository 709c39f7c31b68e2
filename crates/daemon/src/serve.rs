//! Listening: the local socket for this machine's owner, TLS for the cluster and its clients. Both
//! serve the same API, each to whom it is for (`authorize`).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::internal::leader_service_server::LeaderServiceServer;
use holdfast_proto::internal::peer_service_server::PeerServiceServer;
use holdfast_proto::v1::cluster_service_server::ClusterServiceServer;
use holdfast_proto::v1::container_service_server::ContainerServiceServer;
use holdfast_proto::v1::event_service_server::EventServiceServer;
use holdfast_proto::v1::image_service_server::ImageServiceServer;
use holdfast_proto::v1::operation_service_server::OperationServiceServer;
use holdfast_proto::v1::pool_service_server::PoolServiceServer;
use holdfast_proto::v1::snapshot_service_server::SnapshotServiceServer;
use holdfast_proto::{MAX_MESSAGE_BYTES, MAX_VIEW_BYTES, STREAM_FRAME, STREAM_WINDOW};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::Router;
use tower::Layer;
use tower::layer::util::{Identity, Stack};
use tower::util::BoxCloneSyncService;

use crate::accept::connections;
use crate::api::{
    ClusterApi, ContainerApi, EventApi, ImageApi, OperationApi, Origin, PoolApi, SnapshotApi,
};
use crate::authorize::Guard;
use crate::config::Config;
use crate::error::DaemonError;
use crate::gate::RaftGate;
use crate::leader::LeaderApi;
use crate::metrics;
use crate::peers::PeerGate;
use crate::relay::RelayApi;
use crate::startup::Shell;

/// How long calls under way may take when the daemon stops.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// A peer that is silent for so long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Calls of one node at a time: more than any makes, and a bound all the same.
const STREAMS: u32 = 8_192;

/// An admission is a few kilobytes, and takes a few seconds.
const LOBBY_WINDOW: u32 = 64 << 10;
const LOBBY_STREAMS: u32 = 4;
const LOBBY_PATIENCE: Duration = Duration::from_secs(10);

/// A service that takes and gives messages as large as any.
macro_rules! sized {
    ($server:ident, $service:expr) => {
        $server::new($service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    };
}

/// Both listeners, bound before anything else is done, so that a taken port changes nothing.
pub(crate) struct Listeners {
    local: UnixListener,
    socket: SocketFile,
    remote: TcpListener,
    metrics: Option<TcpListener>,
}

/// The servers, running.
pub(crate) struct Servers {
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
}

/// Removes the socket's file when dropped.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already; nothing else would be of use to anybody now.
        drop(fs::remove_file(&self.0));
    }
}

impl Listeners {
    pub(crate) async fn bind(config: &Config) -> Result<Self, DaemonError> {
        let remote = bind_tcp(&config.listen).await?;
        let metrics = match &config.metrics {
            Some(address) => Some(bind_tcp(address).await?),
            None => None,
        };
        let listen =
            |source| DaemonError::Listen { address: config.socket.display().to_string(), source };
        let local = bind_socket(&config.socket).map_err(listen)?;
        Ok(Self { local, socket: SocketFile(config.socket.clone()), remote, metrics })
    }

    /// Serves until told to stop; a server that ends by itself has failed.
    pub(crate) fn serve(self, shell: &Arc<Shell>) -> Servers {
        let Self { local, socket, remote, metrics } = self;
        let mut tasks = JoinSet::new();
        let stop = CancellationToken::new();
        let local_guard = guard(shell, Origin::Local);
        let here = router(shell, &local_guard, &stop);
        let asked = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            let _socket = socket;
            let local = UnixListenerStream::new(local);
            report("the local server", here.serve_with_incoming_shutdown(local, asked).await)
        });
        let there = router(shell, &guard(shell, Origin::Remote), &stop);
        let [nodes, strangers] = connections(remote, shell.keyring().clone());
        let asked = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            report("the server", there.serve_with_incoming_shutdown(nodes, asked).await)
        });
        let lobby = lobby(shell);
        let asked = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            report("the lobby", lobby.serve_with_incoming_shutdown(strangers, asked).await)
        });
        if let Some(listener) = metrics {
            let (gate, asked) = (shell.gate().clone(), stop.clone());
            tasks.spawn(async move {
                asked.run_until_cancelled(metrics::serve(listener, gate)).await;
                "the metrics server"
            });
        }
        Servers { tasks, stop }
    }
}

impl Servers {
    /// Returns the name of a server that has ended.
    pub(crate) async fn ended(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(task)) => task,
            Some(Err(_)) | None => "a server",
        }
    }

    /// Takes no new calls.
    pub(crate) fn close(&self) {
        self.stop.cancel();
    }

    /// Returns once the calls under way have ended, or have had their time.
    pub(crate) async fn closed(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // What is left are streams without end; they end with the runtime.
        drop(timeout(CLOSE_PATIENCE, all).await);
    }
}

/// A server never ends by itself; if one does, that is the end of the daemon.
fn report(task: &'static str, ended: Result<(), tonic::transport::Error>) -> &'static str {
    if let Err(error) = ended {
        tracing::error!(task, %error, "a server failed");
    }
    task
}

async fn bind_tcp(address: &str) -> Result<TcpListener, DaemonError> {
    let listen = |source| DaemonError::Listen { address: address.to_owned(), source };
    TcpListener::bind(address).await.map_err(listen)
}

/// The socket appears under its name only once nobody but its owner can open it. One that a dead
/// daemon left behind is replaced.
fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers there"));
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut temp = path.as_os_str().to_owned();
    temp.push(".new");
    let temp = PathBuf::from(temp);
    match fs::remove_file(&temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&temp)?;
    fs::set_permissions(&temp, fs::Permissions::from_mode(0o600))?;
    fs::rename(&temp, path)?;
    Ok(listener)
}

fn guard(shell: &Arc<Shell>, origin: Origin) -> Guard {
    Guard { gate: shell.gate().clone(), keyring: shell.keyring().clone(), origin }
}

fn router(
    shell: &Arc<Shell>,
    guard: &Guard,
    stop: &CancellationToken,
) -> Router<Stack<Guard, Identity>> {
    let gate = || shell.gate().clone();
    let api = api(shell, guard.origin);
    let relayed = BoxCloneSyncService::new(guard.layer(api.clone()));
    tonic::transport::Server::builder()
        .layer(guard.clone())
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * 2)
        .max_frame_size(STREAM_FRAME)
        .max_concurrent_streams(STREAMS)
        .add_routes(api.clone())
        .add_service(RelayApi::server(relayed, stop.clone()))
        .add_service(sized!(PeerServiceServer, PeerGate(gate())))
        .add_service(RaftGate(gate()))
}

/// What strangers are served: a place to ask to be let in, and little memory for it.
fn lobby(shell: &Arc<Shell>) -> Router<Stack<Guard, Identity>> {
    let leader = LeaderServiceServer::new(LeaderApi { gate: shell.gate().clone() });
    tonic::transport::Server::builder()
        .layer(guard(shell, Origin::Remote))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(LOBBY_WINDOW)
        .initial_connection_window_size(LOBBY_WINDOW)
        .max_concurrent_streams(LOBBY_STREAMS)
        .timeout(LOBBY_PATIENCE)
        .add_service(leader.max_decoding_message_size(LOBBY_WINDOW as usize))
}

/// What clients call, and nodes the leader.
fn api(shell: &Arc<Shell>, origin: Origin) -> Routes {
    let gate = || shell.gate().clone();
    let cluster = ClusterApi { gate: gate(), shell: shell.clone(), origin };
    let pool = PoolApi { gate: gate(), shell: shell.clone() };
    let leader = sized!(LeaderServiceServer, LeaderApi { gate: gate() })
        .max_encoding_message_size(MAX_VIEW_BYTES);
    Routes::new(sized!(ClusterServiceServer, cluster))
        .add_service(sized!(ContainerServiceServer, ContainerApi { gate: gate() }))
        .add_service(sized!(ImageServiceServer, ImageApi { gate: gate() }))
        .add_service(sized!(OperationServiceServer, OperationApi { gate: gate() }))
        .add_service(sized!(PoolServiceServer, pool))
        .add_service(sized!(SnapshotServiceServer, SnapshotApi { gate: gate() }))
        .add_service(sized!(EventServiceServer, EventApi { gate: gate() }))
        .add_service(leader)
}

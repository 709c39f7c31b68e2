//! The connection: the real gRPC service `PeerService.Receive` over loopback TCP, with the windows,
//! queues and message sizes of `holdfastd`, and the pool's own encoder and receiver at its ends. What
//! the agent decides around it (which base, when, at what rate) is not part of it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use holdfast_proto::internal::peer_service_client::PeerServiceClient;
use holdfast_proto::internal::peer_service_server::{PeerService, PeerServiceServer};
use holdfast_proto::internal::{
    OfferRequest, OfferResponse, ReceiveRequest, ReceiveResponse, RestampRequest, RestampResponse,
    SealRequest, SealResponse, SyncNowRequest, SyncNowResponse, receive_request::Part,
};
use holdfast_proto::{Address, Dialer, MAX_MESSAGE_BYTES, STREAM_FRAME, STREAM_WINDOW};
use holdfast_storage::xfs::XfsPool;
use holdfast_storage::{Begin, Offer, Pool, stream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// As in the agent.
const FRAMES_AHEAD: usize = 4;

/// What a transfer came to.
pub(crate) struct Shipped {
    pub(crate) seconds: f64,
    /// Bytes of frames.
    pub(crate) wire: u64,
    /// Of that time, until the first frame was made: comparing and opening.
    pub(crate) first_s: f64,
    /// Processor time of both ends.
    pub(crate) used_s: f64,
    /// The most that this process grew by, both ends together, in MiB.
    pub(crate) grew_mib: f64,
}

/// A server for the target, and its client.
pub(crate) struct Link {
    runtime: Runtime,
    client: PeerServiceClient<tonic::transport::Channel>,
}

/// Receives; the offer stands for what `ReceiveStart` says.
struct Target {
    pool: Arc<XfsPool>,
}

impl Link {
    pub(crate) fn new(pool: Arc<XfsPool>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let address = Address::Tcp(listener.local_addr()?.to_string());
            let service = PeerServiceServer::new(Target { pool })
                .max_decoding_message_size(MAX_MESSAGE_BYTES);
            let server = tonic::transport::Server::builder()
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(STREAM_WINDOW * 2)
                .max_frame_size(STREAM_FRAME)
                .add_service(service);
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            let channel =
                Dialer::plaintext().connect(&address, std::time::Duration::from_secs(5)).await;
            channel.map(PeerServiceClient::new).map_err(anyhow::Error::from)
        })?;
        Ok(Self { runtime, client })
    }

    pub(crate) fn ship(&self, pool: Arc<XfsPool>, offer: Offer) -> Result<Shipped> {
        let (before, used) = (peak_mib(true)?, crate::rig::used()?);
        let began = Instant::now();
        let mut client = self.client.clone();
        let (frames, requests) = mpsc::channel(FRAMES_AHEAD);
        // The whole offer travels where a part of it does.
        let start = Part::Frame(serde_json::to_vec(&offer)?.into());
        let reading = move || -> Result<(u64, f64)> {
            let send = |part| {
                let sent = frames.blocking_send(ReceiveRequest { part: Some(part) });
                sent.map_err(|_| anyhow!("the receiver is gone"))
            };
            send(start)?;
            let (mut wire, mut first_s) = (0, None);
            for frame in stream::send(&*pool, &offer, 0)? {
                let frame = frame?;
                first_s.get_or_insert_with(|| began.elapsed().as_secs_f64());
                wire += frame.len() as u64;
                send(Part::Frame(frame))?;
            }
            Ok((wire, first_s.unwrap_or_default()))
        };
        let (read, sent) = self.runtime.block_on(async move {
            let reading = tokio::task::spawn_blocking(reading);
            tokio::join!(reading, client.receive(ReceiverStream::new(requests)))
        });
        // The receiver's refusal explains why the reader could not go on.
        sent?;
        let (wire, first_s) = read??;
        let seconds = began.elapsed().as_secs_f64();
        let (used_s, grew_mib) = (crate::rig::used()? - used, peak_mib(false)? - before);
        Ok(Shipped { seconds, wire, first_s, used_s, grew_mib })
    }
}

#[tonic::async_trait]
impl PeerService for Target {
    async fn receive(
        &self,
        request: Request<Streaming<ReceiveRequest>>,
    ) -> Result<Response<ReceiveResponse>, Status> {
        let mut stream = request.into_inner();
        let failed = |error: String| Status::internal(error);
        let first = frame(&mut stream).await?.ok_or_else(|| failed("no offer".to_owned()))?;
        let offer = serde_json::from_slice(&first).map_err(|e| failed(e.to_string()))?;
        let (frames, incoming) = mpsc::channel(FRAMES_AHEAD);
        let pool = self.pool.clone();
        let writing = tokio::task::spawn_blocking(move || write(&pool, &offer, incoming));
        while let Some(bytes) = frame(&mut stream).await? {
            if frames.send(bytes).await.is_err() {
                break;
            }
        }
        drop(frames);
        let written = writing.await.map_err(|e| failed(e.to_string()))?;
        written.map_err(|e| failed(format!("{e:?}")))?;
        Ok(Response::new(ReceiveResponse {}))
    }

    async fn seal(&self, _: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        Err(Status::unimplemented("a bench"))
    }

    async fn offer(&self, _: Request<OfferRequest>) -> Result<Response<OfferResponse>, Status> {
        Err(Status::unimplemented("a bench"))
    }

    async fn restamp(
        &self,
        _: Request<RestampRequest>,
    ) -> Result<Response<RestampResponse>, Status> {
        Err(Status::unimplemented("a bench"))
    }

    async fn sync_now(
        &self,
        _: Request<SyncNowRequest>,
    ) -> Result<Response<SyncNowResponse>, Status> {
        Err(Status::unimplemented("a bench"))
    }
}

async fn frame(stream: &mut Streaming<ReceiveRequest>) -> Result<Option<Bytes>, Status> {
    Ok(match stream.message().await?.and_then(|request| request.part) {
        Some(Part::Frame(bytes)) => Some(bytes),
        _ => None,
    })
}

fn write(pool: &XfsPool, offer: &Offer, mut incoming: mpsc::Receiver<Bytes>) -> Result<()> {
    let Begin::Receive(mut receiver) = pool.begin_receive(offer)? else {
        anyhow::bail!("it is there already")
    };
    while let Some(bytes) = incoming.blocking_recv() {
        receiver.feed(&bytes)?;
    }
    receiver.finish()?;
    Ok(())
}

/// The most memory that this process has had, or, counted anew, has now (`proc(5)`).
fn peak_mib(anew: bool) -> Result<f64> {
    if anew {
        std::fs::write("/proc/self/clear_refs", "5")?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.context("VmHWM in /proc/self/status")? / 1024.0)
}

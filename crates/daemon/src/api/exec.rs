//! Running a program in a container: routed to the container's node, and bridged there between
//! the call's two streams and the program's three.
//!
//! ```text
//! client ──stdin──▶ feed ──▶ │ program │ ──stdout, stderr──▶ carry ──▶ client
//!                            └── ends ──▶ what is left of the output ──▶ exit status
//! client gone ──▶ killed
//! ```

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_proto::v1;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use holdfast_proto::v1::exec_request::Part as In;
use holdfast_proto::v1::exec_response::Part as Out;
use holdfast_runtime::{ExecChild, ExecRequest, ExecSession, ExecStatus, RuntimeError};
use holdfast_types::{Code, ContainerUid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::container::Answers;
use super::route::{self, Route};
use crate::fault::Fault;
use crate::forward::Call;
use crate::member::Member;

/// Output on its way to the client, in messages.
const QUEUE: usize = 16;

/// The most output in one message.
const PART_BYTES: usize = 32 << 10;

/// How often it is looked whether the client is still there.
const LOOK: Duration = Duration::from_millis(250);

/// What a program left running in the background may hold its output open for no longer.
const DRAIN: Duration = Duration::from_secs(1);

type Output = mpsc::Sender<Result<v1::ExecResponse, Status>>;

/// Runs it here, or has the container's node run it.
pub(super) async fn exec(
    member: Arc<Member>,
    request: Request<Streaming<v1::ExecRequest>>,
) -> Result<Answers<v1::ExecResponse>, Fault> {
    let looked_up = route::looked_up(request.metadata())?;
    let (call, mut input) = Call::open(request, Duration::ZERO);
    let Some(In::Start(start)) = input.message().await?.and_then(|first| first.part) else {
        return Err(Fault::new(Code::InvalidArgument, "the first message carries no start"));
    };
    if start.command.is_empty() {
        return Err(Fault::new(Code::InvalidArgument, "there is no command to run"));
    }
    let route = match looked_up {
        Some(uid) => Route::Here(uid),
        None => route::find(&member, &call, &start.name).await?,
    };
    match route {
        Route::Here(uid) => here(&member, uid, start, input).await,
        Route::There(uid, channel) => {
            let first = v1::ExecRequest { part: Some(In::Start(start)) };
            let all = tokio_stream::once(first).chain(input.map_while(Result::ok));
            let request = route::directed(call.onward(all), uid);
            let answer = ContainerServiceClient::new(channel).exec(request).await?;
            Ok(Box::pin(answer.into_inner()))
        }
    }
}

async fn here(
    member: &Member,
    uid: ContainerUid,
    start: v1::ExecStart,
    input: Streaming<v1::ExecRequest>,
) -> Result<Answers<v1::ExecResponse>, Fault> {
    let request = ExecRequest { command: start.command, env: start.env, terminal: None };
    let session = member.duties.exec(uid, request).await?;
    let (out, stream) = mpsc::channel(QUEUE);
    tokio::spawn(bridge(session, input, out));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

async fn bridge(session: ExecSession, input: Streaming<v1::ExecRequest>, out: Output) {
    let ExecSession { stdin, stdout, stderr, child } = session;
    let feeding = tokio::spawn(feed(stdin, input));
    let carriers = [
        tokio::spawn(carry(stdout, out.clone(), Out::Stdout)),
        tokio::spawn(carry(stderr, out.clone(), Out::Stderr)),
    ];
    let ended = wait(child, out.clone()).await;
    feeding.abort();
    drain(carriers).await;
    let last = match ended {
        Ok(status) => Ok(v1::ExecResponse { part: Some(Out::ExitStatus(number(status))) }),
        Err(fault) => Err(Status::from(fault)),
    };
    // A client that is gone does not mind.
    drop(out.send(last).await);
}

/// Waits for the program's end, and kills it when its client is gone.
async fn wait(mut child: Box<dyn ExecChild>, out: Output) -> Result<ExecStatus, Fault> {
    let ended = tokio::task::spawn_blocking(move || {
        loop {
            match child.wait(LOOK) {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if out.is_closed() => child.kill(),
                Ok(None) => {}
                Err(e) => return Err(e),
            }
        }
    });
    match ended.await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(e)) => Err(runtime_fault(&e)),
        Err(e) => Err(Fault::new(Code::Internal, format!("nobody waits for the program: {e}"))),
    }
}

fn runtime_fault(error: &RuntimeError) -> Fault {
    Fault::new(error.code(), error.to_string())
}

async fn drain(carriers: [JoinHandle<()>; 2]) {
    let deadline = tokio::time::Instant::now() + DRAIN;
    for mut carrier in carriers {
        if tokio::time::timeout_at(deadline, &mut carrier).await.is_err() {
            carrier.abort();
        }
    }
}

/// Passes input on until the client says that there is no more.
async fn feed(stdin: Option<OwnedFd>, mut input: Streaming<v1::ExecRequest>) {
    let Some(Ok(mut stdin)) = stdin.map(pipe::Sender::from_owned_fd) else { return };
    while let Ok(Some(v1::ExecRequest { part: Some(In::Stdin(data)) })) = input.message().await {
        // A program that has closed its input wants no more.
        if stdin.write_all(&data).await.is_err() {
            return;
        }
    }
}

async fn carry(from: Option<OwnedFd>, out: Output, part: fn(Bytes) -> Out) {
    let Some(Ok(mut from)) = from.map(pipe::Receiver::from_owned_fd) else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PART_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let part = Some(part(buffer.split().freeze()));
        if out.send(Ok(v1::ExecResponse { part })).await.is_err() {
            return;
        }
    }
}

/// As a shell would say it.
fn number(status: ExecStatus) -> i32 {
    match status {
        ExecStatus::Exited(status) => status,
        ExecStatus::Signaled(signal) => 128 + signal,
    }
}

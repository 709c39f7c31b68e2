//! Importing an image: asked first, then streamed to this node's agent, then recorded.
//!
//! ```text
//! start ─▶ may it? (leader) ─▶ bytes ─▶ agent unpacks, verifies, makes durable ─▶ AddImage (leader)
//! ```

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::internal::{AddImageRequest, AddImageResponse, UnpackedImage};
use holdfast_proto::v1;
use holdfast_proto::v1::import_request::Part;
use holdfast_types::{ByteSize, Code, ImageName, ImageUid, RequestId};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use crate::channels::There;
use crate::clock;
use crate::fault::Fault;
use crate::forward::Call;
use crate::leader::{add_image, request_id};
use crate::machine::Unpacked;
use crate::member::Member;

/// The size of an image's filesystem if nobody says. It is thin: only its content takes space.
const DEFAULT_SIZE: ByteSize = ByteSize::gib(1);

/// Parts of the archive on their way to the agent.
const QUEUE: usize = 16;

/// Between two parts of the archive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Imports an image on this node.
pub(super) async fn import(
    member: Arc<Member>,
    mut parts: Streaming<v1::ImportRequest>,
) -> Result<v1::ImportResponse, Fault> {
    let Some(Part::Start(start)) = parts.message().await?.and_then(|first| first.part) else {
        return Err(Fault::new(Code::InvalidArgument, "the first message carries no start"));
    };
    let name: ImageName = start.name.parse()?;
    let id = request_id(&start.request_id)?;
    let size = if start.size_bytes == 0 { DEFAULT_SIZE } else { ByteSize(start.size_bytes) };
    ask(&member, &request(&member, &name, RequestId::generate(), None)).await?;

    let uid = ImageUid::generate();
    let (feed, archive) = mpsc::channel(QUEUE);
    let unpack = member.duties.import_image(uid, size, Box::new(Archive::new(archive)));
    let (unpacked, fed) = tokio::join!(unpack, pump(parts, feed));
    // What went wrong with the upload explains what the agent made of it, not the reverse.
    fed?;
    let unpacked = unpacked?;
    let recorded = ask(&member, &request(&member, &name, id, Some((uid, &unpacked)))).await;
    let answer = match recorded {
        Ok(answer) => answer,
        Err(fault) => {
            // An outcome that is not known may be an image; the agent sorts that out by its view.
            if fault.code == Code::AlreadyExists {
                member.duties.discard_image(uid).await?;
            }
            return Err(fault);
        }
    };
    // Not ours if the request is a retry of one that succeeded.
    let uid = ImageUid::try_from(&answer.uid[..])?;
    Ok(v1::ImportResponse { image: Some(shown(&member, uid, &name, &unpacked)) })
}

/// The request to record an image, or without one the question whether it could be.
fn request(
    member: &Member,
    name: &ImageName,
    id: RequestId,
    image: Option<(ImageUid, &Unpacked)>,
) -> AddImageRequest {
    AddImageRequest {
        cluster_id: member.cluster().to_bytes().into(),
        node_id: member.node().0,
        name: name.to_string(),
        request_id: id.to_bytes().into(),
        image: image.map(|(uid, unpacked)| UnpackedImage {
            uid: uid.to_bytes().into(),
            size_bytes: unpacked.size.bytes(),
            snapshot: Some(unpacked.snapshot.into()),
            entries: unpacked.entries,
            content_bytes: unpacked.content.bytes(),
            has_init: unpacked.has_init,
        }),
    }
}

async fn ask(member: &Arc<Member>, request: &AddImageRequest) -> Result<AddImageResponse, Fault> {
    let call = Call::begin(Duration::ZERO);
    let there = |there: There| {
        let request = call.onward(request.clone());
        async move { LeaderServiceClient::new(there.relay).add_image(request).await }
    };
    member.at_leader(&call, |lead| add_image(lead, request.clone()), there).await
}

/// As it was made. Its version is told where this node has applied its entry already.
fn shown(member: &Member, uid: ImageUid, name: &ImageName, unpacked: &Unpacked) -> v1::Image {
    let state = member.raft.as_ref().map(|raft| raft.state());
    let image = state.as_ref().and_then(|state| state.images.get(&uid));
    v1::Image {
        uid: uid.to_string(),
        name: name.to_string(),
        size_bytes: unpacked.size.bytes(),
        entries: unpacked.entries,
        content_bytes: unpacked.content.bytes(),
        has_init: unpacked.has_init,
        nodes: vec![member.identity.name.to_string()],
        created_ms: clock::wall().0,
        revision: image.map_or(0, |image| image.revision.0),
    }
}

/// Passes the archive on, in order. Ends well when the agent wants no more of it.
async fn pump(
    mut parts: impl Stream<Item = Result<v1::ImportRequest, Status>> + Unpin,
    feed: mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), Fault> {
    let mut size_bytes = 0;
    loop {
        let next = tokio::time::timeout(PATIENCE, parts.next()).await;
        let part = next.map(|message| message.transpose().map(|m| m.and_then(|m| m.part)));
        let fault = match part {
            Ok(Ok(Some(Part::Data(data)))) => {
                size_bytes += data.len() as u64;
                if feed.send(Ok(data)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            Ok(Ok(Some(Part::End(end)))) if end.size_bytes == size_bytes => return Ok(()),
            // Also what a call looks like that its client has given up.
            Ok(Ok(None | Some(Part::End(_)))) => {
                Fault::new(Code::StreamCorrupt, "the archive did not come to its end")
            }
            Ok(Ok(Some(Part::Start(_)))) => Fault::new(Code::InvalidArgument, "a second start"),
            Ok(Err(status)) => Fault::from(status),
            Err(_) => Fault::new(Code::Timeout, "the archive stopped coming"),
        };
        // A cut archive must not look like a whole one.
        let cut = io::Error::new(io::ErrorKind::ConnectionAborted, fault.message.clone());
        drop(feed.send(Err(cut)).await);
        return Err(fault);
    }
}

/// The archive as a blocking reader.
struct Archive {
    parts: mpsc::Receiver<io::Result<Bytes>>,
    part: Bytes,
}

impl Archive {
    fn new(parts: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { parts, part: Bytes::new() }
    }
}

impl Read for Archive {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                None => return Ok(0),
                Some(part) => self.part = part?,
            }
        }
        let len = buf.len().min(self.part.len());
        self.part.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that its client gave up looked like an archive that was whole.
    #[tokio::test]
    async fn an_archive_without_its_end_is_not_whole() {
        let data = |text: &'static str| Part::Data(Bytes::from_static(text.as_bytes()));
        let end = |size_bytes| Part::End(v1::ImportEnd { size_bytes });
        let pumped = async |parts: Vec<Part>| {
            let messages = parts.into_iter().map(|part| Ok(v1::ImportRequest { part: Some(part) }));
            let (feed, mut archive) = mpsc::channel(8);
            let ended = pump(tokio_stream::iter(messages), feed).await.map_err(|fault| fault.code);
            let mut cut = false;
            while let Some(part) = archive.recv().await {
                cut |= part.is_err();
            }
            (ended, cut)
        };
        let cut = (Err(Code::StreamCorrupt), true);
        assert_eq!(pumped(vec![data("abc"), data("de"), end(5)]).await, (Ok(()), false));
        assert_eq!(pumped(vec![data("abc"), data("de")]).await, cut);
        assert_eq!(pumped(vec![data("abc"), end(5)]).await, cut);
        assert_eq!(pumped(vec![]).await, cut);
    }

    #[test]
    fn an_archive_reads_whole_and_a_cut_one_fails() {
        let (feed, parts) = mpsc::channel(4);
        for part in ["abc", "", "de"] {
            feed.try_send(Ok(Bytes::from_static(part.as_bytes()))).unwrap();
        }
        drop(feed);
        let mut text = String::new();
        Archive::new(parts).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcde");

        let (feed, parts) = mpsc::channel(4);
        feed.try_send(Ok(Bytes::from_static(b"abc"))).unwrap();
        feed.try_send(Err(io::ErrorKind::ConnectionAborted.into())).unwrap();
        assert!(Archive::new(parts).read_to_string(&mut text).is_err());
    }
}

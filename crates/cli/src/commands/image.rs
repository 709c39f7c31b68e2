//! `holdfast image`: import archives and directories, list, remove.
//!
//! An archive is sent as it is; the node unpacks and checks it. A directory becomes a tar stream on
//! the fly. What cannot be read to its end is never sent as if it were whole: the call is abandoned
//! instead, and the node keeps nothing.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write, stdin};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use futures::{Stream, StreamExt, stream};
use holdfast_cli::client::import_start;
use holdfast_proto::v1;
use holdfast_proto::v1::import_request::Part;
use holdfast_types::{ByteSize, ImageName};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::mpsc;

use super::container::Condition;
use super::{Context, pack};
use crate::error::CliError;
use crate::output::show;
use crate::progress;
use crate::view::ImageView;

/// Bytes of the archive in one message.
const CHUNK: usize = 256 << 10;

/// Messages read ahead.
const AHEAD: usize = 4;

const EXAMPLES: &str = "\
Examples:
  holdfast image import debian12 rootfs.tar.zst
  holdfast image import mine ./rootfs --size 2GiB
  mmdebstrap --variant=minbase bookworm - | holdfast image import debian12 -";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an image from a root filesystem
    #[command(after_help = EXAMPLES)]
    Import {
        /// The new image's name: a-z, 0-9 and '-'
        name: ImageName,
        /// A tar archive (plain, .gz, .zst or .xz), a directory, or - for standard input
        source: PathBuf,
        /// Size of the image's filesystem, and the least that its containers' disks have [default: 1GiB]
        #[arg(long, value_name = "SIZE")]
        size: Option<ByteSize>,
    },
    /// List the images
    Ls,
    /// Remove an image; containers made from it keep their disks
    Rm {
        /// The image's name
        name: ImageName,
        #[command(flatten)]
        condition: Condition,
    },
}

impl Command {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Import { name, source, size } => import(context, name, source, size).await,
            Self::Ls => {
                let images = context.session.images().await?;
                let views: Vec<_> = images.into_iter().map(ImageView::from).collect();
                context.show(&views, || ImageView::table(&views))
            }
            Self::Rm { name, condition } => {
                context.session.delete_image(&name, condition.version()).await?;
                show(context.format, &json!({ "name": name }), || format!("{name}: removed"))
            }
        }
    }
}

async fn import(
    context: &Context,
    name: ImageName,
    source: PathBuf,
    size: Option<ByteSize>,
) -> Result<(), CliError> {
    let archive = Archive::open(&source)?;
    let bar = progress::bytes(archive.size());
    bar.set_message(format!("importing {name}"));
    let (sender, receiver) = mpsc::channel(AHEAD);
    let mut writer = ChunkWriter { sender: sender.clone(), bar: bar.clone() };
    let reading = tokio::task::spawn_blocking(move || {
        archive.send_to(&mut writer)?;
        writer.end();
        Ok(())
    });
    let failed = async {
        match reading.await {
            // Either all is sent, or nobody listens any more: the call's own answer says why.
            Ok(Ok(())) => None,
            Ok(Err(_)) if sender.is_closed() => None,
            Ok(Err(error)) => Some(error),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    };
    let start = stream::iter([import_start(&name, size.map_or(0, ByteSize::bytes))]);
    let parts = start.chain(data_parts(receiver)).boxed();
    let image = tokio::select! {
        image = context.session.import(parts) => image.map_err(CliError::from),
        Some(error) = failed => Err(error),
    };
    bar.finish_and_clear();
    let view = ImageView::from(image?);
    show(context.format, &view, || view.sentence())
}

/// What the reading thread sends.
enum Piece {
    Data(Vec<u8>),
    End,
}

/// The archive's parts, and its end. Without an [`Piece::End`] the stream stays open for ever, and a
/// server never sees the end of half an archive: that the stream ends is no sign, a call that is given
/// up looks the same.
fn data_parts(receiver: mpsc::Receiver<Piece>) -> impl Stream<Item = v1::ImportRequest> + Send {
    stream::unfold(Some((receiver, 0)), async |open| {
        let (mut receiver, sent) = open?;
        let (part, open) = match receiver.recv().await {
            Some(Piece::Data(data)) => {
                let sent = sent + data.len() as u64;
                (Part::Data(data.into()), Some((receiver, sent)))
            }
            Some(Piece::End) => (Part::End(v1::ImportEnd { size_bytes: sent }), None),
            None => std::future::pending().await,
        };
        Some((v1::ImportRequest { part: Some(part) }, open))
    })
}

/// Where an archive comes from.
enum Archive {
    Stdin,
    File { path: PathBuf, file: File, size: Option<u64> },
    Dir(PathBuf),
}

impl Archive {
    fn open(source: &Path) -> Result<Self, CliError> {
        if source.as_os_str() == "-" {
            let terminal = stdin().is_terminal();
            return if terminal { Err(CliError::Terminal) } else { Ok(Self::Stdin) };
        }
        let open = || {
            let file = File::open(source)?;
            let meta = file.metadata()?;
            io::Result::Ok((file, meta))
        };
        let (file, meta) = open().map_err(|source_error| read_error(source, source_error))?;
        let path = source.to_owned();
        let size = meta.is_file().then_some(meta.len());
        Ok(if meta.is_dir() { Self::Dir(path) } else { Self::File { path, file, size } })
    }

    /// Bytes that will be sent, if that is known before.
    fn size(&self) -> Option<u64> {
        match self {
            Self::File { size, .. } => *size,
            Self::Stdin | Self::Dir(_) => None,
        }
    }

    fn send_to(self, writer: &mut ChunkWriter) -> Result<(), CliError> {
        let copied = |mut from: Box<dyn Read>, writer: &mut ChunkWriter| {
            let mut buffer = BufWriter::with_capacity(CHUNK, writer);
            io::copy(&mut from, &mut buffer)?;
            buffer.flush()
        };
        match self {
            Self::Stdin => copied(Box::new(stdin()), writer)
                .map_err(|e| read_error(Path::new("standard input"), e)),
            Self::File { path, file, .. } => {
                copied(Box::new(file), writer).map_err(|e| read_error(&path, e))
            }
            Self::Dir(path) => pack::pack(&path, BufWriter::with_capacity(CHUNK, writer)),
        }
    }
}

fn read_error(path: &Path, source: io::Error) -> CliError {
    CliError::Read { what: path.display().to_string(), source }
}

/// Each write becomes one message; a full queue makes the writer wait.
struct ChunkWriter {
    sender: mpsc::Sender<Piece>,
    bar: ProgressBar,
}

impl ChunkWriter {
    fn end(&self) {
        // If nobody listens any more, the call has ended with an answer of its own.
        drop(self.sender.blocking_send(Piece::End));
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let part = &data[..data.len().min(CHUNK)];
        let sent = self.sender.blocking_send(Piece::Data(part.to_vec()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.bar.inc(part.len() as u64);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn next(parts: &mut (impl Stream<Item = v1::ImportRequest> + Unpin)) -> Option<Option<usize>> {
        let length = |part: v1::ImportRequest| match part.part {
            Some(Part::Data(data)) => data.len(),
            other => panic!("not data: {other:?}"),
        };
        parts.next().now_or_never().map(|part| part.map(length))
    }

    #[test]
    fn half_an_archive_never_comes_to_a_regular_end() {
        let (sender, receiver) = mpsc::channel(4);
        let mut parts = data_parts(receiver).boxed();
        sender.try_send(Piece::Data(vec![1; 3])).unwrap();
        drop(sender);
        assert_eq!(next(&mut parts), Some(Some(3)));
        assert_eq!(next(&mut parts), None, "still open");
    }

    #[test]
    fn a_whole_archive_ends_with_its_size() {
        let (sender, receiver) = mpsc::channel(4);
        let mut parts = data_parts(receiver).boxed();
        sender.try_send(Piece::Data(vec![1; 3])).unwrap();
        sender.try_send(Piece::End).unwrap();
        assert_eq!(next(&mut parts), Some(Some(3)));
        let end = parts.next().now_or_never().flatten().and_then(|message| message.part);
        assert_eq!(end, Some(Part::End(v1::ImportEnd { size_bytes: 3 })));
        assert_eq!(next(&mut parts), Some(None));
    }
}

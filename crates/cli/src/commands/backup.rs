//! `holdfast cluster backup`, `restore`: the cluster's state as a file, and a new cluster of one.
//!
//! ```text
//! parts ─▶ checked as they come ─▶ FILE.part (0600) ─hash right─▶ fsync ─▶ FILE
//! ```
//! So FILE is always whole: what broke off leaves nothing, and what was there before stays.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write, stderr, stdin};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::{Stream, StreamExt};
use holdfast_proto::backup::{Backup, BackupCheck};
use holdfast_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Context;
use crate::error::CliError;
use crate::output::{bytes, show};
use crate::view::{BackupView, RestoredView};

/// Bytes read or sent at once.
const PART: usize = 256 << 10;

/// Parts read ahead.
const AHEAD: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct Take {
    /// The file to write, or - for standard output; with --verify the one to check
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long, conflicts_with = "verify")]
    force: bool,
    /// Check a backup and show what is in it; asks no cluster
    #[arg(long)]
    verify: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup
    file: PathBuf,
    /// Do not ask: nothing of the cluster that the backup was taken of runs any more
    #[arg(long)]
    yes_the_old_cluster_is_gone: bool,
}

impl Take {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        if self.verify {
            let (backup, size) = verify(&self.file)?;
            let view = BackupView::new(backup, size);
            return show(context.format, &view, || view.table());
        }
        if self.file == Path::new("-") {
            return to_stdout(context).await;
        }
        if !self.force && self.file.exists() {
            return Err(CliError::Exists(self.file));
        }
        let (backup, size) = to_file(context, &self.file).await?;
        let view = BackupView::new(backup, size);
        show(context.format, &view, || view.table())
    }
}

/// What the node sends, checked, to `take`.
async fn receive(
    context: &Context,
    mut take: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<(Backup, u64), CliError> {
    let mut parts = context.session.backup().await?;
    let (mut check, mut size) = (BackupCheck::default(), 0);
    while let Some(part) = parts.next().await {
        let part = part.map_err(holdfast_proto::RemoteError::from)?;
        check.push(&part.data)?;
        take(&part.data)?;
        size += part.data.len() as u64;
    }
    Ok((check.finish()?, size))
}

async fn to_stdout(context: &Context) -> Result<(), CliError> {
    if io::stdout().is_terminal() {
        return Err(CliError::TerminalOut);
    }
    receive(context, bytes).await.map(drop)
}

async fn to_file(context: &Context, path: &Path) -> Result<(Backup, u64), CliError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = Part(PathBuf::from(name));
    let failed = |source| CliError::WriteFile { path: part.0.clone(), source };
    let mut file = part.create().map_err(failed)?;
    let written = receive(context, |data| file.write_all(data).map_err(failed)).await?;
    file.sync_all().map_err(failed)?;
    part.keep_as(path).map_err(|source| CliError::WriteFile { path: path.into(), source })?;
    Ok(written)
}

/// A file that is not whole yet. It goes with this, unless it is kept.
struct Part(PathBuf);

impl Part {
    fn create(&self) -> io::Result<File> {
        // One that an earlier try left may have other rights.
        match fs::remove_file(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        File::options().create_new(true).write(true).mode(0o600).open(&self.0)
    }

    fn keep_as(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After it was kept there is nothing under this name.
        drop(fs::remove_file(&self.0));
    }
}

/// Reads all of it.
fn verify(path: &Path) -> Result<(Backup, u64), CliError> {
    let what = || path.display().to_string();
    let read = |source| CliError::Read { what: what(), source };
    let mut file = File::open(path).map_err(read)?;
    let (mut check, mut size, mut buffer) = (BackupCheck::default(), 0, vec![0; PART]);
    loop {
        let n = file.read(&mut buffer).map_err(read)?;
        let data = buffer.get(..n).unwrap_or_default();
        if data.is_empty() {
            break;
        }
        size += n as u64;
        check.push(data)?;
    }
    Ok((check.finish()?, size))
}

impl Restore {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let (backup, _) = verify(&self.file)?;
        if !self.yes_the_old_cluster_is_gone {
            confirm(&backup.header)?;
        }
        let restored = context.session.restore_cluster(parts(self.file)).await?;
        let view = RestoredView::from(restored);
        show(context.format, &view, || view.table())
    }
}

/// Two clusters with the same containers would run them twice, if each had copies.
fn confirm(header: &v1::BackupHeader) -> Result<(), CliError> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(CliError::OldClusterUnsure);
    }
    let question = format!(
        "This makes a new cluster of a backup of {}, entry {}. Nodes that join it bring their pools,\n\
         which the old cluster can open no more: nothing of the old cluster may run any more.\n\
         Type the old cluster's id to go on: ",
        header.cluster_id, header.index
    );
    stderr().write_all(question.as_bytes()).map_err(CliError::Write)?;
    let mut answer = String::new();
    stdin()
        .read_line(&mut answer)
        .map_err(|source| CliError::Read { what: "the answer".into(), source })?;
    match answer.trim() == header.cluster_id {
        true => Ok(()),
        false => Err(CliError::Declined("restoring".into())),
    }
}

/// The file, a few parts ahead. One that cannot be read to its end ends early, and the node refuses it.
fn parts(path: PathBuf) -> impl Stream<Item = v1::RestorePart> + Send + 'static {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let Ok(mut file) = File::open(path) else { return };
        let mut buffer = vec![0; PART];
        while let Ok(n @ 1..) = file.read(&mut buffer) {
            let data = buffer.get(..n).unwrap_or_default().to_vec().into();
            if sender.blocking_send(v1::RestorePart { data }).is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

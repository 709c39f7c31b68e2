//! A directory as an image: packed by GNU tar, which every Debian has, and unpacked like any other
//! archive, so that the same rules hold.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Budget, ImageError, ImageStats, unpack};

/// Copies a root filesystem directory into an empty directory. Sockets are left out.
pub fn copy_dir(source: &Path, target: &Path, budget: Budget) -> Result<ImageStats, ImageError> {
    let error = |source_error| ImageError::Io {
        what: "read the directory",
        path: source.to_owned(),
        source: source_error,
    };
    if !source.metadata().map_err(error)?.is_dir() {
        return Err(ImageError::NotAnArchive);
    }
    let mut tar = Command::new("tar");
    tar.args(["--create", "--file=-", "--format=pax", "--numeric-owner", "--one-file-system"]);
    tar.args(["--xattrs", "--xattrs-include=security.capability", "--xattrs-include=user.*"]);
    tar.args(["--warning=no-file-ignored", "--directory"]).arg(source).arg(".");
    tar.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut tar = tar.spawn().map_err(error)?;
    let unpacked = match tar.stdout.take() {
        Some(stream) => unpack(stream, target, budget),
        None => Err(ImageError::NotAnArchive),
    };
    if unpacked.is_err() {
        let _ = tar.kill();
    }
    let status = tar.wait().map_err(error)?;
    let stats = unpacked?;
    if !status.success() {
        let why = "it changed while it was read, or part of it cannot be read";
        return Err(error(std::io::Error::other(why)));
    }
    Ok(stats)
}

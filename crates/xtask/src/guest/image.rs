//! The kernel and root filesystem that guests boot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A directory that `deploy/guest/build` has filled.
pub(crate) struct Image(PathBuf);

impl Image {
    /// Builds it, unless it is there already.
    pub(crate) fn build(root: &Path) -> Result<Self> {
        let cache = target(root).join("guest");
        let output = Command::new(root.join("deploy/guest/build"))
            .arg(&cache)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("running deploy/guest/build")?;
        if !output.status.success() {
            bail!("deploy/guest/build: {}", output.status);
        }
        let said = String::from_utf8(output.stdout).context("deploy/guest/build's answer")?;
        Ok(Self(said.lines().last().context("deploy/guest/build said nothing")?.into()))
    }

    /// Where images are kept, and what a run leaves.
    pub(crate) fn cache(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.0.join("vmlinuz")
    }

    pub(crate) fn root_disk(&self) -> PathBuf {
        self.0.join("root.ext4")
    }
}

/// Cargo's target directory.
pub(super) fn target(root: &Path) -> PathBuf {
    root.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

#[cfg(test)]
impl Image {
    pub(crate) fn at(dir: &str) -> Self {
        Self(dir.into())
    }
}

//! The workspace as `cargo metadata` describes it, reduced to what the checks compare.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::run::cargo;

const PREFIX: &str = "holdfast-";

/// The members, in the order that cargo lists them.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) members: Vec<Member>,
}

/// One package of the workspace.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// The folder's name, by which the design calls it.
    pub(crate) folder: String,
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) manifest: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a dependency table.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for normal ones, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    pub(crate) features: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

impl Workspace {
    /// Asks cargo. Fails if `Cargo.lock` does not fit the manifests.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let args = ["metadata", "--locked", "--no-deps", "--format-version", "1"];
        let out = cargo(root).args(args).output().context("running cargo metadata")?;
        if !out.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        let metadata: Metadata =
            serde_json::from_slice(&out.stdout).context("reading cargo metadata")?;
        Ok(Self { members: metadata.packages.into_iter().map(Member::from).collect() })
    }
}

impl Member {
    /// The folders of the workspace's crates that it uses outside its tests, in order.
    pub(crate) fn internal(&self) -> Vec<&str> {
        let normal = self.dependencies.iter().filter(|d| d.is_normal());
        let mut folders: Vec<&str> = normal.filter_map(|d| d.name.strip_prefix(PREFIX)).collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    /// The name that its package must have.
    pub(crate) fn expected_package(&self) -> String {
        format!("{PREFIX}{}", self.folder)
    }
}

impl Dependency {
    /// Whether it ends up in what users run.
    pub(crate) fn is_normal(&self) -> bool {
        self.kind.as_deref() != Some("dev")
    }
}

impl From<Package> for Member {
    fn from(package: Package) -> Self {
        let folder = package.manifest_path.parent().and_then(Path::file_name);
        Self {
            folder: folder.map(|f| f.to_string_lossy().into_owned()).unwrap_or_default(),
            package: package.name,
            version: package.version,
            manifest: package.manifest_path,
            dependencies: package.dependencies,
        }
    }
}

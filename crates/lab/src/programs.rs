//! Where Holdfast's own programs are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::LabError;

/// Overrides where the programs are looked for.
pub const BIN_DIR_VARIABLE: &str = "HOLDFAST_BIN_DIR";

/// The programs that make a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// `holdfast-lab`, which is the node's init.
    pub lab: PathBuf,
    /// `holdfastd`.
    pub daemon: PathBuf,
    /// `holdfast-guardian`.
    pub guardian: PathBuf,
}

impl Programs {
    /// In `$HOLDFAST_BIN_DIR`, or else beside the running program (a test's is one level deeper).
    pub fn find() -> Result<Self, LabError> {
        if let Some(dir) = std::env::var_os(BIN_DIR_VARIABLE) {
            return Self::in_dir(Path::new(&dir));
        }
        let here = Path::new("/proc/self/exe");
        let me = std::env::current_exe().map_err(LabError::io("cannot read", here))?;
        let dir = me.parent().unwrap_or(Path::new("/"));
        let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
        Self::in_dir(dir)
    }

    /// All of them in one directory.
    pub fn in_dir(dir: &Path) -> Result<Self, LabError> {
        let find = |program: &'static str| {
            let path = dir.join(program);
            let missing = LabError::MissingProgram { program, dir: dir.to_owned() };
            if path.is_file() { Ok(path) } else { Err(missing) }
        };
        Ok(Self {
            lab: find("holdfast-lab")?,
            daemon: find("holdfastd")?,
            guardian: find("holdfast-guardian")?,
        })
    }
}

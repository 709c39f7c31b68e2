//! `cargo xtask codegen`: compiles `proto/` in pure Rust into `crates/proto/src/generated`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where the generated code lives, relative to the workspace root.
pub(crate) const GENERATED_DIR: &str = "crates/proto/src/generated";

/// Generates into `out`.
pub(crate) fn generate(root: &Path, out: &Path) -> Result<()> {
    let include = root.join("proto");
    let mut files = Vec::new();
    collect(&include, &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, [&include]).context("compiling proto/")?;
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .build_transport(false)
        .bytes(".")
        .btree_map(".")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .out_dir(out)
        .compile_fds(descriptors)
        .context("generating code")?;
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

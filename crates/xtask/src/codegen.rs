//! `cargo xtask codegen`: compiles `proto/` in pure Rust into `crates/proto/src/generated`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where the generated code lives, relative to the workspace root.
const GENERATED_DIR: &str = "crates/proto/src/generated";

/// Makes the generated code what `proto/` generates; files that it no longer does go.
pub(crate) fn refresh(root: &Path) -> Result<()> {
    let out = root.join(GENERATED_DIR);
    let fresh = fresh(root)?;
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let present = contents(&out)?;
    for name in present.keys().filter(|name| !fresh.contains_key(*name)) {
        std::fs::remove_file(out.join(name)).with_context(|| format!("removing {name:?}"))?;
    }
    for (name, bytes) in fresh.iter().filter(|(name, bytes)| present.get(*name) != Some(bytes)) {
        std::fs::write(out.join(name), bytes).with_context(|| format!("writing {name:?}"))?;
    }
    Ok(())
}

/// Every generated file that is not what `proto/` generates now, one line each.
pub(crate) fn stale(root: &Path) -> Result<Vec<String>> {
    let present = contents(&root.join(GENERATED_DIR))?;
    let fresh = fresh(root)?;
    let names: BTreeSet<_> = present.keys().chain(fresh.keys()).collect();
    let differs = names.into_iter().filter(|name| present.get(*name) != fresh.get(*name));
    Ok(differs
        .map(|name| format!("{GENERATED_DIR}/{} is stale: cargo xtask codegen", name.display()))
        .collect())
}

/// What `proto/` generates now.
fn fresh(root: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let out = tempfile::tempdir().context("making a temporary directory")?;
    generate(root, out.path())?;
    contents(out.path())
}

fn contents(dir: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name(), std::fs::read(entry.path())?))
    };
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let all: std::io::Result<_> = entries.map(read).collect();
    all.with_context(|| format!("reading {}", dir.display()))
}

/// Generates into `out`.
fn generate(root: &Path, out: &Path) -> Result<()> {
    let include = root.join("proto");
    let mut files = Vec::new();
    collect(&include, &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, [&include]).context("compiling proto/")?;
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

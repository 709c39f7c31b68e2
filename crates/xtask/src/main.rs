//! The project's own chores: `cargo xtask codegen`.

mod codegen;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Generate code from proto/.
    Codegen,
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Codegen => {
            let root = root();
            codegen::generate(&root, &root.join(codegen::GENERATED_DIR))
        }
    }
}

/// The workspace root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

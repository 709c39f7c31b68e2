//! The command-line client against a lab, as a person would type it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use holdfast_lab::{Lab, LabError, Programs};

/// What a command printed.
#[derive(Debug)]
pub struct Printed {
    /// Standard output, without the white space at its end.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
}

/// Runs `holdfast` with these arguments against the lab's nodes, with nothing to read.
pub fn holdfast(lab: &Lab, args: &[&str]) -> Result<Printed, LabError> {
    let (program, mut command) = command(lab, args)?;
    let done = command.output().map_err(|source| unrunnable(&program, source))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    Ok(Printed { out, err, status: done.status.code() })
}

/// Begins to run it, and does not wait; nobody sees what it prints.
pub fn begin(lab: &Lab, args: &[&str]) -> Result<Child, LabError> {
    let (program, mut command) = command(lab, args)?;
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|source| unrunnable(&program, source))
}

fn command(lab: &Lab, args: &[&str]) -> Result<(PathBuf, Command), LabError> {
    let program = Programs::find()?.lab.with_file_name("holdfast");
    let sockets: Vec<_> =
        lab.sockets()?.iter().map(|path| format!("unix:{}", path.display())).collect();
    let mut command = Command::new(&program);
    command.args(args).env("HOLDFAST_ADDRESS", sockets.join(",")).stdin(Stdio::null());
    Ok((program, command))
}

fn unrunnable(program: &Path, source: std::io::Error) -> LabError {
    LabError::Io { what: "cannot run", path: program.to_owned(), source }
}

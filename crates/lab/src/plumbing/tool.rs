//! Running the system's programs, and naming the Debian package of one that is missing.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::LabError;

/// The programs that a lab and its nodes use, with the packages that have them.
const TOOLS: [(&str, &str); 9] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("losetup", "util-linux"),
    ("fsfreeze", "util-linux"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("lxc-start", "lxc"),
    ("busybox", "busybox-static"),
];

/// Refuses unless root runs this and every program is there.
pub fn check_machine() -> Result<(), LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    TOOLS.iter().try_for_each(|(program, package)| check_program(program, package))
}

/// Refuses unless this program is there.
pub(crate) fn check_program(program: &'static str, package: &'static str) -> Result<(), LabError> {
    let missing = LabError::MissingTool { program, package };
    if is_installed(program) { Ok(()) } else { Err(missing) }
}

/// Whether the program is on root's usual path (which `sudo` and CI may have cut short).
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}

/// Runs `words[0]` with the rest as arguments; standard output comes back.
pub(crate) fn run(words: &[&str]) -> Result<String, LabError> {
    finish(words, command(words).stdin(Stdio::null()).output())
}

/// The same, with `input` as its standard input.
pub(crate) fn run_with_input(words: &[&str], input: &str) -> Result<String, LabError> {
    let feed = || {
        let mut child = command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    finish(words, feed())
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin")).env("LC_ALL", "C");
    command
}

fn finish(words: &[&str], result: std::io::Result<Output>) -> Result<String, LabError> {
    let fail = |message: String| LabError::Tool { command: words.join(" "), message };
    let output = result.map_err(|e| fail(e.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = last_words(&String::from_utf8_lossy(&output.stderr));
    Err(fail(format!("{said} ({})", output.status)))
}

/// The last lines in one: the very last often says only that there was an error.
fn last_words(stderr: &str) -> String {
    const MOST: usize = 3;
    let lines: Vec<_> = stderr.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    match lines.len() {
        0 => "no message".to_owned(),
        count => lines[count.saturating_sub(MOST)..].join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::Code;

    #[test]
    fn a_failing_program_is_quoted() {
        let err = run(&["sh", "-c", "echo why >&2; echo; echo last >&2; exit 3"]).unwrap_err();
        assert!(err.to_string().contains("why; last (exit status: 3)"), "{err}");
        assert_eq!(err.code(), Code::Internal);
    }

    #[test]
    fn only_the_end_is_quoted() {
        assert_eq!(last_words("1\n2\n3\n\n4\n"), "2; 3; 4");
        assert_eq!(last_words("\n"), "no message");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(run_with_input(&["cat"], "hello").unwrap(), "hello");
    }
}

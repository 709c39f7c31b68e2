//! What `holdfast-lab` says to a command line that is wrong.

use std::process::{Command, Stdio};

/// One line with a stable code, a non-zero exit, nothing on standard output.
#[test]
fn wrong_use_is_one_line_with_a_code() {
    for line in ["", "frobnicate", "up --frobnicate", "kill", "down --dir", "status -o xml"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-lab"));
        let ran = command.args(line.split_whitespace()).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(said.starts_with("holdfast-lab: HF-INVALID-ARGUMENT: "), "{line}: {said}");
        assert_eq!((said.lines().count(), ran.stdout.len()), (1, 0), "{line}: {said}");
        assert_eq!(ran.status.code(), Some(2), "{line}");
    }
}

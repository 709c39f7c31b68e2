//! What `holdfastd` says to a command line that is wrong.

use std::process::{Command, Stdio};

/// One line with a stable code, a non-zero exit, nothing on standard output.
#[test]
fn wrong_use_is_one_line_with_a_code() {
    for (line, code) in [
        ("--frobnicate", "HF-INVALID-ARGUMENT"),
        ("--config", "HF-INVALID-ARGUMENT"),
        ("--check=yes", "HF-INVALID-ARGUMENT"),
        ("--check extra", "HF-INVALID-ARGUMENT"),
        ("--check --config /nonexistent/holdfastd.toml", "HF-CONFIG"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
        let ran = command.args(line.split(' ')).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(said.starts_with(&format!("holdfastd: {code}: ")), "{line}: {said}");
        assert_eq!((said.lines().count(), ran.stdout.len()), (1, 0), "{line}: {said}");
        assert!(!ran.status.success(), "{line}");
    }
}

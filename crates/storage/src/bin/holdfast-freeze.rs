//! Freezes a filesystem for the instant of a snapshot, and thaws it whatever happens to whoever
//! asked. Started by `holdfastd`, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_storage::fsys::helper_main(std::env::args_os().skip(1))
}

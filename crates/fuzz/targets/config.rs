//! `holdfastd.toml`.
#![no_main]

holdfast_fuzz::target!(holdfast_daemon::fuzzing::config);

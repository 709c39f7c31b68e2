//! Backup files.
#![no_main]

holdfast_fuzz::target!(holdfast_proto::fuzzing::backup);

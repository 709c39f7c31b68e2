//! Calls that another node passes on.
#![no_main]

holdfast_fuzz::target!(holdfast_daemon::fuzzing::relay);

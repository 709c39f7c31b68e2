//! What clients and nodes ask of a node.
#![no_main]

holdfast_fuzz::target!(holdfast_daemon::fuzzing::requests);

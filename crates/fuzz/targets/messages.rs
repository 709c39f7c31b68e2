//! Every message of `proto/`, and what becomes of it.
#![no_main]

holdfast_fuzz::target!(holdfast_proto::fuzzing::messages);

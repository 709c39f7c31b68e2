//! Tokens, certificates, signing requests and keys.
#![no_main]

holdfast_fuzz::target!(holdfast_trust::fuzzing::credentials);

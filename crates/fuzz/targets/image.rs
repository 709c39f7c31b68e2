//! Images: plain and compressed archives.
#![no_main]

holdfast_fuzz::target!(holdfast_runtime::fuzzing::image);

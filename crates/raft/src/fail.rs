//! Points at every durable step, at which this crate's tests kill the process or fail the disk.
//!
//! Each step of the store names the point that it has come to, in one line. In the product a point
//! is an empty function. In this crate's own unit tests, and in nothing else (no feature could turn
//! it on in a program by accident), a point that is armed ends the process with SIGKILL or answers
//! with an error of the disk; `matrix` does both at every one and looks at what is left.

#[cfg(test)]
mod armed;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod script;

#[cfg(not(test))]
use std::{io, path::Path};

#[cfg(test)]
pub(crate) use armed::{at, at_file};

/// A durable step has come to `point`.
#[cfg(not(test))]
pub(crate) const fn at(_point: &str) -> io::Result<()> {
    Ok(())
}

/// The replacement of `file` has come to `step`.
#[cfg(not(test))]
pub(crate) const fn at_file(_file: &Path, _step: &str) -> io::Result<()> {
    Ok(())
}

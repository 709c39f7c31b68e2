//! Where to look for the cluster when nobody says.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use holdfast_proto::{Address, AddressError};
use holdfast_types::Code;

/// One line, the addresses of the cluster that this machine's client should use, by commas.
pub const ADDRESS_FILE: &str = "/run/holdfast/address";

/// The local daemon's socket, the last resort.
pub const DEFAULT_SOCKET: &str = "/run/holdfast/holdfastd.sock";

/// Why no addresses could be had.
#[derive(Debug, thiserror::Error)]
pub enum AddressesError {
    /// The file is there, but cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not hold a list of addresses.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The first entry that is no address.
        source: AddressError,
    },
}

impl AddressesError {
    /// The stable code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Read { .. } | Self::Malformed { .. } => Code::Config,
        }
    }
}

/// The addresses in `file` if it exists, else the local daemon's socket.
pub fn discover(file: &Path) -> Result<Vec<Address>, AddressesError> {
    match std::fs::read_to_string(file) {
        Ok(text) => parse_list(text.trim())
            .map_err(|source| AddressesError::Malformed { path: file.to_owned(), source }),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Ok(vec![Address::Unix(PathBuf::from(DEFAULT_SOCKET))])
        }
        Err(source) => Err(AddressesError::Read { path: file.to_owned(), source }),
    }
}

/// Addresses separated by commas; at least one.
pub fn parse_list(text: &str) -> Result<Vec<Address>, AddressError> {
    text.split(',').map(|part| part.trim().parse()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_wins_over_the_default_socket() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("address");
        assert_eq!(discover(&file).unwrap()[0].to_string(), format!("unix:{DEFAULT_SOCKET}"));
        std::fs::write(&file, "unix:/a.sock, 10.0.0.2:7443\n").unwrap();
        let found: Vec<_> = discover(&file).unwrap().iter().map(Address::to_string).collect();
        assert_eq!(found, ["unix:/a.sock", "10.0.0.2:7443"]);
    }

    #[test]
    fn a_malformed_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("address");
        std::fs::write(&file, "nonsense").unwrap();
        let err = discover(&file).unwrap_err();
        assert_eq!(err.code(), Code::Config);
        assert!(err.to_string().contains(file.to_str().unwrap()), "{err}");
    }
}

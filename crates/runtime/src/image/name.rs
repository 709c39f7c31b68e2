//! An entry's name, made harmless: the components of a path that stays below the root.

use super::ImageError;

/// Linux's limits (limits.h): NAME_MAX, PATH_MAX.
const MAX_COMPONENT: usize = 255;
const MAX_PATH: usize = 4095;

/// A relative path without `.`, `..` and empty components. The root itself has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Name(Vec<Vec<u8>>);

impl Name {
    /// Checks a name as an archive has it. `./` and doubled slashes are dropped; a leading slash
    /// and `..` are refused, not repaired: who packs them means something else than we would do.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, ImageError> {
        let bad = |why| ImageError::BadName { entry: shown(raw), why };
        match raw {
            [] => return Err(bad("has no name")),
            [b'/', ..] => return Err(bad("has an absolute path")),
            _ if raw.len() > MAX_PATH => return Err(bad("has an overlong path")),
            _ if raw.contains(&0) => return Err(bad("has a NUL character in its path")),
            _ => (),
        }
        let mut parts = Vec::new();
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => (),
                b".." => return Err(bad("leaves the root by '..'")),
                _ if part.len() > MAX_COMPONENT => return Err(bad("has an overlong name")),
                _ => parts.push(part.to_vec()),
            }
        }
        Ok(Self(parts))
    }

    /// The last component, and the path of the directory that it is in. `None` for the root.
    pub(super) fn split(&self) -> Option<(&[Vec<u8>], &[u8])> {
        self.0.split_last().map(|(last, parent)| (parent, last.as_slice()))
    }

    /// Whether it is one of the device nodes that every root filesystem ships. They are not made:
    /// the runtime fills `/dev` at each start.
    pub(super) fn is_ordinary_device(&self) -> bool {
        const ORDINARY: [&[u8]; 8] =
            [b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"console", b"ptmx"];
        matches!(self.0.as_slice(), [dev, name] if dev == b"dev" && ORDINARY.contains(&&name[..]))
    }
}

/// A name for an error message: short, and harmless on a terminal (it is printed quoted).
pub(super) fn shown(raw: &[u8]) -> String {
    String::from_utf8_lossy(&raw[..raw.len().min(120)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_or_refused() {
        let name = Name::parse(b"./usr//bin/./sh").unwrap();
        assert_eq!(name, Name(vec![b"usr".to_vec(), b"bin".to_vec(), b"sh".to_vec()]));
        assert_eq!(Name::parse(b"./").unwrap().split(), None);
        let long = [b'x'; 256];
        for bad in [&b""[..], b"/etc", b"..", b"a/../b", b"a/..", b"a\0b", &long, &[b'/'; 5000]] {
            assert!(Name::parse(bad).is_err(), "{:?}", shown(bad));
        }
    }

    #[test]
    fn ordinary_devices_are_known_by_their_place() {
        assert!(Name::parse(b"./dev/null").unwrap().is_ordinary_device());
        for other in [&b"dev/sda"[..], b"null", b"a/dev/null", b"dev/null/x"] {
            assert!(!Name::parse(other).unwrap().is_ordinary_device());
        }
    }
}

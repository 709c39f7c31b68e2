//! Who owns what decides about this machine, and who else may do what with it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::Config;
use crate::host;

/// The node's keys, in the data directory.
const KEYS: &str = "keys.pem";

/// Bits of a mode that a kind of file may not have.
const WRITABLE: u32 = 0o022;
const OPEN: u32 = 0o077;
/// Containers' root gets through by its group, and sees nothing.
const MORE_THAN_THROUGH: u32 = 0o067;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What says which programs are run as root.
    Config,
    /// One of those programs.
    Program,
    /// Identity, log and keys.
    DataDir,
    /// What this node proves itself by.
    Keys,
    /// Who may speak there rules the node.
    Socket,
    /// Who may write there replaces the sockets in it.
    RunDir,
}

#[derive(Debug, Clone)]
struct Look {
    kind: Kind,
    path: PathBuf,
    uid: u32,
    /// Permissions alone.
    mode: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// What is there of it.
    looks: Vec<Look>,
}

impl Facts {
    pub(super) fn gather(file: &Path, config: Option<&Config>) -> Self {
        let mut places = vec![(Kind::Config, file.to_owned())];
        if let Some(config) = config {
            let sockets = [&config.socket, &config.guardian.socket];
            places.push((Kind::DataDir, config.data_dir.clone()));
            places.push((Kind::Keys, config.data_dir.join(KEYS)));
            places.extend(sockets.map(|socket| (Kind::Socket, socket.clone())));
            let dirs = sockets.into_iter().filter_map(|socket| socket.parent());
            places.extend(dirs.map(|dir| (Kind::RunDir, dir.to_owned())));
            places.extend(host::own_programs(config).map(|path| (Kind::Program, path)));
        }
        places.dedup_by(|(_, one), (_, other)| one == other);
        let look = |(kind, path): (Kind, PathBuf)| {
            let meta = path.metadata().ok()?;
            Some(Look { kind, path, uid: meta.uid(), mode: meta.mode() & 0o7777 })
        };
        Self { looks: places.into_iter().filter_map(look).collect() }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Config => "config-mode",
            Self::Program => "program-mode",
            Self::DataDir => "data-dir-mode",
            Self::Keys => "keys-mode",
            Self::Socket => "socket-mode",
            Self::RunDir => "run-dir-mode",
        }
    }

    /// The bits that it may not have, and what they mean.
    fn forbidden(self) -> (u32, &'static str) {
        match self {
            Self::Config | Self::Program => (WRITABLE, "others may write it, and so run as root"),
            Self::RunDir => (WRITABLE, "others may replace the sockets in it"),
            Self::DataDir => (MORE_THAN_THROUGH, "others may look into it"),
            Self::Keys => (OPEN, "others may read the node's keys"),
            Self::Socket => (OPEN, "others may command this node"),
        }
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    facts.looks.iter().map(judge).collect()
}

fn judge(look: &Look) -> Finding {
    let Look { kind, path, uid, mode } = look;
    let (name, place, (forbidden, why)) = (kind.name(), path.display(), kind.forbidden());
    if *uid != 0 {
        return Finding::problem(
            name,
            format!("{place} belongs to user {uid}, not to root"),
            format!("chown root: {place}, once it is known who had it and why"),
        );
    }
    if mode & forbidden == 0 {
        return Finding::ok(name, format!("{place} is root's, mode {mode:04o}"));
    }
    let what = format!("{place} has mode {mode:04o}: {why}");
    let mut cure = format!("chmod {:04o} {place}", mode & !forbidden);
    if *kind == Kind::Keys {
        cure.push_str(", and give the node new keys if anybody may have read them");
    }
    Finding::problem(name, what, cure)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::doctor::Grade;

    fn judged(kind: Kind, uid: u32, mode: u32) -> Finding {
        judge(&Look { kind, path: "/x".into(), uid, mode })
    }

    #[test]
    fn modes_that_are_right_are_right() {
        for (kind, mode) in [
            (Kind::Config, 0o644),
            (Kind::Program, 0o755),
            (Kind::DataDir, 0o700),
            // Containers' root is let through.
            (Kind::DataDir, 0o710),
            (Kind::Keys, 0o600),
            (Kind::Keys, 0o400),
            (Kind::Socket, 0o600),
            (Kind::RunDir, 0o711),
            (Kind::RunDir, 0o755),
        ] {
            assert_eq!(judged(kind, 0, mode).grade, Grade::Ok, "{kind:?} {mode:o}");
        }
    }

    #[test]
    fn what_others_may_do_is_said_and_how_to_end_it() {
        for (kind, mode, cure) in [
            (Kind::Config, 0o664, "chmod 0644 /x"),
            (Kind::Program, 0o757, "chmod 0755 /x"),
            (Kind::DataDir, 0o750, "chmod 0710 /x"),
            (Kind::DataDir, 0o701, "chmod 0700 /x"),
            (Kind::Socket, 0o660, "chmod 0600 /x"),
            (Kind::RunDir, 0o1777, "chmod 1755 /x"),
        ] {
            let found = judged(kind, 0, mode);
            assert_eq!(found.grade, Grade::Problem, "{kind:?} {mode:o}");
            assert_eq!(found.cure.as_deref(), Some(cure), "{kind:?} {mode:o}");
        }
        let keys = judged(Kind::Keys, 0, 0o640);
        assert!(keys.grade == Grade::Problem && keys.cure.unwrap().contains("new keys"));
        assert_eq!(judged(Kind::Keys, 1000, 0o600).grade, Grade::Problem);
    }

    #[test]
    fn what_is_not_there_is_not_judged() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdfastd.toml");
        assert!(Facts::gather(&file, None).looks.is_empty());
        let text = format!(
            "name = \"n1\"\nadvertise = \"192.0.2.1:1\"\ndata_dir = {:?}\n\
             socket = \"/nonexistent/s\"\n[guardian]\nsocket = \"/nonexistent/g\"\n\
             binary = \"/nonexistent/holdfast-guardian\"\n[network]\nunderlay = \"192.0.2.1\"\n",
            dir.path()
        );
        fs::write(&file, text).unwrap();
        fs::write(dir.path().join(KEYS), "").unwrap();
        fs::set_permissions(dir.path().join(KEYS), Permissions::from_mode(0o640)).unwrap();
        let config = Config::load(&file).unwrap();
        let found = check(&Facts::gather(&file, Some(&config)));
        let names: Vec<_> = found.iter().map(|finding| finding.name).collect();
        assert_eq!(names, ["config-mode", "data-dir-mode", "keys-mode"]);
        assert_eq!(found[2].grade, Grade::Problem);
    }
}

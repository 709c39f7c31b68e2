//! The systemd units in `deploy/systemd`: systemd knows every setting, README.md installs every file that
//! they name, and every line of `[Service]` says why it is there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

const UNITS: &str = "deploy/systemd";
const README: &str = "README.md";

/// Where an administrator's units are (systemd.unit(5)).
const SYSTEM: &str = "/etc/systemd/system";

/// Whether systemd's own check can be had here.
pub(crate) fn can_be_verified() -> bool {
    Command::new("systemd-analyze").arg("--version").output().is_ok_and(|out| out.status.success())
}

/// Everything that is wrong with the units, one line each, as far as their text says.
pub(crate) fn violations(root: &Path) -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(root.join(README)).context("reading README.md")?;
    let installed = installed(&readme);
    let mut found = Vec::new();
    for path in units(root)? {
        let name = file_name(&path);
        let text = read(&path)?;
        let missing = programs(&text).filter(|program| !installed.iter().any(|i| i == program));
        found.extend(missing.map(|p| format!("{name}: {README} does not install {p}")));
        if !installed.contains(&format!("{SYSTEM}/{name}")) {
            found.push(format!("{name}: {README} does not install it in {SYSTEM}"));
        }
        found.extend(unexplained(&text).map(|line| format!("{name}: nothing says why {line}")));
    }
    Ok(found)
}

/// What systemd does not understand, in its words. The programs need not be installed here.
pub(crate) fn misunderstood(root: &Path) -> Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no"]);
    for path in units(root)? {
        let copy = dir.path().join(file_name(&path));
        let text = read(&path)?;
        let line = |line: &str| match line.split_once('=') {
            Some((key, _)) if key.starts_with("Exec") => format!("{key}=/bin/true\n"),
            _ => format!("{line}\n"),
        };
        std::fs::write(&copy, text.lines().map(line).collect::<String>())?;
        analyze.arg(copy);
    }
    let out = analyze.output().context("running systemd-analyze")?;
    // It warns of what it ignores, and succeeds. What is wrong with the machine's own units is not ours.
    let said = String::from_utf8_lossy(&out.stderr);
    let prefix = format!("{}/", dir.path().display());
    let ours = said.lines().filter_map(|line| line.split_once(&prefix)).map(|(_, line)| line);
    let mut found: Vec<_> = ours.map(str::to_owned).collect();
    if !out.status.success() && found.is_empty() {
        found.push(said.lines().collect::<Vec<_>>().join("; "));
    }
    Ok(found)
}

fn units(root: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(root.join(UNITS)).context("reading deploy/systemd")?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// The programs of a unit's `Exec…` lines.
fn programs(unit: &str) -> impl Iterator<Item = &str> {
    let lines = unit.lines().filter(|line| line.starts_with("Exec"));
    let commands = lines.filter_map(|line| line.split_once('=')).map(|(_, command)| command);
    // What may stand before the path: systemd.service(5).
    commands.filter_map(|c| c.trim_start_matches(['-', '@', ':', '+', '!']).split(' ').next())
}

/// The files that `install -t DIRECTORY FILES…` lines of a document make, as paths.
fn installed(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in document.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "-t") else { continue };
        if words.first() != Some(&"install") {
            continue;
        }
        let Some(directory) = words.get(at + 1) else { continue };
        let names = words.iter().skip(at + 2).filter_map(|file| file.rsplit('/').next());
        found.extend(names.map(|name| format!("{directory}/{name}")));
    }
    found
}

/// Settings of `[Service]` without a comment right above.
fn unexplained(unit: &str) -> impl Iterator<Item = &str> {
    let service = unit.split("[Service]").nth(1).unwrap_or_default();
    let service = service.split("\n[").next().unwrap_or_default();
    let mut explained = false;
    service.lines().filter(move |line| {
        let is_comment = line.starts_with('#');
        let is_bare = !line.is_empty() && !is_comment && !explained;
        explained = is_comment;
        is_bare
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root;

    #[test]
    fn the_units_are_whole() {
        assert_eq!(violations(&root()).unwrap(), [""; 0]);
    }

    #[test]
    fn systemd_understands_the_units() {
        if can_be_verified() {
            assert_eq!(misunderstood(&root()).unwrap(), [""; 0]);
        }
    }

    /// A copy of the tree with one unit, which is changed so.
    fn with_unit(unit: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(UNITS)).unwrap();
        std::fs::write(dir.path().join(UNITS).join("x.service"), unit).unwrap();
        let readme =
            format!("install -D -t /usr/lib/x target/x\ninstall -t {SYSTEM} {UNITS}/x.service\n");
        std::fs::write(dir.path().join(README), readme).unwrap();
        dir
    }

    #[test]
    fn what_is_not_installed_or_not_explained_is_found() {
        let good = "[Service]\n# Why.\nExecStart=-/usr/lib/x/x serve\n[Install]\nWantedBy=y\n";
        assert_eq!(violations(with_unit(good).path()).unwrap(), [""; 0]);
        let elsewhere = good.replace("/usr/lib/x/x", "/usr/bin/x");
        let found = violations(with_unit(&elsewhere).path()).unwrap();
        assert_eq!(found, ["x.service: README.md does not install /usr/bin/x"]);
        let bare = good.replace("# Why.\n", "");
        let found = violations(with_unit(&bare).path()).unwrap();
        assert_eq!(found, ["x.service: nothing says why ExecStart=-/usr/lib/x/x serve"]);
    }

    #[test]
    fn a_setting_that_systemd_does_not_know_is_found() {
        if !can_be_verified() {
            return;
        }
        let of = |line: &str| {
            misunderstood(with_unit(&format!("[Service]\nExecStart=/x\n{line}\n")).path())
        };
        assert_eq!(of("LimitCORE=0").unwrap(), [""; 0]);
        let found = of("LimitCOER=0").unwrap();
        assert!(found.len() == 1 && found[0].contains("LimitCOER"), "{found:?}");
        let found = of("LimitCORE=none").unwrap();
        assert!(found.len() == 1 && found[0].contains("none"), "{found:?}");
    }
}

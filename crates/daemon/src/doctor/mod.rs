//! `holdfastd doctor`: whether this machine is fit to be a node, and what to do where it is not.
//!
//! Each file has one concern, in two parts: `Facts`, gathered from the machine and nothing decided about
//! them, and `check`, which judges them and touches nothing. It changes nothing, and needs no daemon.
//!
//! | file | what it looks at |
//! |---|---|
//! | `kernel` | version, namespaces, filesystems and modules |
//! | `cgroups` | which hierarchies there are, and what they carry |
//! | `programs` | what is called, and LXC's version |
//! | `storage` | LVM and device-mapper, or the directory of an XFS pool |
//! | `files` | owners and modes |
//! | `certificates` | whether the node's is good |
//! | `clocks` | the time, and the real-time clock |
//! | `addresses`, `sockets` | what is listened on, and where others reach this node |
//! | `guardian` | the guardian's own account, and what it needs |

mod addresses;
mod certificates;
mod cgroups;
mod clocks;
mod files;
mod guardian;
mod kernel;
mod programs;
mod sockets;
mod storage;
mod sys;

use std::fmt::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::config::{Config, PoolDriver};
use crate::error::DaemonError;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// It works, and not as well as it could.
    Warning,
    /// It will not work, or not safely.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which; stable, for scripts.
    pub name: &'static str,
    /// How it is.
    pub grade: Grade,
    /// What was found, in one line.
    pub what: String,
    /// What to do, in one line; nothing where it is as it should be.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, grade: Grade::Ok, what: what.into(), cure: None }
    }

    fn warning(name: &'static str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { name, grade: Grade::Warning, what: what.into(), cure: Some(cure.into()) }
    }

    fn problem(name: &'static str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { name, grade: Grade::Problem, what: what.into(), cure: Some(cure.into()) }
    }
}

/// Everything that was looked at. Shown as text for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// In the order of the looks.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Whether the machine is no fit node.
    pub fn has_problem(&self) -> bool {
        self.count(Grade::Problem) > 0
    }

    fn count(&self, grade: Grade) -> usize {
        self.findings.iter().filter(|finding| finding.grade == grade).count()
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        for finding in &self.findings {
            let grade = match finding.grade {
                Grade::Ok => "ok",
                Grade::Warning => "warning",
                Grade::Problem => "PROBLEM",
            };
            writeln!(f, "{grade:<7}  {:<width$}  {}", finding.name, finding.what)?;
            if let Some(cure) = &finding.cure {
                writeln!(f, "{:<7}  {:<width$}  -> {cure}", "", "")?;
            }
        }
        let (problems, warnings) = (self.count(Grade::Problem), self.count(Grade::Warning));
        write!(f, "{} and {}", counted(problems, "problem"), counted(warnings, "warning"))
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Looks at this machine as the file configures it. Needs root, as the daemon does.
pub fn examine(file: &Path) -> Result<Diagnosis, DaemonError> {
    if !rustix::process::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    let mut findings = Vec::new();
    let config = match Config::load(file) {
        Ok(config) => {
            findings.push(Finding::ok("config", format!("{} can be read", file.display())));
            Some(config)
        }
        Err(error) => {
            let cure = "write it as README.md shows; without it the machine is looked at in part";
            findings.push(Finding::problem("config", error.to_string(), cure));
            None
        }
    };
    findings.extend(files::check(&files::Facts::gather(file, config.as_ref())));
    let certificates = config.as_ref().map(certificates::Facts::gather);
    findings.extend(certificates.iter().filter_map(certificates::check));
    findings.extend(clocks::check(&clocks::Facts::gather()));
    let driver = config.as_ref().map(|config| config.pool.driver);
    findings.extend(kernel::check(&kernel::Facts::gather(), driver));
    if let Some(config) = &config {
        findings.extend(sockets::check(&sockets::Facts::gather(config)));
        findings.extend(addresses::check(&addresses::Facts::gather(config)));
    }
    // What only votes needs no more than itself.
    if driver == Some(PoolDriver::None) {
        return Ok(Diagnosis { findings });
    }
    findings.extend(cgroups::check(&cgroups::Facts::gather()));
    if let Some(config) = &config {
        findings.extend(programs::check(&programs::Facts::gather(config)));
        findings.extend(storage::check(&storage::Facts::gather(config)));
        findings.extend(guardian::check(&guardian::Facts::gather(config)));
    }
    Ok(Diagnosis { findings })
}

/// What a program says on standard output; nothing if it cannot be run, or fails.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let ran = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// The first version number in a text, its first three parts: `LXC 5.0.2` is 5, 0, 2.
fn version_in(text: &str) -> Option<[u32; 3]> {
    let digits = |c: char| c.is_ascii_digit();
    let at = text.find(digits)?;
    let number = text[at..].split(|c: char| !digits(c) && c != '.').next()?;
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
    let version = [(); 3].map(|()| parts.next().unwrap_or(0));
    Some(version)
}

/// As people write it, without the zeroes that a version may end with.
fn dotted(version: [u32; 3]) -> String {
    let mut text = format!("{}.{}", version[0], version[1]);
    if version[2] > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, ".{}", version[2]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis() -> Diagnosis {
        Diagnosis {
            findings: vec![
                Finding::ok("kernel", "Linux 6.1"),
                Finding::warning("clock", "it is not set by anybody", "apt-get install chrony"),
            ],
        }
    }

    #[test]
    fn a_diagnosis_is_a_table_for_people_and_names_for_scripts() {
        let mut told = diagnosis();
        assert_eq!(
            told.to_string(),
            "ok       kernel  Linux 6.1\n\
             warning  clock   it is not set by anybody\n                 -> apt-get install chrony\n\
             0 problems and 1 warning"
        );
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["findings"][1]["do"], "apt-get install chrony");
        assert_eq!(json["findings"][1]["grade"], "warning");
        assert!(json["findings"][0].get("do").is_none());
        assert!(!told.has_problem());
        told.findings.push(Finding::problem("x", "y", "z"));
        assert!(told.has_problem());
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(version_in("5.0.2\n"), Some([5, 0, 2]));
        assert_eq!(version_in("  LVM version:     2.03.16(2) (2022-05-18)"), Some([2, 3, 16]));
        assert_eq!(version_in("6.18-rc1"), Some([6, 18, 0]));
        assert_eq!(version_in("none"), None);
        assert_eq!((dotted([5, 14, 0]), dotted([5, 0, 2])), ("5.14".into(), "5.0.2".into()));
    }
}

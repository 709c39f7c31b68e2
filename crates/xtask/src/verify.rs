//! `cargo xtask verify`: every rule that is executable. Reads only (build output aside); each check
//! runs whatever became of the others, and the failures are listed at the end.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::workspace::Workspace;
use crate::{arrows, codegen, documents, manifests, run, units};

const CLIPPY: [&str; 8] =
    ["clippy", "--locked", "--keep-going", "--workspace", "--all-targets", "--", "-D", "warnings"];
/// With private items: who reads these pages works on the code.
const DOC: [&str; 8] = [
    "doc",
    "--locked",
    "--keep-going",
    "--workspace",
    "--no-deps",
    "--document-private-items",
    "--lib",
    "--bins",
];

const DOC_FLAGS: &str = "-D warnings -A rustdoc::private-intra-doc-links";

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// Formatting: cargo fmt --check.
    Fmt,
    /// The crates' arrows, and the purity of those that decide.
    Arrows,
    /// Names, versions and inherited settings of every manifest.
    Manifests,
    /// What README.md and its neighbours point at exists, and every error code is explained.
    Documents,
    /// The systemd units: systemd knows every setting, README.md installs what they name.
    Units,
    /// The generated code is what proto/ generates.
    Codegen,
    /// Lints: cargo clippy, every target, warnings denied.
    Clippy,
    /// API documentation: cargo doc, warnings denied.
    Doc,
    /// Licences, sources and banned crates: cargo deny.
    Deny,
}

enum Verdict {
    Passed,
    Skipped(&'static str),
    Failed(anyhow::Error),
}

/// Runs `only`, or all if that is empty. With `ci` a missing tool is a failure, not a skip.
pub(crate) fn verify(root: &Path, only: &[Check], ci: bool) -> Result<()> {
    let mut lines = Vec::new();
    let mut failed = 0;
    for check in Check::value_variants() {
        if !only.is_empty() && !only.contains(check) {
            continue;
        }
        let name = check.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
        eprintln!("== {name}");
        let start = Instant::now();
        let verdict = match check.run(root, ci) {
            Ok(verdict) => verdict,
            Err(error) => Verdict::Failed(error),
        };
        let seconds = start.elapsed().as_secs_f32();
        lines.push(match verdict {
            Verdict::Passed => format!("ok       {name:<10} {seconds:>6.1} s"),
            Verdict::Skipped(why) => format!("skipped  {name:<10} {why}"),
            Verdict::Failed(error) => {
                failed += 1;
                format!("FAILED   {name:<10} {error:#}")
            }
        });
    }
    println!("{}", lines.join("\n"));
    if failed > 0 {
        bail!("{failed} of {} checks failed", lines.len());
    }
    Ok(())
}

impl Check {
    fn run(self, root: &Path, ci: bool) -> Result<Verdict> {
        match self {
            Check::Fmt => run::succeed(run::cargo(root).args(["fmt", "--all", "--check"]))?,
            Check::Arrows => none(arrows::violations(&Workspace::read(root)?))?,
            Check::Manifests => none(manifests::violations(root, &Workspace::read(root)?)?)?,
            Check::Documents => none(documents::violations(root)?)?,
            Check::Units => return units(root, ci),
            Check::Codegen => none(codegen::stale(root)?)?,
            Check::Clippy => run::succeed(run::cargo(root).args(CLIPPY))?,
            Check::Doc => {
                run::succeed(run::cargo(root).args(DOC).env("RUSTDOCFLAGS", DOC_FLAGS))?;
            }
            Check::Deny => return deny(root, ci),
        }
        Ok(Verdict::Passed)
    }
}

fn units(root: &Path, ci: bool) -> Result<Verdict> {
    const MISSING: &str = "systemd-analyze is missing: apt-get install systemd";
    none(units::violations(root)?)?;
    if !units::can_be_verified() {
        return if ci { bail!(MISSING) } else { Ok(Verdict::Skipped(MISSING)) };
    }
    none(units::misunderstood(root)?)?;
    Ok(Verdict::Passed)
}

/// Advisories are left out: their database is a git repository, and a build machine may reach
/// the package registry only. Where it can, `cargo deny check advisories` works too.
fn deny(root: &Path, ci: bool) -> Result<Verdict> {
    const MISSING: &str = "cargo-deny is missing: cargo install --locked cargo-deny";
    let probe = run::cargo(root).args(["deny", "--version"]).output();
    if !probe.context("running cargo")?.status.success() {
        return if ci { bail!(MISSING) } else { Ok(Verdict::Skipped(MISSING)) };
    }
    let args = ["deny", "--locked", "--log-level", "warn", "check", "bans", "licenses", "sources"];
    run::succeed(run::cargo(root).args(args))?;
    Ok(Verdict::Passed)
}

/// Fails with every line, if there is any.
fn none(violations: Vec<String>) -> Result<()> {
    for line in &violations {
        eprintln!("{line}");
    }
    match violations.as_slice() {
        [] => Ok(()),
        [one] => bail!("{one}"),
        [first, rest @ ..] => bail!("{first} (and {} more)", rest.len()),
    }
}

//! `cargo xtask soak fuzz`: the targets of `crates/fuzz`, one after the other, each until it had so many
//! inputs. What libFuzzer has learned is kept in `target/fuzz/corpus`, and is where the next run begins.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tempfile::TempDir;
use toml::Table;

/// An input that takes longer, in seconds, or more memory, in MiB, is a finding.
const PATIENCE_S: u32 = 20;
const MEMORY_MIB: u32 = 1024;

/// What is shown of a program's last words.
const LAST_LINES: usize = 40;

/// Which targets, and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these [default: all].
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Inputs for each target.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    executions: u64,
    /// Ends each target after so long, however many inputs it had.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,
    /// Processes that share a target.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// What else looks at each input: `none`, or `address`, which takes two to three times as long and sees
    /// what C libraries and the unsafe code of dependencies do.
    #[arg(long, default_value = "none", value_parser = ["none", "address"])]
    sanitizer: String,
}

/// What one target had, in all its processes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    executions: u64,
    per_second: u64,
    peak_mib: u64,
    /// Places in the code that some input reached.
    reached: u64,
}

/// Builds, runs, and prints a table. The other targets are run although one has a finding.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let known = targets(root)?;
    if let Some(unknown) = options.target.iter().find(|name| !known.contains(name)) {
        bail!("{unknown} is no target: there are {}", known.join(", "));
    }
    let asked = |name: &&String| options.target.is_empty() || options.target.contains(name);
    let wanted: Vec<_> = known.iter().filter(asked).collect();
    build(root, options, &wanted)?;
    let mut found = Vec::new();
    println!("{:<12} {:>13} {:>9} {:>9} {:>9}", "target", "executions", "/s", "MiB", "reached");
    for name in wanted {
        let (sum, is_clean) = soak(root, options, name)?;
        let Sum { executions, per_second, peak_mib, reached } = sum;
        let verdict = if is_clean { "" } else { "  FOUND" };
        println!("{name:<12} {executions:>13} {per_second:>9} {peak_mib:>9} {reached:>9}{verdict}");
        found.extend((!is_clean).then_some(name.as_str()));
    }
    ensure!(found.is_empty(), "findings in {}: see {}", found.join(", "), place(root).display());
    Ok(())
}

/// The programs in the fuzz crate's manifest.
fn targets(root: &Path) -> Result<Vec<String>> {
    let path = root.join("crates/fuzz/Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let manifest: Table = text.parse().with_context(|| format!("reading {}", path.display()))?;
    let programs = manifest.get("bin").and_then(|bins| bins.as_array()).into_iter().flatten();
    let names = programs.filter_map(|bin| Some(bin.get("name")?.as_str()?.to_owned()));
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

/// Where everything of it is.
fn place(root: &Path) -> PathBuf {
    root.join("target/fuzz")
}

fn build(root: &Path, options: &Options, wanted: &[&String]) -> Result<()> {
    let mut cargo = Command::new("rustup");
    cargo.current_dir(root).stdin(Stdio::null());
    cargo.args(["run", "nightly", "cargo", "fuzz", "build", "--fuzz-dir", "crates/fuzz"]);
    // Code that no input can reach would be looked at after each of them.
    cargo.args(["--strip-dead-code", "--features", "libfuzzer", "--sanitizer", &options.sanitizer]);
    cargo.arg("--target-dir").arg(place(root).join(&options.sanitizer));
    if let [one] = wanted {
        cargo.arg(one);
    }
    let status = cargo.status().context("running rustup")?;
    ensure!(status.success(), "cargo fuzz build: {status}");
    Ok(())
}

/// Runs one target. The second is whether nothing was found.
fn soak(root: &Path, options: &Options, name: &str) -> Result<(Sum, bool)> {
    let program = program(root, options, name)?;
    let corpus = place(root).join("corpus").join(name);
    let findings = place(root).join("findings").join(name);
    for dir in [&corpus, &findings] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let seeded = Command::new(&program).env("HOLDFAST_FUZZ_SEEDS", &corpus).status();
    ensure!(seeded.context("running the target")?.success(), "{name} gave no seeds");
    let files = files()?;
    let start = || {
        let mut target = Command::new(&program);
        target.arg(&corpus).args(settings(options)).env("TMPDIR", files.path());
        target.arg(format!("-artifact_prefix={}/", findings.display()));
        target.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        target.spawn().with_context(|| format!("running {name}"))
    };
    let started = (0..options.jobs).map(|_| start()).collect::<Result<Vec<_>>>()?;
    let (mut sum, mut is_clean) = (Sum::default(), true);
    for ended in thread::scope(|scope| {
        let all: Vec<_> = started.into_iter().map(|child| scope.spawn(|| follow(child))).collect();
        all.into_iter().map(|one| one.join()).collect::<Vec<_>>()
    }) {
        let Ok(ended) = ended else { bail!("nobody read what {name} said") };
        let (words, success) = ended?;
        sum.add(&words);
        if !success {
            is_clean = false;
            eprintln!("{}", words[words.len().saturating_sub(LAST_LINES)..].join("\n"));
        }
    }
    Ok((sum, is_clean))
}

fn program(root: &Path, options: &Options, name: &str) -> Result<PathBuf> {
    let dir = place(root).join(&options.sanitizer);
    let built = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut programs =
        built.filter_map(|entry| Some(entry.ok()?.path().join("release").join(name)));
    programs.find(|path| path.is_file()).with_context(|| format!("{name} was not built"))
}

/// For what targets write and read again: in memory, where the machine has such a place.
fn files() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    dir.context("making a directory")
}

fn settings(options: &Options) -> Vec<String> {
    let mut settings = vec![
        format!("-runs={}", options.executions.div_ceil(options.jobs)),
        format!("-timeout={PATIENCE_S}"),
        format!("-rss_limit_mb={MEMORY_MIB}"),
        // A thread that just ends looks like a leak.
        "-detect_leaks=0".to_owned(),
        "-print_final_stats=1".to_owned(),
    ];
    settings.extend(options.minutes.map(|minutes| format!("-max_total_time={}", minutes * 60)));
    settings
}

/// What the program says until it ends, and whether it ended well.
fn follow(mut child: Child) -> Result<(Vec<String>, bool)> {
    let said = child.stderr.take().context("its output")?;
    let mut words = Vec::new();
    for line in BufReader::new(said).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("reading its output")?).into_owned();
        // The dictionary that it recommends may be longer than all else.
        if line.starts_with('"') {
            continue;
        }
        words.push(line);
        // Of a long run only the end matters.
        if words.len() > 100 * LAST_LINES {
            words.drain(..99 * LAST_LINES);
        }
    }
    Ok((words, child.wait().context("waiting for it")?.success()))
}

impl Sum {
    /// Adds what one process says at its end.
    fn add(&mut self, words: &[String]) {
        let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
        for line in words {
            if let Some((_, more)) = line.split_once(" cov: ") {
                self.reached = self.reached.max(number(more.split(' ').next().unwrap_or_default()));
            }
            match line.strip_prefix("stat::").and_then(|stat| stat.split_once(':')) {
                Some(("number_of_executed_units", n)) => self.executions += number(n),
                Some(("average_exec_per_sec", n)) => self.per_second += number(n),
                Some(("peak_rss_mb", n)) => self.peak_mib = self.peak_mib.max(number(n)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_say_at_their_end_is_summed_up() {
        let words = |executed: &str| -> Vec<String> {
            let text = format!(
                "#2\tINITED cov: 300 ft: 1 corp: 1/4b exec/s: 0 rss: 40Mb\n\
                 #99\tNEW    cov: 412 ft: 9 corp: 3/9b lim: 4 exec/s: 0 rss: 41Mb L: 4/4\n\
                 stat::number_of_executed_units: {executed}\n\
                 stat::average_exec_per_sec:     500\n\
                 stat::new_units_added:          2\n\
                 stat::slowest_unit_time_sec:    0\n\
                 stat::peak_rss_mb:              44"
            );
            text.lines().map(str::to_owned).collect()
        };
        let mut sum = Sum::default();
        sum.add(&words("1000"));
        sum.add(&words("11"));
        let both = Sum { executions: 1_011, per_second: 1_000, peak_mib: 44, reached: 412 };
        assert_eq!(sum, both);
    }

    /// A target is a module, a file and an entry; the last two are forgotten most easily.
    #[test]
    fn every_file_is_a_target() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let files = fs::read_dir(root.join("crates/fuzz/targets")).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut files: Vec<_> = files.map(|file| stem(file.unwrap().path())).collect();
        files.sort();
        assert_eq!(targets(&root).unwrap(), files);
    }
}

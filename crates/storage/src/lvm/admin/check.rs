//! What is wrong with a pool, or will be: read only, and while it is used.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use super::found::Found;
use super::look::{catalog, look, lvm, mapper_name};
use super::{ANCHOR, CATALOG, Change, Name, Request, size};
use crate::lvm::LvmPool;
use crate::lvm::status::{Mode, Status};
use crate::lvm::thin::ThinPool;
use crate::lvm::wear::Wear;
use crate::{Error, Result, wait};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Something to be done before it is too late.
    Warning,
    /// Something is broken.
    Broken,
}

/// What was found, in a line for a person, with the cure where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub text: String,
}

/// What the kernel and the tools say of a pool that is in use.
#[derive(Debug)]
struct Health {
    status: Result<Status>,
    time: Result<u32>,
    /// What `thin_check` says of a snapshot of the metadata.
    metadata: Result<()>,
    /// What `vgck` says of the group's own account of itself.
    group: Result<()>,
}

/// Past these shares, in percent, a person should act.
const WARN_USED: u64 = 80;
const WARN_WORN: u8 = 50;

/// How long LVM may take to read the group.
const TIME: Duration = Duration::from_secs(120);
/// How long somebody else's metadata snapshot, such as a transfer's, is waited for.
const SNAPSHOT_TIME: Duration = Duration::from_secs(30);

/// Checks a pool: its group, its devices, and the thin pool's metadata, of which a snapshot is held
/// meanwhile; one that is `open` in this process waits for it where it needs it itself. Changes
/// nothing else.
pub fn check(group: &Name, thin_pool: &Name, open: Option<&LvmPool>) -> Result<Vec<Finding>> {
    let change = Change::Repair;
    let request = Request { group: group.clone(), thin_pool: thin_pool.clone(), change };
    let mut found = look(&request)?;
    // One that is not mounted is told of by whoever could not open the pool.
    found.catalog = catalog(group).ok().flatten();
    let consistent = wait::run(&mut lvm(["vgck", group.as_str()]), TIME).map(drop);
    let active = found.logical(group, thin_pool.as_str()).is_some_and(|pool| pool.active);
    let health = match (active, open) {
        (false, _) => None,
        (true, Some(open)) => Some(ask(&open.blocks.pool, consistent)),
        (true, None) => {
            let path = format!("/dev/mapper/{}", mapper_name(group, thin_pool));
            let pool = ThinPool::connect(group.as_str(), &path, 100)?;
            Some(ask(&pool, consistent))
        }
    };
    Ok(judge(&request, &found, health.as_ref()))
}

fn ask(pool: &ThinPool, group: Result<()>) -> Health {
    let status = pool.status();
    // One that has failed answers no more, and what it needs is clear.
    if status.as_ref().is_ok_and(|status| status.mode.is_none()) {
        let failed = || Error::InUse("a thin pool that has failed".into());
        return Health { status, time: Err(failed()), metadata: Err(failed()), group };
    }
    let mut time = Ok(0);
    wait::until(SNAPSHOT_TIME, || {
        time = pool.read_time();
        !matches!(time, Err(Error::MetadataHeld(_)))
    });
    let mut metadata = Ok(());
    wait::until(SNAPSHOT_TIME, || {
        let mut tool = Command::new("thin_check");
        tool.args(["-q", "-m"]);
        metadata = pool.try_metadata(tool);
        !matches!(metadata, Err(Error::MetadataHeld(_)))
    });
    Health { status, time, metadata, group }
}

fn judge(request: &Request, found: &Found, health: Option<&Health>) -> Vec<Finding> {
    let (group, name) = (&request.group, &request.thin_pool);
    let mut findings = Findings(Vec::new());
    if let Err(refusal) = found.tools.check() {
        findings.broken(refusal.to_string());
    }
    if let Err(refusal) = found.check_duplicates(group) {
        findings.broken(refusal.to_string());
    }
    match found.usable_group(group) {
        Err(refusal) => findings.broken(refusal.to_string()),
        Ok(there) if found.free(there) == 0 => findings.warning(format!(
            "the volume group {group} has nothing free: metadata cannot grow; add a device"
        )),
        Ok(_) => findings.fine(format!("the volume group {group} has all of its devices")),
    }
    if let Some(device) = found.moving(group) {
        let cure = "holdfast pool evacuate-device goes on with it";
        findings.warning(format!("{device} is being evacuated, or was: {cure}"));
    }
    for closed in found.physicals_of(group.as_str()).filter(|p| !p.allocatable && !p.missing) {
        findings.warning(format!("nothing new is taken of {}: it was to be emptied", closed.name));
    }
    let pool = match found.thin_pool(group, name) {
        Err(refusal) => {
            findings.broken(refusal.to_string());
            return findings.0;
        }
        Ok(pool) => pool,
    };
    for part in [CATALOG, ANCHOR] {
        if found.logical(group, part).is_none() {
            findings.broken(format!("{group}/{part} is missing: holdfast pool create makes it"));
        }
    }
    findings.of_the_catalog(group, found);
    if !found
        .logicals
        .iter()
        .any(|l| l.group == group.as_str() && l.spare && l.size >= pool.metadata)
    {
        let cure = "lvconvert --repair would need as much room as the metadata";
        findings.warning(format!("{group} has no spare for {name}'s metadata: {cure}"));
    }
    for left in found.logicals.iter().filter(|l| l.group == group.as_str()) {
        let number = left.name.strip_prefix(name.as_str()).and_then(|s| s.strip_prefix("_meta"));
        if number.is_some_and(|n| n.parse::<u32>().is_ok()) {
            let left = format!("{group}/{}", left.name);
            let cure = format!("lvremove {left}, when nobody wants to look into it");
            findings.warning(format!("{left} is the damaged metadata of before a repair: {cure}"));
        }
    }
    match health {
        None => findings.broken(format!(
            "{group}/{name} is not active, because it is damaged or nobody has opened it: holdfast \
             pool repair checks its metadata, and repairs it if that is needed"
        )),
        Some(health) => findings.of_the_pool(&format!("{group}/{name}"), health),
    }
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn of_the_catalog(&mut self, group: &Name, found: &Found) {
        let Some(percent) = found.catalog.as_ref().map(|catalog| catalog.used_percent) else {
            return;
        };
        let text = format!("{group}/{CATALOG} is {percent} % full");
        if u64::from(percent) < WARN_USED {
            return self.fine(text);
        }
        let there = found.group(group).ok().flatten();
        let wanted = there.map_or(0, |there| size::catalog(found.size(there), there.extent));
        let grows = found.logical(group, CATALOG).is_some_and(|catalog| catalog.size < wanted);
        self.warning(match grows {
            true => format!("{text}: holdfast pool grow"),
            false => format!("{text}: remove snapshots or volumes of this node"),
        });
    }

    fn of_the_pool(&mut self, name: &str, health: &Health) {
        match &health.group {
            Ok(()) => self.fine("LVM's account of the group is consistent".into()),
            Err(error) => self.broken(format!("LVM's account of the group is not sound: {error}")),
        }
        match &health.status {
            Err(error) => self.broken(format!("{name} does not say how it is: {error}")),
            Ok(status) => self.of_its_state(name, status),
        }
        match &health.metadata {
            Ok(()) => self.fine(format!("the metadata of {name} is sound")),
            Err(error @ (Error::InUse(_) | Error::MetadataHeld(_))) => {
                self.warning(format!("the metadata of {name} was not checked: {error}"));
            }
            Err(error) => self.broken(format!(
                "the metadata of {name} is damaged: {error}: stop what runs on it, and holdfast pool \
                 repair"
            )),
        }
        match &health.time {
            Err(error) => self.warning(format!("how worn {name} is cannot be read: {error}")),
            Ok(time) => match (Wear { time: *time }).percent() {
                percent if percent >= WARN_WORN => self.warning(format!(
                    "{name} has taken {percent} % of the snapshots of its life (HF-POOL-WORN)"
                )),
                percent => self.fine(format!("{name} is worn by {percent} %")),
            },
        }
    }

    fn of_its_state(&mut self, name: &str, status: &Status) {
        match status.mode {
            _ if status.needs_check => self.broken(format!(
                "{name} needs a check: stop what runs on it, and holdfast pool repair"
            )),
            None => self.broken(format!("{name} has failed: holdfast pool repair")),
            Some(Mode::ReadOnly) => self.broken(format!("{name} takes no writes")),
            Some(Mode::OutOfData) => {
                self.broken(format!(
                    "{name} is full, and what writes to it waits: holdfast pool grow"
                ));
            }
            Some(Mode::ReadWrite) => self.fine(format!("{name} takes reads and writes")),
        }
        for (what, (used, total)) in [("data", status.data), ("metadata", status.metadata)] {
            let percent = (used * 100).checked_div(total).unwrap_or(100);
            match percent >= WARN_USED {
                true => self.warning(format!(
                    "the {what} of {name} is {percent} % full: holdfast pool grow"
                )),
                false => self.fine(format!("the {what} of {name} is {percent} % full")),
            }
        }
    }

    fn fine(&mut self, text: String) {
        self.0.push(Finding { severity: Severity::Fine, text });
    }

    fn warning(&mut self, text: String) {
        self.0.push(Finding { severity: Severity::Warning, text });
    }

    fn broken(&mut self, text: String) {
        self.0.push(Finding { severity: Severity::Broken, text });
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fine => "fine",
            Self::Warning => "warning",
            Self::Broken => "broken",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Catalog;
    use super::super::model::{asked, pool_on};
    use super::*;

    fn worst(change: impl FnOnce(&mut Found, &mut Health)) -> (Severity, String) {
        let mut found = pool_on(&["/dev/sdb"], &["/dev/sdb"]);
        let line = "8 3290/32768 24/24000 - rw discard_passdown queue_if_no_space - 1024 ";
        let status = Status::parse(line).unwrap();
        let mut health =
            Health { status: Ok(status), time: Ok(5), metadata: Ok(()), group: Ok(()) };
        change(&mut found, &mut health);
        let findings = judge(&asked(Change::Repair), &found, Some(&health));
        let worst = findings.iter().max_by_key(|finding| finding.severity).unwrap();
        (worst.severity, worst.text.clone())
    }

    #[test]
    fn a_sound_pool_is_fine() {
        let (severity, text) = worst(|_, _| ());
        assert_eq!(severity, Severity::Fine, "{text}");
    }

    #[test]
    fn what_is_broken_is_said_with_its_cure() {
        let lacks = worst(|found, _| found.physicals[0].missing = true);
        assert!(lacks.1.contains("lacks devices"), "{lacks:?}");
        let check = worst(|_, health| health.status.as_mut().unwrap().needs_check = true);
        assert!(check.1.contains("holdfast pool repair"), "{check:?}");
        let full = worst(|_, health| {
            health.status.as_mut().unwrap().mode = Some(Mode::OutOfData);
        });
        assert!(full.1.contains("holdfast pool grow"), "{full:?}");
        let rotten = worst(|_, health| {
            health.metadata = Err(Error::Tool { tool: "thin_check".into(), stderr: "bad".into() });
        });
        assert!(rotten.1.contains("damaged"), "{rotten:?}");
        let gone = worst(|found, _| found.logicals.retain(|l| l.name != CATALOG));
        assert!(gone.1.contains("holdfast_catalog is missing"), "{gone:?}");
        for broken in [lacks, check, full, rotten, gone] {
            assert_eq!(broken.0, Severity::Broken);
        }
    }

    /// A pool that nobody could open was found to be fine but for a warning.
    #[test]
    fn a_pool_that_is_not_active_is_broken() {
        let found = pool_on(&["/dev/sdb"], &["/dev/sdb"]);
        let findings = judge(&asked(Change::Repair), &found, None);
        let broken = findings.iter().find(|finding| finding.severity == Severity::Broken).unwrap();
        assert!(broken.text.contains("is not active"), "{broken:?}");
    }

    #[test]
    fn what_a_repair_leaves_and_what_is_not_checked_is_said() {
        let left = worst(|found, _| {
            let group = "tank".parse().unwrap();
            found.make_on("/dev/sdb", &group, "holdfast_pool_meta0", 4 << 20);
        });
        assert!(left.1.contains("lvremove tank/holdfast_pool_meta0"), "{left:?}");
        let held = worst(|_, health| {
            health.metadata = Err(Error::MetadataHeld("tank-holdfast_pool-tpool".into()));
        });
        assert!(held.1.contains("was not checked"), "{held:?}");
        assert_eq!((left.0, held.0), (Severity::Warning, Severity::Warning));
    }

    /// A catalog that could take no more notes was not told of by anything.
    #[test]
    fn a_full_catalog_was_not_told_of() {
        let full = |percent, extents| {
            worst(|found, _| {
                let mountpoint = "/run/holdfast/pool".into();
                found.catalog = Some(Catalog { mountpoint, used_percent: percent });
                found.physicals[0].extents += extents;
            })
        };
        let fine = full(79, 0);
        assert_eq!(fine.0, Severity::Fine, "{fine:?}");
        let warned = full(80, 0);
        assert_eq!(warned.0, Severity::Warning);
        assert!(warned.1.contains("80 % full: remove snapshots"), "{warned:?}");
        let grows = full(80, 4 << 18);
        assert!(grows.1.ends_with("80 % full: holdfast pool grow"), "{grows:?}");
    }

    #[test]
    fn what_will_break_is_said_before() {
        let worn = worst(|_, health| health.time = Ok(12_000_000));
        assert!(worn.1.contains("71 %"), "{worn:?}");
        let full = worst(|_, health| health.status.as_mut().unwrap().data = (81, 100));
        assert!(full.1.contains("81 % full"), "{full:?}");
        let emptied = worst(|found, _| found.physicals[0].allocatable = false);
        assert_eq!(
            (worn.0, full.0, emptied.0),
            (Severity::Warning, Severity::Warning, Severity::Warning)
        );
    }
}

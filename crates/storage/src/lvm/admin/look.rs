//! Finding what is there.

use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::found::{Catalog, Device, Found, Mapped, Physical, Tools};
use super::report::{self, Block};
use super::{CATALOG, Change, Name, Refusal, Request};
use crate::lvm::Dm;
use crate::lvm::thin;
use crate::{Error, Result, wait};

/// Reports read every device's label; a device that answers slowly is waited for.
const TIME: Duration = Duration::from_secs(120);
/// Reports of some thousands of volumes have a few MiB.
const MOST_ANSWER: usize = 64 << 20;

/// By what a pool is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The volume group's name.
    pub group: String,
    /// Its uuid.
    pub group_uuid: String,
    /// The thin pool's name.
    pub thin_pool: String,
    /// Its uuid.
    pub pool_uuid: String,
}

/// Finds what a plan for `request` goes by. Changes nothing.
pub fn look(request: &Request) -> Result<Found> {
    let mut found = Found { tools: tools()?, ..Found::default() };
    for path in request.devices() {
        if !found.devices.iter().any(|device| device.path == *path)
            && let Some(device) = device(path)?
        {
            found.devices.push(device);
        }
    }
    found.physicals = physicals()?;
    found.groups = report(&["vgs"], report::GROUPS, report::groups)?;
    found.logicals = report(&["lvs", "-a"], report::LOGICALS, report::logicals)?;
    found.pieces = report(&["pvs", "--segments"], report::PIECES, report::pieces)?;
    if request.change == Change::Repair {
        found.mapped = mapped(&request.group, &request.thin_pool)?;
    }
    if matches!(request.change, Change::Grow { .. }) {
        found.catalog = catalog(&request.group)?;
    }
    Ok(found)
}

/// The devices of ours on a thin pool: none of one that is not active.
fn mapped(group: &Name, thin_pool: &Name) -> Result<Vec<Mapped>> {
    let dm = Dm::open().map_err(Error::io("opening", "/dev/mapper/control"))?;
    let Ok((_, number)) = dm.status(&format!("{}-tpool", mapper_name(group, thin_pool))) else {
        return Ok(Vec::new());
    };
    let prefix = thin::prefix(number);
    let all = dm.list().map_err(Error::io("listing", "device-mapper's devices"))?;
    let ours = all.into_iter().filter(|mapped| mapped.name.starts_with(&prefix));
    let asked = ours.map(|mapped| {
        let open = dm.is_open(&mapped.name).map_err(Error::io("asking", &mapped.name))?;
        Ok(Mapped { name: mapped.name, open })
    });
    asked.collect()
}

/// What device-mapper calls a volume of LVM: hyphens are doubled.
pub(super) fn mapper_name(group: &Name, volume: &Name) -> String {
    let doubled = |name: &Name| name.as_str().replace('-', "--");
    format!("{}-{}", doubled(group), doubled(volume))
}

/// Refuses programs that are missing or too old for a pool to be lived with.
pub(in crate::lvm) fn check_tools() -> Result<()> {
    Ok(tools()?.check()?)
}

/// Why a group cannot be used, if it cannot.
pub(in crate::lvm) fn why_unusable(group: &Name) -> Result<Option<Refusal>> {
    let groups = report(&["vgs"], report::GROUPS, report::groups)?;
    let found = Found { physicals: physicals()?, groups, ..Found::default() };
    Ok(found.usable_group(group).err())
}

fn tools() -> Result<Tools> {
    Ok(Tools {
        lvm: report::version(&ask("lvm", ["version"])?),
        thin: report::version(&ask("thin_check", ["-V"])?),
    })
}

fn physicals() -> Result<Vec<Physical>> {
    let mut found = report(&["pvs", "-a"], report::PHYSICALS, report::physicals)?;
    found.retain(|physical| !physical.uuid.is_empty());
    Ok(found)
}

/// By what the pool in `group` is known again.
pub fn identify(group: &Name, thin_pool: &Name) -> Result<Option<Identity>> {
    let groups = report(&["vgs"], report::GROUPS, report::groups)?;
    let logicals = report(&["lvs", "-a"], report::LOGICALS, report::logicals)?;
    let group = groups.into_iter().find(|found| found.name == group.as_str());
    let Some(group) = group else { return Ok(None) };
    let pool = logicals.into_iter().find(|found| {
        found.group == group.name && found.name == thin_pool.as_str() && found.kind == "thin-pool"
    });
    Ok(pool.map(|pool| Identity {
        group: group.name,
        group_uuid: group.uuid,
        thin_pool: pool.name,
        pool_uuid: pool.uuid,
    }))
}

/// A command of LVM, whose words do not depend on the locale.
pub(super) fn lvm<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("lvm");
    command.env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1").args(arguments);
    command
}

fn report<T>(
    what: &[&str],
    fields: &str,
    read: impl FnOnce(&str) -> serde_json::Result<Vec<T>>,
) -> Result<Vec<T>> {
    let form = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields];
    let mut command = lvm(what.iter().chain(&form));
    let text = wait::run_keeping(&mut command, TIME, &[0], MOST_ANSWER)?;
    read(&text).map_err(|e| unreadable(what.first().copied().unwrap_or("lvm"), &e))
}

fn ask<const N: usize>(program: &str, arguments: [&str; N]) -> Result<String> {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1").args(arguments);
    match wait::run(&mut command, TIME) {
        // The plan says which package it is in.
        Err(Error::MissingTool(_)) => Ok(String::new()),
        other => other,
    }
}

/// What is at `path`, if that is a block device.
fn device(path: &Path) -> Result<Option<Device>> {
    let Some(block) = block(path)? else { return Ok(None) };
    let mut wipefs = Command::new("wipefs");
    wipefs.env("LC_ALL", "C").args(["--no-act", "--json"]).arg(path);
    let text = wait::run_keeping(&mut wipefs, TIME, &[0], MOST_ANSWER)?;
    let signatures = report::signatures(&text).map_err(|e| unreadable("wipefs", &e))?;
    let mut users = Vec::new();
    list_users(&block, &mut users);
    if users.is_empty() && is_claimed(path)? {
        users.push("another program, or another mount namespace".into());
    }
    Ok(Some(Device {
        path: path.into(),
        number: block.number,
        size: block.size,
        kind: block.kind,
        read_only: block.ro,
        signatures,
        users,
    }))
}

/// What lsblk says of `path`, if a block device is there.
fn block(path: &Path) -> Result<Option<Block>> {
    let is_block = |meta: std::fs::Metadata| meta.file_type().is_block_device();
    if !path.is_absolute() || !std::fs::metadata(path).is_ok_and(is_block) {
        return Ok(None);
    }
    let mut lsblk = Command::new("lsblk");
    lsblk.env("LC_ALL", "C").args(["--json", "--bytes"]);
    // Without the name it would be a list, and no tree.
    lsblk.args(["-o", "NAME,PATH,SIZE,TYPE,MOUNTPOINT,RO,MAJ:MIN"]).arg(path);
    let text = wait::run_keeping(&mut lsblk, TIME, &[0], MOST_ANSWER)?;
    report::block(&text).map_err(|e| unreadable("lsblk", &e))
}

/// The catalog's filesystem, if it is mounted where this process sees it.
pub(super) fn catalog(group: &Name) -> Result<Option<Catalog>> {
    let node = format!("/dev/mapper/{}", mapper_name(group, &Name::ours(CATALOG)));
    let mountpoint = block(Path::new(&node))?.and_then(|block| block.mountpoint);
    let Some(mountpoint) = mountpoint.map(PathBuf::from) else { return Ok(None) };
    let stat = rustix::fs::statvfs(&mountpoint).map_err(Error::io("measuring", &mountpoint))?;
    let bytes = percent(stat.f_blocks - stat.f_bfree, stat.f_bavail);
    let files = percent(stat.f_files - stat.f_ffree, stat.f_favail);
    Ok(Some(Catalog { mountpoint, used_percent: bytes.max(files) }))
}

/// As df(1) has it: what is kept for root is neither used nor free.
fn percent(used: u64, free: u64) -> u8 {
    let percent = (used * 100).div_ceil((used + free).max(1));
    u8::try_from(percent).unwrap_or(u8::MAX)
}

fn list_users(block: &Block, users: &mut Vec<String>) {
    match block.mountpoint.as_deref() {
        Some("[SWAP]") => users.push("swapped to".into()),
        Some(at) => users.push(format!("mounted at {at}")),
        None => {}
    }
    for child in &block.children {
        if child.kind != "part" {
            users.push(format!("{} is made of it ({})", child.path, child.kind));
        }
        list_users(child, users);
    }
}

/// Whether somebody claims it for himself, or a part of it (open(2), `O_EXCL` of block devices).
fn is_claimed(path: &Path) -> Result<bool> {
    match rustix::fs::open(path, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Ok(false),
        Err(Errno::BUSY) => Ok(true),
        Err(error) => Err(Error::io("opening", path)(error)),
    }
}

fn unreadable(tool: &str, error: &serde_json::Error) -> Error {
    Error::Tool { tool: tool.into(), stderr: format!("its report cannot be read: {error}") }
}

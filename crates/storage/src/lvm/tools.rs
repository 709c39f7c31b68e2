//! LVM's own commands, for what happens rarely (lvm(8), lvmreport(7)).

use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::{Error, Result, wait};

/// A changing command takes tens of milliseconds on a quiet machine, and activation checks all of a
/// pool's metadata. To kill one is the last resort: LVM's and the pool's account could part.
const TIME: Duration = Duration::from_secs(3600);

/// A logical volume, as `lvs` reports it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Lv {
    pub(super) lv_name: String,
    pub(super) lv_uuid: String,
    pub(super) vg_uuid: String,
    /// The thin pool that a thin volume is in.
    pub(super) pool_lv: String,
    /// `/dev/mapper/…` with LVM's doubled hyphens.
    pub(super) lv_dm_path: String,
    pub(super) segtype: String,
    /// In bytes.
    pub(super) chunk_size: String,
    pub(super) zero: String,
    /// `queue` or `error`, of a thin pool.
    pub(super) lv_when_full: String,
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    lv: Vec<Lv>,
}

/// Runs an LVM command.
pub(super) fn lvm(arguments: &[&str]) -> Result<String> {
    wait::run(Command::new("lvm").args(arguments), TIME)
}

/// Those of a group's logical volumes that have one of these names. A group that is not there is an
/// error that names it.
pub(super) fn volumes(vg: &str, names: [&str; 3]) -> Result<Vec<Lv>> {
    let fields = "lv_name,lv_uuid,vg_uuid,pool_lv,lv_dm_path,segtype,chunk_size,zero,lv_when_full";
    let select = names.map(|name| format!("lv_name={name}")).join(" || ");
    let asked = ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix"];
    let text = lvm(&[&asked[..], &["-o", fields, "-S", &select, vg]].concat())?;
    let unreadable = |e: serde_json::Error| Error::Tool {
        tool: "lvs".into(),
        stderr: format!("its report cannot be read: {e}"),
    };
    let report: Report = serde_json::from_str(&text).map_err(unreadable)?;
    Ok(report.report.into_iter().flat_map(|section| section.lv).collect())
}

/// Whether LVM takes it as the name of a group or volume (lvm(8), *VALID NAMES*). What begins with
/// a hyphen would be an option.
pub(super) fn is_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    !name.is_empty()
        && name.len() <= 60
        && !name.starts_with('-')
        && name != "."
        && name != ".."
        && name.chars().all(ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_names_are_refused() {
        for good in ["vg", "vg-0", "a+b_c.d"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-vg", "a b", "$(reboot)", "a/b", "..", "a;b", &"x".repeat(61)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn reports_are_read() {
        let text = r#"{"report":[{"lv":[{"lv_name":"pool","lv_uuid":"a","vg_uuid":"b",
            "pool_lv":"","lv_dm_path":"/dev/mapper/v--g-pool",
            "segtype":"thin-pool","chunk_size":"65536","zero":"zero","lv_when_full":"queue"}]}]}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!(report.report[0].lv[0].lv_dm_path, "/dev/mapper/v--g-pool");
    }
}

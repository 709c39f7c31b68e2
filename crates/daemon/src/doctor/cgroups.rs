//! Control groups: one hierarchy of version 2, and somewhere the controllers of containers' limits.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_runtime::lxc::{Carrier, Hierarchies};

use super::Finding;

/// By which containers are limited.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// What the guardian stops everything by, in every group but the root.
const SWITCHES: [&str; 2] = ["cgroup.freeze", "cgroup.kill"];

#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Why there is no usable hierarchy, or what there is.
    layout: Result<Layout, String>,
}

#[derive(Debug, Clone)]
struct Layout {
    unified: PathBuf,
    /// Controllers in version 2, in a version 1 beside it, and nowhere.
    unified_has: Vec<&'static str>,
    legacy_has: Vec<&'static str>,
    nobody_has: Vec<&'static str>,
    /// Which of the switches a group lacks; nothing if there is no group to look into.
    switches_missing: Option<Vec<&'static str>>,
}

impl Facts {
    pub(super) fn gather() -> Self {
        Self { layout: Hierarchies::discover().map(Layout::of).map_err(|e| e.to_string()) }
    }
}

impl Layout {
    fn of(hierarchies: Hierarchies) -> Self {
        let carried = |by: fn(Option<Carrier<'_>>) -> bool| {
            let carried = CONTROLLERS.iter().filter(|name| by(hierarchies.carrier(name)));
            carried.copied().collect()
        };
        Self {
            unified: hierarchies.unified().to_owned(),
            unified_has: carried(|carrier| matches!(carrier, Some(Carrier::V2(_)))),
            legacy_has: carried(|carrier| matches!(carrier, Some(Carrier::V1(_)))),
            nobody_has: carried(|carrier| carrier.is_none()),
            switches_missing: switches_missing(hierarchies.unified()),
        }
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    match &facts.layout {
        Ok(layout) => vec![hierarchy(layout), controllers(layout)],
        Err(why) => {
            let cure = "boot with systemd, and with systemd.unified_cgroup_hierarchy=1";
            vec![Finding::problem("cgroups", why, cure)]
        }
    }
}

fn hierarchy(layout: &Layout) -> Finding {
    const NAME: &str = "cgroups";
    let missing = layout.switches_missing.as_deref().unwrap_or_default();
    if !missing.is_empty() {
        let what = format!("groups have no {}", missing.join(" and no "));
        return Finding::problem(NAME, what, "run Linux 5.14 or newer");
    }
    let place = layout.unified.display();
    let beside = if layout.legacy_has.is_empty() { "" } else { ", with version 1 beside it" };
    Finding::ok(NAME, format!("version 2 at {place}{beside}"))
}

fn controllers(layout: &Layout) -> Finding {
    const NAME: &str = "cgroup-controllers";
    if !layout.nobody_has.is_empty() {
        let missing = layout.nobody_has.join(", ");
        let what =
            format!("there is no controller for {missing}: no container with such a limit starts");
        let cure = "boot with cgroup_enable=memory, or whichever is missing";
        return Finding::problem(NAME, what, cure);
    }
    let mut has = vec![];
    for (list, version) in [(&layout.unified_has, 2), (&layout.legacy_has, 1)] {
        if !list.is_empty() {
            has.push(format!("{} in version {version}", list.join(", ")));
        }
    }
    Finding::ok(NAME, has.join("; "))
}

fn switches_missing(unified: &Path) -> Option<Vec<&'static str>> {
    let entries = fs::read_dir(unified).ok()?.flatten();
    let group = entries.map(|entry| entry.path()).find(|path| path.is_dir())?;
    Some(SWITCHES.iter().copied().filter(|switch| !group.join(switch).exists()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn layout() -> Layout {
        Layout {
            unified: "/sys/fs/cgroup".into(),
            unified_has: CONTROLLERS.to_vec(),
            legacy_has: vec![],
            nobody_has: vec![],
            switches_missing: Some(vec![]),
        }
    }

    fn checked(layout: Layout) -> Vec<Finding> {
        check(&Facts { layout: Ok(layout) })
    }

    #[test]
    fn both_layouts_will_do() {
        let pure = checked(layout());
        assert_eq!(pure[0].what, "version 2 at /sys/fs/cgroup");
        assert_eq!(pure[1].what, "cpu, memory, pids in version 2");
        let hybrid = Layout { unified_has: vec![], legacy_has: CONTROLLERS.to_vec(), ..layout() };
        let hybrid = checked(hybrid);
        assert!(hybrid.iter().all(|finding| finding.grade == Grade::Ok));
        assert_eq!(hybrid[1].what, "cpu, memory, pids in version 1");
    }

    #[test]
    fn what_is_missing_is_named() {
        let unswitched = Layout { switches_missing: Some(vec!["cgroup.kill"]), ..layout() };
        let found = checked(unswitched);
        assert_eq!(found[0].grade, Grade::Problem);
        assert!(found[0].what.contains("cgroup.kill"));
        let found = checked(Layout { nobody_has: vec!["memory"], ..layout() });
        assert_eq!(found[1].grade, Grade::Problem);
        assert!(found[1].what.contains("memory"));
        let none = check(&Facts { layout: Err("no cgroup2".into()) });
        assert_eq!(none[0].grade, Grade::Problem);
    }
}

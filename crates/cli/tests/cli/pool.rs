//! `holdfast pool`: what each change asks for, what is said of it, and how a check ends.

use holdfast_proto::v1;
use holdfast_proto::v1::PoolSeverity;
use holdfast_proto::v1::change_pool_request::Change;
use serde_json::Value;

use crate::{holdfast, well_with};

/// Flags and arguments reach the node that is named, as they are.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_says_what_it_is() {
    let text = |text: &str| text.to_owned();
    let grow =
        |data_bytes, metadata_bytes| Change::Grow(v1::GrowPool { data_bytes, metadata_bytes });
    let (b, c) = (text("/dev/sdb"), text("/dev/sdc"));
    let add = v1::AddPoolDevices { devices: vec![b.clone(), c.clone()], wipe: vec![c.clone()] };
    let split = v1::SplitPool { devices: vec![c], into: text("$(reboot)") };
    let fake = well_with(&[]);
    for (line, change) in [
        ("add-device /dev/sdb /dev/sdc --wipe /dev/sdc", Change::AddDevices(add)),
        (
            "evacuate-device /dev/sdb",
            Change::EvacuateDevice(v1::EvacuatePoolDevice { device: b.clone() }),
        ),
        ("remove-device /dev/sdb", Change::RemoveDevice(v1::RemovePoolDevice { device: b })),
        ("grow", grow(None, None)),
        ("grow --data 2GiB", grow(Some(2 << 30), None)),
        ("grow --data 2GiB --metadata 256MiB", grow(Some(2 << 30), Some(256 << 20))),
        ("split $(reboot) --device /dev/sdc", Change::Split(split)),
        ("repair", Change::Repair(v1::RepairPool {})),
    ] {
        for (flags, node, dry_run) in [("", "", false), (" --dry-run --node n2", "n2", true)] {
            let ran = holdfast(&fake.address, &format!("pool {line}{flags}")).await;
            assert_eq!(ran.status, 0, "{line}: {ran:?}");
            let asked = fake.memory.lock().unwrap().pool_changes.pop().unwrap();
            let change = Some(change.clone());
            assert_eq!(
                asked,
                v1::ChangePoolRequest { node: node.into(), dry_run, change },
                "{line}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_step_by_step() {
    let fake = well_with(&[]);
    let ran = holdfast(&fake.address, "pool grow --node n2").await;
    assert_eq!(ran.stderr, "[1/2] do this\n[2/2] do that\n      50 %\n");
    assert!(ran.stdout.starts_with("pool:") && ran.stdout.contains("n2"), "{ran:?}");
    let dry = holdfast(&fake.address, "pool grow --dry-run").await;
    assert_eq!((dry.stdout.as_str(), dry.stderr.as_str()), ("  1. do this\n  2. do that\n", ""));
    let nothing = holdfast(&fake.address, "pool repair").await;
    assert_eq!(nothing.stderr, "nothing is left to be done\n");
    let dry = holdfast(&fake.address, "pool repair --dry-run").await;
    assert_eq!(dry.stdout, "nothing is left to be done\n");
    let json = holdfast(&fake.address, "pool evacuate-device /dev/sdb -o json").await;
    let pool: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&pool["name"], json.stderr.as_str()), (&"fast".into(), ""));
    let json = holdfast(&fake.address, "pool grow --dry-run -o json").await;
    let plan: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(plan["steps"][1], "do that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_change_is_one_line_with_its_reason() {
    let fake = well_with(&[]);
    let ran = holdfast(&fake.address, "pool merge other").await;
    assert_eq!(ran.stderr, "holdfast: HF-POOL-UNUSABLE: its extents have 1MiB\n");
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
}

/// Scripts go by the exit status: what is broken fails, what will be some day does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_fails_if_something_is_broken() {
    let fake = well_with(&[]);
    let find = |severity: PoolSeverity, text: &str| {
        let finding = v1::PoolFinding { severity: severity.into(), text: text.into() };
        fake.memory.lock().unwrap().findings.push(finding);
    };
    find(PoolSeverity::Fine, "it is worn by 1 %");
    find(PoolSeverity::Warning, "it is 81 % full: holdfast pool grow");
    let ran = holdfast(&fake.address, "pool check").await;
    assert_eq!(
        ran.stdout,
        "\
SEVERITY  FINDING
fine      it is worn by 1 %
warning   it is 81 % full: holdfast pool grow
"
    );
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    find(PoolSeverity::Broken, "it lacks devices");
    let ran = holdfast(&fake.address, "pool check -o json").await;
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&found[2]["severity"], &found[2]["text"]),
        (&"broken".into(), &"it lacks devices".into())
    );
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["error"]["code"], "HF-POOL-DAMAGED");
    assert_eq!(ran.status, 1);
}

//! The rehearsal's web server, client and chain, over the lab's overlay, with a chroot for a
//! container. Root only.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use holdfast_lab::workload::{Ledger, Probe, busybox_rootfs, fetch_chain, parse_chain};
use holdfast_lab::{BootInstant, Programs, ScopedLab, UpOptions, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

const DAEMON: &str = r#"#!/bin/sh -e
cd "$(dirname "$2")"
if [ ! -d root ]; then
  mkdir root; tar -C root -xf ROOTFS
  ip link add hf0x type vxlan id 77 dstport 7789 local 10.88.0.1
  bridge fdb append 00:00:00:00:00:00 dev hf0x dst 10.88.0.254
  ip link set hf0x up; ip address add 10.77.0.5/16 dev hf0x
fi
exec chroot root /sbin/init
"#;

#[test]
fn the_client_keeps_what_it_was_answered_and_finds_it_on_the_disk() {
    let bin = tempfile::tempdir().unwrap();
    let rootfs = bin.path().join("rootfs.tar");
    fs::write(&rootfs, busybox_rootfs().unwrap()).unwrap();
    let daemon = DAEMON.replace("ROOTFS", &rootfs.display().to_string());
    for (program, text) in
        [("holdfastd", daemon.as_str()), ("holdfast-guardian", "#!/bin/sh\nexec sleep 1000\n")]
    {
        let path = bin.path().join(program);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let programs = Programs {
        lab: env!("CARGO_BIN_EXE_holdfast-lab").into(),
        daemon: bin.path().join("holdfastd"),
        guardian: bin.path().join("holdfast-guardian"),
    };
    let options = UpOptions { voters: 1, replace: true, ..UpOptions::new("t-work", programs) };
    let lab = ScopedLab::up(&options).unwrap();
    let address = "10.77.0.5".parse().unwrap();

    let probe = Probe::start(lab.layout(), address, lab.pace()).unwrap();
    let fifty = wait_until("fifty answers", LIMIT, || Ok(probe.acked().len() >= 50));
    let log = lab.layout().node_dir("n1").join("holdfastd.log");
    fifty.unwrap_or_else(|error| panic!("{error}: {}", fs::read_to_string(log).unwrap()));
    lab.cut("n1").unwrap();
    let cut = BootInstant::now();
    std::thread::sleep(Duration::from_millis(300));
    assert!(probe.last_before(cut).is_some());
    lab.heal("n1").unwrap();
    wait_until("an answer again", LIMIT, || Ok(probe.first_after(cut).is_some())).unwrap();

    let acked = probe.finish();
    let mean = acked.iter().map(|a| a.acked.since(a.sent)).sum::<Duration>() / acked.len() as u32;
    println!("{} answers, {mean:?} on average", acked.len());
    let chain = parse_chain(&fetch_chain(lab.layout(), address, lab.pace()).unwrap()).unwrap();
    assert!(chain.len() >= acked.len());
    let mut ledger = Ledger::default();
    ledger.extend(acked);
    let verdict = ledger.judge(&chain, None);
    assert_eq!((verdict.lost, verdict.unreported), (0, 0));
}

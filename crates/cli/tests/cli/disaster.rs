//! Backups, a cluster of one, and the recovery that another program does.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use holdfast_proto::backup::{BackupWriter, FORMAT};
use holdfast_proto::v1;

use crate::fake::{Fake, Mood};
use crate::{holdfast, in_dir, well_with};

fn file() -> Vec<u8> {
    let header = v1::BackupHeader {
        format: FORMAT,
        cluster_id: "c1".into(),
        index: 42,
        node: "n1".into(),
        containers: 7,
        ..Default::default()
    };
    let mut writer = BackupWriter::begin(Vec::new(), &header).unwrap();
    writer.write_all(&[5; 1_000]).unwrap();
    writer.finish().unwrap()
}

fn with_backup(file: Vec<u8>) -> Fake {
    let fake = well_with(&[]);
    fake.memory.lock().unwrap().backup = file;
    fake
}

/// The file is its owner's alone, is not replaced by accident, and can be checked without a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_whole_and_its_owner_s() {
    let fake = with_backup(file());
    let path = in_dir(fake.dir.path(), "backup");
    let ran = holdfast(&fake.address, &format!("cluster backup {path}")).await;
    assert_eq!((ran.status, &ran.stderr[..]), (0, ""));
    assert!(ran.stdout.contains("entry 42 of term 0"), "{}", ran.stdout);
    assert_eq!(std::fs::read(&path).unwrap(), file());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let again = holdfast(&fake.address, &format!("cluster backup {path}")).await;
    assert_eq!(again.status, 5, "{}", again.stderr);
    assert!(again.stderr.contains("HF-ALREADY-EXISTS") && again.stderr.contains("--force"));
    let forced = holdfast(&fake.address, &format!("cluster backup --force {path}")).await;
    assert_eq!(forced.status, 0, "{}", forced.stderr);

    let nobody = in_dir(fake.dir.path(), "nobody.sock");
    let line = format!("-o json cluster backup --verify {path}");
    let checked = holdfast(&format!("unix:{nobody}"), &line).await;
    assert_eq!(checked.status, 0, "{}", checked.stderr);
    assert!(checked.stdout.contains("\"containers\": 7"), "{}", checked.stdout);

    let mut bad = file();
    bad[200] ^= 1;
    std::fs::write(&path, bad).unwrap();
    let damaged = holdfast(&format!("unix:{nobody}"), &line).await;
    assert!(damaged.status == 1 && damaged.stderr.contains("HF-CORRUPT"), "{}", damaged.stderr);
}

/// What breaks off leaves nothing, and what was there stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_breaks_off_leaves_what_was_there() {
    let whole = file();
    let fake = with_backup(whole[..whole.len() - 40].to_vec());
    let path = in_dir(fake.dir.path(), "backup");
    std::fs::write(&path, "the one of yesterday").unwrap();
    let ran = holdfast(&fake.address, &format!("cluster backup --force {path}")).await;
    assert!(ran.status == 1 && ran.stderr.contains("HF-CORRUPT"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "the one of yesterday");
    assert!(!std::path::Path::new(&format!("{path}.part")).exists());
    let piped = holdfast(&fake.address, "cluster backup -").await;
    assert_eq!(piped.status, 1, "a pipe is told by the exit status");
}

/// I8: nobody restores without saying that the old cluster is gone; a damaged file is not even sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_confirmed_and_its_file_checked_first() {
    let fake = Fake::start(Mood::Well);
    let path = in_dir(fake.dir.path(), "backup");
    std::fs::write(&path, file()).unwrap();
    let unsure = holdfast(&fake.address, &format!("cluster restore {path}")).await;
    assert_eq!(unsure.status, 2);
    assert!(unsure.stderr.contains("--yes-the-old-cluster-is-gone"), "{}", unsure.stderr);
    let sure = format!("cluster restore --yes-the-old-cluster-is-gone {path}");
    let ran = holdfast(&fake.address, &sure).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("n2, n3"), "{}", ran.stdout);
    assert_eq!(fake.memory.lock().unwrap().restored.take(), Some(file()));

    std::fs::write(&path, &file()[..500]).unwrap();
    let cut = holdfast(&fake.address, &sure).await;
    assert!(cut.stderr.contains("HF-CORRUPT"), "{}", cut.stderr);
    assert_eq!(fake.memory.lock().unwrap().restored, None);
}

#[test]
fn a_recovery_is_the_daemon_s_own() {
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("holdfast");
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &alone).unwrap();
    let daemon = dir.path().join("holdfastd");
    std::fs::write(&daemon, "#!/bin/sh\necho \"$@\"\nexit 9\n").unwrap();
    std::fs::set_permissions(&daemon, PermissionsExt::from_mode(0o755)).unwrap();
    let run =
        Command::new(&alone).args(["cluster", "recover", "--show", "--config", "/x"]).output();
    let output = run.unwrap();
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(&output.stdout[..], b"recover --show --config /x\n");
}

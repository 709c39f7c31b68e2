//! The `holdfast` binary against a fake daemon on a Unix socket: what it prints, how it fails, and
//! which exit status it has. No test has a terminal.

// The helpers of tests are tests too; clippy's own exception covers only the functions marked so.
#![allow(clippy::unwrap_used)]

mod disaster;
mod fake;
mod pool;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fake::{Fake, Mood, container};
use serde_json::Value;

/// What a run of the binary left.
#[derive(Debug)]
struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
    took: Duration,
}

/// Runs `holdfast` with the words of `line`; `address` is a list.
async fn holdfast_with(address: &str, line: &str, stdin: Vec<u8>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(line.split(' ')).env("HOLDFAST_ADDRESS", address).env_remove("TERM");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = move || {
        let started = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // A command that does not read its input closes it when it ends.
        let feeder = std::thread::spawn(move || drop(input.write_all(&stdin)));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Ran {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            took: started.elapsed(),
        }
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn holdfast(address: &str, line: &str) -> Ran {
    holdfast_with(address, line, Vec::new()).await
}

fn well_with(names: &[&str]) -> Fake {
    let fake = Fake::start(Mood::Well);
    let mut memory = fake.memory.lock().unwrap();
    memory.containers = names.iter().map(|n| ((*n).to_owned(), container(n))).collect();
    drop(memory);
    fake
}

fn in_dir(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_a_table_or_json() {
    let fake = well_with(&["db", "web"]);
    let table = holdfast(&fake.address, "ls").await;
    assert_eq!(
        table.stdout,
        "\
NAME  STATE    NODE  ADDRESS    REPLICAS   IMAGE    CREATED
db    running  n1    10.77.0.2  n2 (1.5s)  busybox  -
web   running  n1    10.77.0.2  n2 (1.5s)  busybox  -
"
    );
    assert_eq!((table.status, table.stderr.as_str()), (0, ""));
    let json = holdfast(&fake.address, "ls -o json").await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json[1]["name"], "web");
    assert_eq!(json[1]["replicas"][0]["age_ms"], 1_500);
    let nodes = holdfast(&fake.address, "node ls -o json").await;
    let nodes: Value = serde_json::from_str(&nodes.stdout).unwrap();
    assert_eq!((&nodes[0]["role"], &nodes[0]["state"]), (&"voter".into(), &"up".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_changed_and_shown_with_the_node_s_version() {
    let fake = well_with(&[]);
    let ran = holdfast(&fake.address, "node label n1 domain=rack-a disk=a=b --remove old").await;
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "node n1 is of version 10\n"));
    let shown = holdfast(&fake.address, "node show n1 -o json").await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&shown["labels"]["domain"], &shown["revision"]), (&"rack-a".into(), &7.into()));
    let ran = holdfast(&fake.address, "node label n1 domain=b --if-version 6").await;
    assert!(ran.status == 5 && ran.stderr.contains("HF-CONFLICT"), "{}", ran.stderr);
    for bad in ["node label n1", "node label n1 domain", "node label n1 Domain=x"] {
        assert_eq!(holdfast(&fake.address, bad).await.status, 2, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_one_line_with_its_code_and_status() {
    let fake = well_with(&[]);
    let ran = holdfast(&fake.address, "show web").await;
    assert_eq!(ran.status, 3);
    assert_eq!(ran.stderr, "holdfast: HF-NOT-FOUND: there is no container named web\n");
    assert_eq!(ran.stdout, "");
    let ran = holdfast(&fake.address, "-o json show web").await;
    let json: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(json["error"]["code"], "HF-NOT-FOUND");
    assert_eq!(ran.status, 3);
    let ran = holdfast(&fake.address, "image rm busybox").await;
    assert_eq!((ran.status, ran.stderr.lines().count()), (5, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_told_without_asking_the_cluster() {
    let nowhere = "unix:/nonexistent/holdfastd.sock";
    for (line, code) in [
        ("show Web_1", "HF-INVALID-NAME"),
        ("create web --image i --disk 0", "HF-INVALID-SIZE"),
        ("create web --image i --disk 1GB", "HF-INVALID-SIZE"),
        ("create web --image i --copies 9", "HF-INVALID-ARGUMENT"),
        ("create web --image i --replicate-every 10ms", "HF-INVALID-ARGUMENT"),
        ("create web", "HF-INVALID-ARGUMENT"),
        ("rm web", "HF-INVALID-ARGUMENT"),
        ("image import i /nonexistent.tar", "HF-INVALID-ARGUMENT"),
        ("resize web 20GB", "HF-INVALID-SIZE"),
        ("pool add-device", "HF-INVALID-ARGUMENT"),
        ("pool evacuate-device", "HF-INVALID-ARGUMENT"),
        ("pool grow --data 20GB", "HF-INVALID-SIZE"),
        ("pool grow --metadata x", "HF-INVALID-SIZE"),
        ("pool split spare", "HF-INVALID-ARGUMENT"),
        ("pool merge", "HF-INVALID-ARGUMENT"),
        ("frobnicate", "HF-INVALID-ARGUMENT"),
    ] {
        let ran = holdfast(nowhere, line).await;
        assert_eq!(ran.status, 2, "{line}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{line}: {ran:?}");
        assert!(ran.stderr.starts_with(&format!("holdfast: {code}: ")), "{line}: {ran:?}");
        let json = holdfast(nowhere, &format!("{line} -o json")).await;
        let json: Value = serde_json::from_str(&json.stderr).unwrap();
        assert_eq!(json["error"]["code"], code, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_names_the_size_in_full() {
    let fake = well_with(&["web"]);
    let ran = holdfast(&fake.address, "resize web 20GiB").await;
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let json = holdfast(&fake.address, "show web -o json").await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["spec"]["disk_bytes"], 20u64 << 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_told_at_once() {
    let ran = holdfast("unix:/nonexistent/a.sock,unix:/nonexistent/b.sock", "ls").await;
    assert_eq!(ran.status, 4);
    assert!(ran.stderr.starts_with("holdfast: HF-UNAVAILABLE: cannot reach "), "{ran:?}");
    assert!(ran.stderr.contains("a.sock") && ran.stderr.contains("b.sock"), "{ran:?}");
    assert!(ran.took < Duration::from_secs(3), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_answers_for_one_that_is_gone_silent_or_cut_off() {
    let well = well_with(&["web"]);
    let silent = Fake::start(Mood::Silent);
    let minority = Fake::start(Mood::NoQuorum);
    for bad in ["unix:/nonexistent/a.sock", &silent.address, &minority.address] {
        let ran = holdfast(&format!("{bad},{}", well.address), "show web").await;
        assert_eq!(ran.status, 0, "{ran:?}");
    }
}

/// The issue: with the majority gone every write answers "no quorum" within 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn no_quorum_reaches_the_user_within_five_seconds() {
    let minority = Fake::start(Mood::NoQuorum);
    let silent = Fake::start(Mood::Silent);
    let addresses = format!("unix:/nonexistent/a.sock,{},{}", silent.address, minority.address);
    let ran = holdfast(&addresses, "create web --image busybox").await;
    assert_eq!(ran.status, 4);
    assert_eq!(ran.stderr, "holdfast: HF-NO-QUORUM: no leader has a quorum\n");
    assert!(ran.took < Duration::from_secs(5), "{ran:?}");
}

/// Also if the two that are gone are asked first, and the last one hopes for a leader.
#[tokio::test(flavor = "multi_thread")]
async fn no_quorum_is_told_in_time_by_the_last_that_is_asked() {
    let (first, second) = (Fake::start(Mood::Silent), Fake::start(Mood::Silent));
    let last = Fake::start(Mood::NoQuorumAtLast);
    let addresses = format!("{},{},{}", first.address, second.address, last.address);
    let ran = holdfast(&addresses, "create web --image busybox").await;
    assert_eq!(ran.stderr, "holdfast: HF-NO-QUORUM: no leader has a quorum\n");
    assert!(ran.took < Duration::from_secs(5), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_with_the_timeout() {
    let silent = Fake::start(Mood::Silent);
    let ran = holdfast(&silent.address, "ls --timeout 300ms").await;
    assert_eq!(ran.status, 7);
    assert!(ran.stderr.starts_with("holdfast: HF-TIMEOUT: no answer within 0.3 s"), "{ran:?}");
}

/// I7: a request that is repeated keeps its id.
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_is_followed_and_carries_a_request_id() {
    let fake = well_with(&[]);
    let line = "create web --image busybox --memory 64MiB --env A=b -- /bin/sh -c ls";
    let ran = holdfast(&fake.address, line).await;
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "web: running on n1, address 10.77.0.2\n"));
    assert_eq!(ran.stderr, "", "no spinner without a terminal");
    let memory = fake.memory.lock().unwrap();
    assert_eq!(memory.request_ids.len(), 1);
    assert_eq!(memory.request_ids[0].len(), 16);
    assert_eq!(memory.request_ids[0][6] >> 4, 7, "a UUIDv7");
    let spec = memory.containers["web"].spec.as_ref().unwrap();
    assert_eq!(spec.memory_bytes, Some(64 << 20));
    assert_eq!(spec.command, ["/bin/sh", "-c", "ls"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_operation_fails_the_command_with_its_code() {
    let fake = well_with(&["web"]);
    let ran = holdfast(&fake.address, "stop web").await;
    assert_eq!(ran.status, 1);
    assert_eq!(ran.stderr, "holdfast: HF-RUNTIME: init does not listen\n");
    assert_eq!(holdfast(&fake.address, "stop web --no-wait").await.status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_needs_a_yes_where_nobody_can_be_asked() {
    let fake = well_with(&["web"]);
    let ran = holdfast(&fake.address, "rm web").await;
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("--yes"), "{ran:?}");
    assert!(fake.memory.lock().unwrap().containers.contains_key("web"));
    let ran = holdfast(&fake.address, "rm web --yes").await;
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "web: deleted\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_has_the_commands_streams_and_exit_status() {
    let fake = well_with(&["web"]);
    let input = "data".repeat(50_000).into_bytes();
    let ran = holdfast_with(&fake.address, "exec web -- wc -o json", input).await;
    assert_eq!((ran.status, ran.stderr.as_str()), (7, "wc|-o|json"));
    assert_eq!(ran.stdout.len(), 200_000);
    let ran = holdfast_with(&fake.address, "exec -n web -- wc", b"unread".to_vec()).await;
    assert_eq!((ran.status, ran.stdout.as_str()), (7, ""));
    let ran = holdfast(&fake.address, "exec db -- wc").await;
    assert_eq!(ran.status, 125);
    assert!(ran.stderr.starts_with("holdfast: HF-NOT-FOUND: "), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_print_as_much_as_was_asked_for() {
    let fake = well_with(&["web"]);
    assert_eq!(holdfast(&fake.address, "logs web --tail 5").await.stdout, "xxxxx");
    assert_eq!(holdfast(&fake.address, "logs web").await.stdout.len(), 64 << 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_of_events_goes_on_without_gaps_or_repeats() {
    let fake = well_with(&[]);
    let ran = holdfast(&fake.address, "events --follow -o json").await;
    let events = ran.stdout.lines().map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["revision"].as_u64().unwrap(), event["index"].as_u64().unwrap())
    });
    assert_eq!(events.collect::<Vec<_>>(), [(5, 0), (5, 1), (6, 0), (6, 1)]);
    assert_eq!(
        ran.stderr.trim(),
        r#"{"error":{"code":"HF-INTERNAL","message":"the end of the test"}}"#
    );
    let ran = holdfast(&fake.address, "events --after 5").await;
    assert_eq!((ran.status, ran.stdout.lines().count()), (0, 2));
}

/// A node that goes down is no gap: another goes on after what was complete, and what came twice is
/// printed once.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_node() {
    let (first, second) = (well_with(&[]), well_with(&[]));
    second.memory.lock().unwrap().watches = 1;
    let addresses = format!("{},{}", first.address, second.address);
    let ran = holdfast(&addresses, "events --follow -o json").await;
    let events = ran.stdout.lines().map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["revision"].as_u64().unwrap(), event["index"].as_u64().unwrap())
    });
    assert_eq!(events.collect::<Vec<_>>(), [(5, 0), (5, 1), (6, 0), (6, 1)]);
    assert_eq!(first.memory.lock().unwrap().watched_after, [0]);
    let after = second.memory.lock().unwrap().watched_after.clone();
    assert_eq!(after, [5], "the entry that came in part is asked for again");
}

/// The bad night: no quorum, and yet what this node has is shown, and how old it may be.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_stale_says_so() {
    let minority = Fake::start(Mood::NoQuorum);
    minority.memory.lock().unwrap().containers.insert("web".into(), container("web"));
    assert_eq!(holdfast(&minority.address, "ls").await.status, 4);
    let table = holdfast(&minority.address, "ls --stale").await;
    assert_eq!(table.status, 0, "{table:?}");
    assert!(table.stdout.contains("web   running"), "{table:?}");
    assert!(
        table.stdout.ends_with("\n\nread from n1 alone: entry 7, at most 61s old\n"),
        "{table:?}"
    );
    let json = holdfast(&minority.address, "--stale ls -o json").await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["read"]["age_ms"], &json["read"]["applied"]), (&61_000.into(), &7.into()));
    assert_eq!(json["result"][0]["name"], "web");
    for change in ["stop web --stale", "rm web --yes --stale", "image rm i --stale"] {
        let ran = holdfast(&minority.address, change).await;
        assert_eq!(ran.status, 2, "{ran:?}");
    }
}

/// I7: what is changed names a revision from before it was first sent; and the version that it is for.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_says_what_it_knew() {
    let fake = well_with(&["web"]);
    holdfast(&fake.address, "create db --image busybox").await;
    holdfast(&fake.address, "start web").await;
    holdfast(&fake.address, "start web --if-version 12").await;
    let memory = fake.memory.lock().unwrap();
    assert_eq!(memory.since, [41]);
    assert_eq!(memory.expected, [None, Some(12)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_sent_as_it_is_and_a_directory_as_tar() {
    let fake = well_with(&[]);
    let file = in_dir(fake.dir.path(), "image.tar");
    std::fs::write(&file, vec![5; 700_000]).unwrap();
    let ran = holdfast(&fake.address, &format!("image import i {file} --size 64MiB")).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(fake.memory.lock().unwrap().archive.take().unwrap(), vec![5; 700_000]);

    let ran = holdfast_with(&fake.address, "image import i -", vec![6; 300_000]).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(fake.memory.lock().unwrap().archive.take().unwrap(), vec![6; 300_000]);

    let dir = in_dir(fake.dir.path(), "rootfs");
    std::fs::create_dir_all(format!("{dir}/bin")).unwrap();
    std::fs::write(format!("{dir}/bin/sh"), b"#!").unwrap();
    let ran = holdfast(&fake.address, &format!("image import i {dir}")).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    let archive = fake.memory.lock().unwrap().archive.take().unwrap();
    let mut archive = tar::Archive::new(&archive[..]);
    let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned());
    let names: Vec<_> = names.map(|p| p.display().to_string()).collect();
    assert_eq!(names, ["./", "bin", "bin/sh"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_archive_is_told_by_the_servers_words() {
    let fake = well_with(&[]);
    let mut hostile = b"no tar".to_vec();
    hostile.resize(20_000_000, 0);
    let ran = holdfast_with(&fake.address, "image import i -", hostile).await;
    assert_eq!(ran.status, 2);
    assert_eq!(ran.stderr, "holdfast: HF-BAD-IMAGE: this is no tar archive\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_to_its_end_is_not_imported() {
    let fake = well_with(&[]);
    // Its files say that they are a page long, and are not.
    let ran = holdfast(&fake.address, "image import i /sys/kernel").await;
    assert_eq!(ran.status, 2, "{ran:?}");
    assert!(ran.stderr.starts_with("holdfast: HF-INVALID-ARGUMENT: cannot pack /sys/"), "{ran:?}");
    assert!(fake.memory.lock().unwrap().archive.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_commands_reach_their_calls() {
    let fake = well_with(&["web"]);
    let out = async |line: &'static str| {
        let ran = holdfast(&fake.address, line).await;
        assert_eq!(ran.status, 0, "{line}: {ran:?}");
        ran.stdout
    };
    assert!(out("cluster status").await.ends_with("warning: node n3 is lost\n"));
    assert_eq!(out("cluster init").await, "cluster c1: made, this is node 1\n");
    assert_eq!(
        out("node join --peer a:1 --peer b:2 --role worker").await,
        "cluster a:1+b:2: joined as worker, node 2\n"
    );
    assert!(out("cluster rotate-ca").await.contains("is being replaced"));
    let token = out("node token --lifetime 2h").await;
    assert!(token.starts_with("hfjoin1.") && token.lines().count() == 1, "to be piped: {token}");
    let joined = out("node join --peer a:1").await;
    assert_eq!(joined, "cluster a:1: joined as standby, node 2\n", "the cluster decided");
    assert_eq!(out("node rm n2").await, "node n2: removed; n4 votes in its place\n");
    assert_eq!(out("node rm n1 --force").await, "node n1: removed; n4 votes in its place\n");
    let refused = holdfast(&fake.address, "node rm n1").await;
    assert!(refused.status == 5 && refused.stderr.contains("HF-IN-USE"), "{refused:?}");
    assert_eq!(out("sync web").await, "web: current on n2 (snapshot 1.7)\n");
    assert!(out("diverged ls").await.contains("4KiB     2023-11-14T22:13:20.000Z"));
    assert_eq!(out("takeover approve web").await, "web: running on n1, address 10.77.0.2\n");
    assert_eq!(out("start web").await, "web: running on n1, address 10.77.0.2\n");
    let shown = out("operation show 01900000-0000-7000-8000-000000000001 --wait 1s").await;
    assert!(shown.contains("state:      done"), "{shown}");
    assert!(out("completion bash").await.contains("_holdfast"));
    assert_eq!(out("image ls").await, "NAME  SIZE  CONTENT  ENTRIES  INIT  NODES  CREATED\n");
    assert!(out("--help").await.contains("Exit status:"));
}

/// A reader that has had enough is no reason to panic, or to fail a pipeline.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_ends_the_program_quietly() {
    let fake = well_with(&["web"]);
    let script = format!(
        "{} logs web --tail 4MiB | head -c 1; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_holdfast")
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).env("HOLDFAST_ADDRESS", &fake.address).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_lab_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("holdfast");
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &alone).unwrap();
    let run = || Command::new(&alone).args(["lab", "up", "--nodes", "3"]).env("PATH", "").output();
    let output = run().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.starts_with(b"holdfast: HF-MISSING-TOOL: holdfast-lab "));
    std::fs::write(dir.path().join("holdfast-lab"), "#!/bin/sh\necho \"$@\"\nexit 9\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path().join("holdfast-lab"), mode).unwrap();
    let output = run().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(9), &b"up --nodes 3\n"[..]));
}

//! The links go down with the fence and come up before the thaw. Rules 3 and 5.

use std::process::{Command, Stdio};

use crate::harness::{BUDGET_NS, LINK_GROUP, Node, in_ms, sleep_until, wait_for};

/// Runs `ip` in the guardian's network namespace.
fn ip(node: &Node, args: &str) -> String {
    let output = Command::new("nsenter")
        .args(["--target", &node.guardian.pid().to_string(), "--net", "ip"])
        .args(args.split(' '))
        .stdin(Stdio::null())
        .output()
        .expect("ran");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_up(node: &Node, link: &str) -> bool {
    let shown = ip(node, &format!("-o link show dev {link}"));
    let flags = shown.split(['<', '>']).nth(1).expect("flags");
    flags.split(',').any(|flag| flag == "UP")
}

fn add_pair(node: &Node, name: &str, protected: bool) {
    ip(node, &format!("link add {name} type veth peer name {name}-c"));
    ip(node, &format!("link set {name} up"));
    ip(node, &format!("link set {name}-c up"));
    if protected {
        ip(node, &format!("link set {name} group {LINK_GROUP}"));
    }
}

#[test]
fn protected_links_follow_the_fence_and_others_do_not() {
    let mut node = Node::start();
    for (name, protected) in [("p0", true), ("p1", true), ("q0", false)] {
        add_pair(&node, name, protected);
    }
    // A protected link that came up while everything was fenced does not stay up.
    wait_for("the fence is put in force again", || !is_up(&node, "p0") && !is_up(&node, "p1"));
    assert!(is_up(&node, "q0"));
    let mut client = node.client();
    for _ in 0..3 {
        // Launched while frozen, so the first thing it can do is after the thaw.
        let mut look = Command::new("nsenter");
        look.args(["--target", &node.guardian.pid().to_string(), "--net"]);
        let seen = node.dir.path().join("seen");
        let inner = node.enter("web", "sh");
        look.arg(inner.get_program()).args(inner.get_args());
        look.args(["-c", "ip -o link show dev p1 >\"$0.new\" && mv \"$0.new\" \"$0\""]).arg(&seen);
        look.stdin(Stdio::null());
        node.launch(look);
        wait_for("it waits in the frozen cgroup", || node.ancestor.event("populated"));
        let deadline_ns = in_ms(1_000);
        client.thaw(in_ms(0), deadline_ns).expect("thawed");
        assert!(is_up(&node, "p0") && is_up(&node, "p1"));
        wait_for("it has looked", || seen.exists());
        let text = std::fs::read_to_string(&seen).expect("read");
        assert!(text.contains(",UP"), "the link was up before it ran: {text}");
        std::fs::remove_file(&seen).expect("removed");
        sleep_until(deadline_ns + BUDGET_NS);
        assert!(!is_up(&node, "p0") && !is_up(&node, "p1"), "down with the fence");
        assert!(is_up(&node, "q0"), "a pinned container's link is none of its business");
        let fence = node.status().last_fence.expect("a fence");
        assert!(fence.links_down_ns.is_some_and(|at_ns| at_ns < deadline_ns + BUDGET_NS));
    }
}

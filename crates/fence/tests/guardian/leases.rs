//! What may run, and until when: I9, and DESIGN section 5, rules 1, 3 and 5.

use holdfast_fence::GuardianError;
use holdfast_fence::protocol::{FenceCause, Phase, Refusal};

use crate::harness::{BUDGET_NS, MS, Node, in_ms, sleep_until, wait_for};

/// Rule 3, I9: it starts frozen, and what is launched before a lease does not run.
#[test]
fn nothing_runs_before_the_first_thaw() {
    let mut node = Node::start();
    let status = node.status();
    assert_eq!(status.phase, Phase::Fenced);
    assert_eq!(status.last_fence.map(|fence| fence.cause), Some(FenceCause::Start));
    let writes = node.writer("web");
    wait_for("the launcher is held", || node.ancestor.event("populated"));
    sleep_until(in_ms(300));
    assert_eq!(writes.count(), 0);
    node.client().thaw(in_ms(0), in_ms(5_000)).expect("thawed");
    writes.wait_running();
}

/// I8, rule 3: without renewals everything stops at `s + T`, by the guardian alone.
#[test]
fn everything_is_frozen_when_the_lease_runs_out() {
    let mut node = Node::start();
    let writes = node.writer("web");
    let deadline_ns = in_ms(1_000);
    node.client().thaw(in_ms(0), deadline_ns).expect("thawed");
    writes.wait_running();
    writes.assert_stopped_before(deadline_ns + BUDGET_NS);
    assert!(writes.last_ns() > deadline_ns - 500 * MS, "and not long before its end");

    let status = node.status();
    let fence = status.last_fence.expect("a fence");
    assert_eq!((status.phase, fence.cause), (Phase::Fenced, FenceCause::Deadline));
    assert_eq!((fence.due_ns, fence.killed_ns), (deadline_ns, None));
    let order = [
        Some(deadline_ns),
        fence.freeze_written_ns,
        fence.links_down_ns,
        fence.frozen_ns,
        fence.complete_ns,
        Some(deadline_ns + BUDGET_NS),
    ];
    assert!(order.is_sorted() && order.iter().all(Option::is_some), "{order:?}");
    assert!(Some(writes.last_ns()) <= fence.frozen_ns);
    assert!(node.ancestor.event("frozen") && node.ancestor.event("populated"), "paused, not dead");
}

/// Rule 1: each renewal moves the end, and none moves it back.
#[test]
fn renewals_extend_the_lease_and_never_shorten_it() {
    let mut node = Node::start();
    let writes = node.writer("web");
    let mut client = node.client();
    let mut deadline_ns = in_ms(1_000);
    client.thaw(in_ms(0), deadline_ns).expect("thawed");
    let first_ns = deadline_ns;
    while deadline_ns < first_ns + 1_000 * MS {
        sleep_until(deadline_ns - 800 * MS);
        deadline_ns = in_ms(1_000);
        assert_eq!(client.renew(in_ms(0), deadline_ns).expect("renewed"), deadline_ns);
    }
    assert_eq!(client.renew(in_ms(0), in_ms(100)).expect("no news"), deadline_ns);
    assert_eq!(client.thaw(in_ms(0), in_ms(100)).expect("no news"), deadline_ns);
    sleep_until(first_ns + BUDGET_NS);
    writes.wait_running();
    assert!(writes.last_ns() > first_ns);
    assert_eq!(node.status().phase, Phase::Live { deadline_ns });
    writes.assert_stopped_before(deadline_ns + BUDGET_NS);
}

/// Rule 5, I9: after a fence a renewal is refused; a thaw lets the same processes go on.
#[test]
fn only_a_thaw_ends_a_fence() {
    let mut node = Node::start();
    let writes = node.writer("web");
    let mut client = node.client();
    let refused = client.renew(in_ms(0), in_ms(1_000)).expect_err("fenced at start");
    assert!(refused.is_fenced());

    let deadline_ns = in_ms(700);
    client.thaw(in_ms(0), deadline_ns).expect("thawed");
    writes.wait_running();
    writes.assert_stopped_before(deadline_ns + BUDGET_NS);
    assert!(client.renew(in_ms(0), in_ms(1_000)).expect_err("too late").is_fenced());
    let count = writes.count();
    sleep_until(in_ms(100));
    assert_eq!(writes.count(), count);

    client.thaw(in_ms(0), in_ms(5_000)).expect("thawed again");
    writes.wait_running();
    assert_eq!(node.status().thaws, 2);
}

/// I9: a deadline that has passed, or that no lease can have, starts nothing.
#[test]
fn absurd_deadlines_thaw_nothing() {
    let mut node = Node::start();
    let writes = node.writer("web");
    let mut client = node.client();
    for (deadline_ns, refusal) in [
        (in_ms(0) - MS, Refusal::DeadlinePassed),
        (0, Refusal::DeadlinePassed),
        (in_ms(70_000), Refusal::DeadlineTooFar),
        (u64::MAX, Refusal::DeadlineTooFar),
    ] {
        match client.thaw(in_ms(0), deadline_ns) {
            Err(GuardianError::Refused(why)) => assert_eq!(why, refusal),
            other => panic!("{other:?}"),
        }
    }
    sleep_until(in_ms(200));
    assert_eq!(writes.count(), 0);
    assert!(node.ancestor.event("frozen"));
}

/// Section 5, evidence: relinquishing answers only when everything has stopped.
#[test]
fn relinquishing_stops_everything_before_it_answers() {
    let mut node = Node::start();
    let writes = node.writer("web");
    let mut client = node.client();
    client.thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    writes.wait_running();
    let fence = client.relinquish().expect("stopped");
    let answered_ns = in_ms(0);
    assert_eq!(fence.cause, FenceCause::Relinquished);
    assert!(fence.complete_ns.is_some_and(|at_ns| at_ns <= answered_ns));
    assert!(node.ancestor.event("frozen"));
    writes.assert_stopped_before(answered_ns);
    assert_eq!(client.relinquish().expect("still"), fence);
    // I8: an answer to a heartbeat that was sent before is worth nothing now, the next one is.
    match client.thaw(answered_ns - MS, in_ms(5_000)) {
        Err(GuardianError::Refused(Refusal::StaleGrant)) => {}
        other => panic!("{other:?}"),
    }
    // The dead man was disarmed: the paused processes outlive the moment that was set for it.
    sleep_until(fence.due_ns + BUDGET_NS + 200 * MS);
    client.thaw(in_ms(0), in_ms(5_000)).expect("thawed again");
    writes.wait_running();
}

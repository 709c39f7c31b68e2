//! What must be caught, what must pass, and a second opinion that tries everything.

use proptest::prelude::*;

use super::*;
use crate::dice::Dice;

fn op(call: u64, end: u64, action: Action) -> Operation {
    Operation { call, end: Some(end), action }
}

fn unknown(call: u64, action: Action) -> Operation {
    Operation { call, end: None, action }
}

fn write(value: Value) -> Action {
    Action::Write(value)
}

fn read(value: Value) -> Action {
    Action::Read(value)
}

fn swap(expect: Value, new: Value) -> Action {
    Action::Swap { expect, new, done: true }
}

fn refused(expect: Value, new: Value) -> Action {
    Action::Swap { expect, new, done: false }
}

fn verdict(history: &[Operation]) -> Verdict {
    check(history, Limits::default())
}

fn holds(history: &[Operation]) -> bool {
    match verdict(history) {
        Verdict::Holds => true,
        Verdict::Broken(_) => false,
        Verdict::Undecided => panic!("undecided"),
    }
}

#[test]
fn one_after_another_is_plain() {
    let history = [
        op(0, 1, read(ABSENT)),
        op(2, 3, write(1)),
        op(4, 5, read(1)),
        op(6, 7, swap(1, 2)),
        op(8, 9, refused(1, 3)),
        op(10, 11, read(2)),
        op(12, 13, write(ABSENT)),
        op(14, 15, read(ABSENT)),
    ];
    assert!(holds(&history));
    assert!(holds(&[]));
}

/// I6: an answer from before a write that had ended.
#[test]
fn a_stale_read_is_caught() {
    let history = [op(0, 1, write(1)), op(2, 3, write(2)), op(4, 5, read(1))];
    let Verdict::Broken(broken) = verdict(&history) else { panic!("not caught") };
    assert_eq!((broken.placed, broken.value), (1, 1));
    assert_eq!(broken.stuck, [op(2, 3, write(2))]);
    assert_eq!(broken.needed, Some(op(4, 5, read(1))));
    assert!(broken.to_string().ends_with("[2 3] write 2; later comes [4 5] read 1"), "{broken}");
}

/// Once somebody has seen the new value, nobody sees the old one any more, although the write has not
/// ended.
#[test]
fn a_read_that_goes_back_is_caught() {
    let seen = [op(0, 1, write(1)), op(2, 9, write(2)), op(3, 4, read(2)), op(5, 6, read(1))];
    assert!(!holds(&seen));
    let fine = [op(0, 1, write(1)), op(2, 9, write(2)), op(3, 4, read(1)), op(5, 6, read(2))];
    assert!(holds(&fine));
}

/// I5: an acknowledged write that is gone.
#[test]
fn a_lost_update_is_caught() {
    assert!(!holds(&[op(0, 1, write(1)), op(2, 3, read(ABSENT))]));
    // Two swaps of different ancestors, of which the second never saw the first.
    let history = [op(0, 1, write(1)), op(2, 3, swap(1, 2)), op(4, 5, swap(1, 3))];
    assert!(!holds(&history));
}

/// Two at the same time, both told that they had replaced the same value.
#[test]
fn a_swap_that_succeeds_twice_is_caught() {
    let both = [op(0, 1, write(1)), op(2, 9, swap(1, 2)), op(3, 8, swap(1, 3))];
    assert!(!holds(&both));
    let one = [op(0, 1, write(1)), op(2, 9, swap(1, 2)), op(3, 8, refused(1, 3))];
    assert!(holds(&one));
}

#[test]
fn a_value_that_nobody_wrote_is_caught() {
    assert!(!holds(&[op(0, 1, write(1)), op(2, 3, read(7))]));
    // Nor one that was written later.
    assert!(!holds(&[op(0, 1, read(7)), op(2, 3, write(7))]));
    // A refusal writes nothing.
    assert!(!holds(&[op(0, 1, refused(5, 7)), op(2, 3, read(7))]));
}

/// I7: the same request took effect again after another had replaced its value.
#[test]
fn a_retry_that_is_applied_twice_is_caught() {
    let again = [
        op(0, 1, write(1)),
        op(2, 3, read(1)),
        op(4, 5, write(2)),
        op(6, 7, read(2)),
        op(8, 9, read(1)),
    ];
    assert!(!holds(&again));
    // Also if its own outcome was never known.
    let mut again = again;
    again[0].end = None;
    assert!(!holds(&again));
}

/// What timed out may come late, or never, but it comes once.
#[test]
fn an_unknown_outcome_is_open_to_both_sides() {
    let late = [unknown(0, write(1)), op(1, 2, write(2)), op(3, 4, read(2)), op(9, 10, read(1))];
    assert!(holds(&late));
    let never = [unknown(0, write(1)), op(1, 2, write(2)), op(3, 4, read(2))];
    assert!(holds(&never));
    let not_before = [op(0, 1, read(1)), unknown(2, write(1))];
    assert!(!holds(&not_before));
    let swapped = [op(0, 1, write(1)), unknown(2, swap(1, 2)), op(5, 6, read(2))];
    assert!(holds(&swapped));
    let from_another = [op(0, 1, write(1)), unknown(2, swap(9, 2)), op(5, 6, read(2))];
    assert!(!holds(&from_another));
    // A refusal that only it explains.
    let explains = [op(0, 1, write(1)), unknown(2, write(2)), op(5, 6, refused(1, 3))];
    assert!(holds(&explains));
    let none = [op(0, 1, write(1)), op(5, 6, refused(1, 3))];
    assert!(!holds(&none));
}

/// Chains of swaps of which nobody knows whether they were done, except by what followed.
#[test]
fn a_chain_of_unknown_swaps_is_followed_back() {
    let history =
        [op(0, 1, write(1)), unknown(2, swap(1, 2)), unknown(3, swap(2, 3)), op(8, 9, read(3))];
    assert!(holds(&history));
    let mut late = history.to_vec();
    late.push(op(10, 11, read(2)));
    assert!(!holds(&late));
}

/// Nobody is known to have seen what was written, but what was seen can only have come of it.
#[test]
fn an_unknown_write_that_an_unknown_swap_builds_on_stays() {
    let seen = [
        unknown(0, swap(1, ABSENT)),
        unknown(0, write(1)),
        op(0, 1, write(2)),
        op(2, 3, read(ABSENT)),
    ];
    assert!(holds(&seen));
    let longer =
        [&[unknown(0, swap(3, 1)), unknown(0, write(3))][..], &seen[..1], &seen[2..]].concat();
    assert!(holds(&longer));
    assert!(!holds(&longer[1..]));
}

/// A search that is not allowed to end has not passed.
#[test]
fn a_search_that_is_given_up_is_no_pass() {
    let mut history: Vec<_> = (0..30).map(|n| op(0, 100, write(n % 5))).collect();
    history.push(op(0, 100, read(9)));
    let limits = Limits { configurations: 50, ..Limits::default() };
    assert_eq!(check(&history, limits), Verdict::Undecided);
}

/// Tries every order, and for what is unknown both.
fn brute(left: &[Operation], value: Value) -> bool {
    if left.iter().all(|o| o.end.is_none()) {
        return true;
    }
    let first_end = left.iter().filter_map(|o| o.end).min().unwrap_or(u64::MAX);
    (0..left.len()).filter(|i| left[*i].call <= first_end).any(|i| {
        let next = match left[i].action {
            Action::Write(new) => Some(new),
            Action::Read(seen) => (seen == value).then_some(value),
            Action::Swap { expect, new, done: true } => (expect == value).then_some(new),
            Action::Swap { expect, new, done: false } => match left[i].end {
                Some(_) => (expect != value).then_some(value),
                None => (expect == value).then_some(new),
            },
        };
        let rest: Vec<_> =
            left.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, o)| *o).collect();
        next.is_some_and(|next| brute(&rest, next))
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..4_u64).prop_map(Action::Write),
        (0..4_u64).prop_map(Action::Read),
        (0..4_u64, 0..4_u64, any::<bool>()).prop_map(|(expect, new, done)| Action::Swap {
            expect,
            new,
            done
        }),
    ]
}

fn history(different: bool) -> impl Strategy<Value = Vec<Operation>> {
    let operation = (0..12_u64, 0..6_u64, 0..10_u32, action());
    let operation = operation.prop_map(|(call, length, fate, action)| Operation {
        call,
        end: (fate > 2).then_some(call + length),
        action,
    });
    prop::collection::vec(operation, 1..7).prop_map(move |mut all| {
        // As clients do it: no two of them write the same value.
        for (number, operation) in all.iter_mut().enumerate().filter(|_| different) {
            match &mut operation.action {
                Action::Write(value) | Action::Swap { new: value, .. } => {
                    *value = number as u64 + 1
                }
                Action::Read(_) => {}
            }
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn it_says_what_trying_everything_says(history in history(false)) {
        prop_assert_eq!(holds(&history), brute(&history, ABSENT));
    }

    #[test]
    fn and_so_where_all_values_differ(history in history(true)) {
        prop_assert_eq!(holds(&history), brute(&history, ABSENT));
    }

    #[test]
    fn what_a_register_did_passes(seed in any::<u64>()) {
        let history = lived(seed, 60, 5);
        prop_assert!(holds(&history));
    }
}

/// What clients of a register that does everything at one instant may have seen: so many operations of
/// so many clients, one in twelve of which never hears what became of it.
fn lived(seed: u64, operations: usize, clients: u64) -> Vec<Operation> {
    let mut dice = Dice::new(seed);
    let mut free = vec![0_u64; usize::try_from(clients).unwrap()];
    let mut plan = Vec::new();
    for number in 0..operations {
        let client = dice.below(free.len());
        let call = free[client] + dice.roll() % 5;
        let at = call + dice.roll() % 50;
        let end = at + dice.roll() % 50;
        free[client] = end + 1;
        plan.push((at, number as u64 + 1, call, end, dice.below(12), dice.below(5)));
    }
    plan.sort_unstable();
    let mut value = ABSENT;
    let mut history = Vec::new();
    for (_, new, call, end, fate, kind) in plan {
        let end = (fate > 0).then_some(end);
        // Of two whose outcome is unknown one came to nothing.
        let lost = end.is_none() && new % 2 == 0;
        let expect = if dice.percent(60) { value } else { new.saturating_sub(3) };
        let action = match kind {
            0 | 1 => Action::Read(value),
            2 => Action::Swap { expect, new, done: expect == value },
            _ => Action::Write(new),
        };
        let written = match action {
            Action::Read(_) => None,
            Action::Swap { done, .. } => done.then_some(new),
            Action::Write(_) => Some(new),
        };
        value = written.filter(|_| !lost).unwrap_or(value);
        history.push(Operation { call, end, action });
    }
    history
}

/// As many as a long run has, on as many objects; and one read of them all that is stale.
#[test]
fn a_long_history_is_judged_and_one_stale_read_in_it_found() {
    let objects: Vec<_> = (0..50).map(|seed| lived(seed, 5_000, 12)).collect();
    assert!(objects.iter().all(|history| holds(history)));
    let mut spoilt = objects[7].clone();
    let stale = spoilt.iter().rposition(|o| matches!(o.action, Action::Read(v) if v != ABSENT));
    spoilt[stale.unwrap()].action =
        Action::Read(spoilt[0..50].iter().find_map(|o| o.puts()).unwrap());
    assert!(!holds(&spoilt));
}

//! The short forms of `cargo xtask chaos`, which are part of all tests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::process::{Command, Output};

/// Runs the program, with words that are separated by spaces.
fn chaos(arguments: &str) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = format!("{said}{errors}");
    (output, said)
}

/// Nothing is wrong afterwards. Gives what is said.
fn assert_nothing_violated(arguments: &str) -> String {
    let (output, said) = chaos(arguments);
    assert!(output.status.success(), "{said}");
    println!("{said}");
    said
}

/// A safeguard is switched off, and that is found.
fn assert_found(arguments: &str) {
    let (output, said) = chaos(arguments);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let verdict = said.lines().find(|line| line.contains(": VIOLATED: "));
    let verdict = verdict.unwrap_or_else(|| panic!("no verdict: {said}"));
    assert!(verdict.contains(" doubled"), "{verdict}");
    println!("{verdict}");
}

#[test]
fn whatever_is_killed_nothing_is_missing_doubled_or_out_of_order() {
    assert_nothing_violated(
        "--events 4000 --kills 6 --freezes 1 --stops 1 --server-kills 1 --minutes 0.2",
    );
}

#[test]
fn nor_is_it_where_emits_go_to_other_slots() {
    assert_nothing_violated(
        "--slots --events 4000 --kills 6 --freezes 1 --stops 1 --server-kills 1 --minutes 0.2",
    );
}

#[test]
fn nor_is_it_where_workers_are_killed_50_times() {
    let kills = "--events 4000 --kills 50 --freezes 0 --stops 0 --server-kills 0 --minutes 0.25";
    let said = assert_nothing_violated(kills);
    assert!(said.contains("; 50 kills, "), "{said}");
}

#[test]
fn it_is_found_where_epochs_are_not_looked_at() {
    assert_found(
        "--plant epoch --seed 1 --events 3000 --kills 0 --freezes 6 --stops 0 --server-kills 0 --minutes 0.1",
    );
}

#[test]
fn it_is_found_where_numbers_of_commits_are_not_looked_at() {
    assert_found(
        "--plant dedup --seed 1 --events 2000 --kills 0 --freezes 0 --stops 0 --server-kills 0 --minutes 0.1",
    );
}

#[test]
fn it_is_found_where_marks_of_deliveries_are_not_looked_at() {
    assert_found(
        "--slots --plant marks --seed 1 --events 2000 --kills 0 --freezes 0 --stops 0 --server-kills 0 --minutes 0.1",
    );
}

#[test]
fn a_storm_costs_no_memory_and_is_handled_afterwards() {
    assert_nothing_violated("storm --seconds 3");
}

//! The short forms of `cargo xtask chaos`, which are part of all tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn whatever_is_killed_nothing_is_missing_doubled_or_out_of_order() {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--events", "4000", "--kills", "6", "--freezes", "1"])
        .args(["--stops", "1", "--server-kills", "1", "--minutes", "0.2"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    println!("{said}");
}

#[test]
fn nor_is_it_where_emits_go_to_other_slots() {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--slots", "--events", "4000", "--kills", "6"])
        .args(["--freezes", "1", "--stops", "1", "--server-kills", "1"])
        .args(["--minutes", "0.2"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    println!("{said}");
}

#[test]
fn a_storm_costs_no_memory_and_is_handled_afterwards() {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["storm", "--seconds", "3"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    println!("{said}");
}

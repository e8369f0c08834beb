//! The command as a user runs it, on memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use github_webhooks::sample;
use serde_json::Value;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_github-webhooks"));
    command
        .args(arguments)
        .env_remove("GITHUB_WEBHOOK_SECRET")
        .env_remove("RUST_LOG");
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a command that fails says: one sentence.
fn failure(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

#[test]
fn without_arguments_it_ingests_its_sample() {
    let output = run(&[]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("53 deliveries: 52 accepted, 1 rejected\n"),
        "{text}"
    );
    assert!(text.contains("  line 25: the signature is wrong"), "{text}");
    assert!(text.contains("octo-garden/greenhouse"), "{text}");

    // The secret of somebody's own webhook has nothing to do with it.
    let other = command(&["ingest"])
        .env("GITHUB_WEBHOOK_SECRET", "other")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(other.stdout).unwrap(), text);
}

#[test]
fn a_file_and_standard_input_give_the_same_document() {
    let file = file(sample::DELIVERIES.as_bytes());
    let path = file.path().to_str().unwrap();
    let from_file = json(&run(&["ingest", path, "--json"]));
    assert_eq!(from_file["accepted"], 53);
    assert_eq!(from_file["rejected"], serde_json::json!([]));

    let mut child = command(&["ingest", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(sample::DELIVERIES.as_bytes()).unwrap();
    drop(stdin);
    assert_eq!(json(&child.wait_with_output().unwrap()), from_file);
}

#[test]
fn with_a_secret_everything_must_be_signed() {
    let file = file(sample::DELIVERIES.as_bytes());
    let path = file.path().to_str().unwrap();
    let by_option = json(&run(&[
        "ingest",
        path,
        "--json",
        "--secret",
        sample::SECRET,
    ]));
    assert_eq!(by_option["accepted"], 2);
    assert_eq!(by_option["rejected"].as_array().unwrap().len(), 51);
    let by_environment = command(&["ingest", path, "--json"])
        .env("GITHUB_WEBHOOK_SECRET", sample::SECRET)
        .output()
        .unwrap();
    assert_eq!(json(&by_environment), by_option);
    assert_eq!(
        failure(&["ingest", path, "--secret", ""]),
        "error: the secret is empty; give the one that the webhook was set up with, or none at all"
    );
}

#[test]
fn a_bad_line_is_no_failure() {
    let file = file(b"{\"name\": \"ping\", \"payload\": {}}\n\xff\n{\"name\": \"pi");
    let report = json(&run(&["ingest", file.path().to_str().unwrap(), "--json"]));
    assert_eq!(
        (&report["deliveries"], &report["accepted"]),
        (&3.into(), &1.into())
    );
    assert_eq!(report["rejected"][0]["line"], 2);
    assert_eq!(
        report["rejected"][1]["reason"],
        "the JSON is cut off after column 12"
    );
    assert_eq!(report["events"], serde_json::json!({"github.ping": 1}));
    assert_eq!(report["repositories"], serde_json::json!({}));
}

#[test]
fn what_cannot_be_done_is_told_in_a_sentence() {
    let missing = failure(&["ingest", "no/such/file"]);
    assert!(
        missing.starts_with("error: no/such/file cannot be read: "),
        "{missing}"
    );
    let folder = failure(&["ingest", env!("CARGO_MANIFEST_DIR")]);
    assert!(folder.ends_with("is a folder; give a file"), "{folder}");
    for arguments in [
        &["ingest", "--redis", "redis://127.0.0.1:1/"][..],
        &["show", "octo-test/lab", "--redis", "redis://127.0.0.1:1/"],
    ] {
        let unreachable = failure(arguments);
        assert!(unreachable.contains("nothing answers at"), "{unreachable}");
    }
    let odd_url = failure(&["show", "octo-test/lab", "--redis", "http://127.0.0.1/"]);
    assert!(
        odd_url.contains("the URL of the Redis server cannot be read"),
        "{odd_url}"
    );
    for arguments in [
        &["invent"][..],
        &["ingest", "--json", "--bogus"],
        &["show", "octo-test/lab"],
        &[
            "show",
            "octo-test/lab",
            "--redis",
            "redis://127.0.0.1/",
            "--at",
            "0",
        ],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{output:?}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = command(&[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

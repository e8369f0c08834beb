//! The command as a user runs it, on Redis.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::process::{Command, Output};

use event_tests::RedisServer;
use serde_json::{Value, json};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_github-webhooks"))
        .args(arguments)
        .env_remove("GITHUB_WEBHOOK_SECRET")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn document(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn memory_and_redis_give_the_same_document() {
    let server = RedisServer::start().unwrap();
    let on_redis = document(&["ingest", "--json", "--redis", &server.url()]);
    assert_eq!(on_redis, document(&["ingest", "--json"]));

    // The feeds hold what the document says.
    for category in ["github", "codebase", "repository", "package", "sdlc"] {
        let events = on_redis["events"].as_object().unwrap();
        let own = events
            .iter()
            .filter(|(name, _)| name.split('.').next() == Some(category));
        let counted: u64 = own.filter_map(|(_, count)| count.as_u64()).sum();
        let length = server
            .command(&["XLEN", &format!("events:{category}")])
            .unwrap();
        assert_eq!(length, counted.to_string(), "{category}");
    }
}

#[test]
fn the_same_again_changes_nothing() {
    let server = RedisServer::start().unwrap();
    let first = document(&["ingest", "--json", "--redis", &server.url()]);
    let second = document(&["ingest", "--json", "--redis", &server.url()]);
    assert_eq!(second["events"], json!({}));
    assert_eq!(second["accepted"], first["accepted"]);
    assert_eq!(second["repositories"], first["repositories"]);
}

#[test]
fn a_repository_is_shown_from_its_history_alone() {
    let mut server = RedisServer::start().unwrap();
    let url = server.url();
    let report = document(&["ingest", "--json", "--redis", &url]);
    // The histories are all that is left: no feed, no checkpoint, and another server process.
    for category in ["github", "codebase", "repository", "package", "sdlc"] {
        server
            .command(&["DEL", &format!("events:{category}")])
            .unwrap();
    }
    server.restart().unwrap();
    for (name, expected) in report["repositories"].as_object().unwrap() {
        assert_eq!(
            document(&["show", name, "--redis", &url, "--json"]),
            *expected,
            "{name}"
        );
    }

    let lighthouse = "octo-reef/old-lighthouse";
    let before = document(&["show", lighthouse, "--redis", &url, "--at", "3", "--json"]);
    assert_eq!(
        (&before["version"], &before["archived"]),
        (&json!(3), &json!(false))
    );
    let after = document(&["show", lighthouse, "--redis", &url, "--at", "4", "--json"]);
    assert_eq!(
        (&after["version"], &after["archived"]),
        (&json!(4), &json!(true))
    );

    let text = String::from_utf8(run(&["show", lighthouse, "--redis", &url]).stdout).unwrap();
    assert!(
        text.starts_with("octo-reef/old-lighthouse, version 5\n"),
        "{text}"
    );
    assert!(text.contains("codebase.refused"), "{text}");
}

#[test]
fn what_is_not_there_is_told_in_a_sentence() {
    let server = RedisServer::start().unwrap();
    let url = server.url();
    let failure = |arguments: &[&str]| {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        failure(&["show", "octo-test/lab", "--redis", &url]),
        "error: nothing is known of a repository octo-test/lab; ingest its deliveries first\n"
    );
    document(&["ingest", "--json", "--redis", &url]);
    assert_eq!(
        failure(&[
            "show",
            "octo-reef/old-lighthouse",
            "--redis",
            &url,
            "--at",
            "99"
        ]),
        "error: octo-reef/old-lighthouse has no version 99; give one of 1 to 5\n"
    );
}

#[test]
fn a_server_that_keeps_nothing_will_do_with_a_warning() {
    let server = RedisServer::builder()
        .aof(event_tests::redis_server::Aof::Off)
        .start()
        .unwrap();
    let output = run(&["ingest", "--json", "--redis", &server.url()]);
    assert!(output.status.success(), "{output:?}");
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(
        warning.contains("WARN") && warning.contains("appendonly"),
        "{warning}"
    );
    let shown = document(&[
        "show",
        "octo-reef/tidal-clock",
        "--redis",
        &server.url(),
        "--json",
    ]);
    assert_eq!(shown["version"], 5);
}

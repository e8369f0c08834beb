//! What the commands say about a server that cannot be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What `cargo xtask test` ends with when it is to use this server.
fn error_with(server: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("test")
        .env("REDIS_SERVER_BIN", server)
        .env("RUST_BACKTRACE", "0")
        .output();
    match output {
        Ok(output) if !output.status.success() && output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stderr).into_owned()
        }
        other => format!("{other:?} is no error"),
    }
}

// One test for all: a script cannot be run while another thread is about to start a process, which
// for a moment has inherited the script's open file ("Text file busy").
#[test]
fn a_server_that_cannot_be_used_is_named() {
    for path in ["/nowhere/redis-server", "/"] {
        let error = error_with(Path::new(path));
        let expected = format!("set to {path:?}, which is no executable file");
        assert!(error.contains(&expected), "{error}");
    }

    let server = Path::new(env!("CARGO_TARGET_TMPDIR")).join("redis-server");
    for (answer, expected) in [
        (
            "Redis server v=6.2.14 sha=0",
            "is Redis 6.2.14, which is too old",
        ),
        ("something else", "which is no Redis server"),
    ] {
        fs::write(&server, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
        let error = error_with(&server);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("install Redis 7.0"), "{error}");
    }
}

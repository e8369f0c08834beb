//! The servers of the tests: they start, end, come back, and are never left behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use event_tests::RedisServer;
use event_tests::redis_server::{Aof, Error, Listen};

/// The program that starts a server and waits.
const HOLDS_A_SERVER: &str = env!("CARGO_BIN_EXE_holds-a-server");

/// Whether a process runs; one that has ended and that nobody has waited for yet does not.
fn is_running(pid: u32) -> bool {
    if Path::new("/proc/self/stat").exists() {
        return fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "));
    }
    Command::new("sh")
        .args(["-c", "kill -0 \"$0\" 2>/dev/null", &pid.to_string()])
        .status()
        .is_ok_and(|status| status.success())
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn answers_wherever_it_listens() {
    for (listen, tcp, unix) in [
        (Listen::Tcp, true, false),
        (Listen::Unix, false, true),
        (Listen::Both, true, true),
    ] {
        let server = RedisServer::builder().listen(listen).start().unwrap();
        assert_eq!(server.command(&["PING"]).unwrap(), "PONG");

        assert_eq!(server.tcp_address().is_some(), tcp, "{listen:?}");
        assert_eq!(server.unix_url().is_some(), unix, "{listen:?}");
        let url = match server.tcp_address() {
            Some(address) => format!("redis://127.0.0.1:{}/", address.port()),
            // A space is all that TMPDIR is likely to have which a URL has not.
            None => {
                let path = server.socket_path().unwrap().display().to_string();
                format!("redis+unix://{}", path.replace(' ', "%20"))
            }
        };
        assert_eq!(server.url(), url);
        if let Some(address) = server.tcp_address() {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"PING\r\n").unwrap();
            let mut reply = [0; 7];
            stream.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, b"+PONG\r\n");
        }
    }
}

#[test]
fn replies_are_text_and_errors_are_errors() {
    let server = RedisServer::start().unwrap();
    assert_eq!(server.command(&["SET", "key", "grün\r\n"]).unwrap(), "OK");
    assert_eq!(server.command(&["GET", "key"]).unwrap(), "grün\r\n");
    assert_eq!(server.command(&["GET", "nothing"]).unwrap(), "");
    server.command(&["RPUSH", "list", "a", "b c", ""]).unwrap();
    let list = server.command(&["LRANGE", "list", "0", "-1"]).unwrap();
    assert_eq!(list, "a\nb c\n");

    let Error::Refused { command, message } = server.command(&["INCR", "key"]).unwrap_err() else {
        panic!("not refused");
    };
    assert_eq!(command, "INCR");
    assert!(message.starts_with("ERR value is not an integer"));
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut server = RedisServer::builder().aof(Aof::Always).start().unwrap();
    let (url, pid) = (server.url(), server.pid().unwrap());
    for round in 1..=3 {
        let count = server.command(&["INCR", "count"]).unwrap();
        assert_eq!(count, round.to_string());

        server.kill();
        assert!(!is_running(pid));
        assert!(matches!(server.command(&["PING"]), Err(Error::NotRunning)));
        assert!(matches!(server.stop(), Err(Error::NotRunning)));
        assert!(matches!(server.freeze(), Err(Error::NotRunning)));
        assert!(matches!(server.thaw(), Err(Error::NotRunning)));

        server.restart().unwrap();
        assert_ne!(server.pid(), Some(pid));
        assert_eq!(server.url(), url);
    }
}

#[test]
fn a_stopped_server_writes_out_what_it_has() {
    let mut server = RedisServer::builder().listen(Listen::Unix).start().unwrap();
    server.command(&["SET", "key", "value"]).unwrap();
    server.stop().unwrap();
    assert_eq!(server.pid(), None);
    assert!(server.log().unwrap().contains("ready to exit, bye bye"));

    server.restart().unwrap();
    assert_eq!(server.command(&["GET", "key"]).unwrap(), "value");

    let pid = server.pid().unwrap();
    server.restart().unwrap();
    assert!(!is_running(pid));
    assert_eq!(server.command(&["GET", "key"]).unwrap(), "value");
}

#[test]
fn the_aof_is_as_it_was_asked_for() {
    for (aof, appendonly, appendfsync) in [
        (Aof::Off, "no", "everysec"),
        (Aof::EverySecond, "yes", "everysec"),
        (Aof::Always, "yes", "always"),
    ] {
        let mut server = RedisServer::builder().aof(aof).start().unwrap();
        let config = |name| server.command(&["CONFIG", "GET", name]).unwrap();
        assert_eq!(config("appendonly"), format!("appendonly\n{appendonly}"));
        assert_eq!(config("appendfsync"), format!("appendfsync\n{appendfsync}"));
        assert_eq!(config("save"), "save\n");

        server.command(&["SET", "key", "value"]).unwrap();
        server.restart().unwrap();
        let kept = server.command(&["EXISTS", "key"]).unwrap();
        assert_eq!(kept, if aof == Aof::Off { "0" } else { "1" });
    }
}

#[test]
fn its_own_configuration_comes_last() {
    let server = RedisServer::builder()
        .config("appendonly", "no")
        .config("client-output-buffer-limit", "pubsub 1mb 1mb 1")
        .start()
        .unwrap();
    let aof = server.command(&["CONFIG", "GET", "appendonly"]).unwrap();
    assert_eq!(aof, "appendonly\nno");
    let limit = server
        .command(&["CONFIG", "GET", "client-output-buffer-limit"])
        .unwrap();
    assert!(limit.contains("pubsub 1048576 1048576 1"), "{limit}");
}

#[test]
fn a_server_that_does_not_start_is_quoted() {
    let error = RedisServer::builder()
        .config("no-such-setting", "1")
        .start()
        .unwrap_err();
    assert!(matches!(error, Error::Exited { .. }));
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}

#[test]
fn a_server_that_does_not_answer_in_time_is_quoted() {
    let error = RedisServer::builder()
        .config("requirepass", "secret")
        .deadline(Duration::from_millis(300))
        .start()
        .unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }));
    assert!(error.to_string().contains("NOAUTH"), "{error}");
}

#[test]
fn a_frozen_server_keeps_its_connections_and_answers_later() {
    let server = RedisServer::start().unwrap();
    let mut stream = TcpStream::connect(server.tcp_address().unwrap()).unwrap();
    let timeout = Some(Duration::from_millis(200));
    stream.set_read_timeout(timeout).unwrap();

    server.freeze().unwrap();
    stream.write_all(b"INCR count\r\n").unwrap();
    let mut reply = [0; 4];
    assert!(stream.read_exact(&mut reply).is_err());

    server.thaw().unwrap();
    stream.set_read_timeout(None).unwrap();
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b":1\r\n");
}

#[test]
fn a_frozen_server_can_be_killed_but_not_stopped() {
    let mut server = RedisServer::builder()
        .deadline(Duration::from_secs(2))
        .start()
        .unwrap();
    let pid = server.pid().unwrap();
    server.freeze().unwrap();
    assert!(matches!(server.stop(), Err(Error::StillRunning { .. })));
    server.kill();
    assert!(!is_running(pid));
    server.restart().unwrap();
}

#[test]
fn a_replica_has_the_data_and_can_take_over() {
    let mut primary = RedisServer::start().unwrap();
    primary.command(&["SET", "key", "value"]).unwrap();
    let replica = RedisServer::builder()
        .replica_of(&primary)
        .unwrap()
        .start()
        .unwrap();
    assert_eq!(replica.command(&["GET", "key"]).unwrap(), "value");
    assert!(matches!(
        replica.command(&["SET", "key", "other"]),
        Err(Error::Refused { message, .. }) if message.starts_with("READONLY")
    ));

    primary.kill();
    replica.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    replica.command(&["SET", "key", "other"]).unwrap();
}

#[test]
fn a_replica_needs_a_primary_with_tcp() {
    let primary = RedisServer::builder().listen(Listen::Unix).start().unwrap();
    let error = RedisServer::builder().replica_of(&primary).unwrap_err();
    assert!(matches!(error, Error::PrimaryWithoutTcp));
}

#[test]
fn servers_side_by_side_do_not_share_anything() {
    let servers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let server = RedisServer::start().unwrap();
                servers.lock().unwrap().push(server);
            });
        }
    });
    let servers = servers.into_inner().unwrap();
    for (number, server) in servers.iter().enumerate() {
        let set = server.command(&["SET", "number", &number.to_string()]);
        assert_eq!(set.unwrap(), "OK");
    }
    for (number, server) in servers.iter().enumerate() {
        let kept = server.command(&["GET", "number"]).unwrap();
        assert_eq!(kept, number.to_string());
    }
}

#[test]
fn a_panic_leaves_no_process_and_no_folder() {
    let mut left = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let server = RedisServer::start().unwrap();
        left = Some((server.pid().unwrap(), server.folder().to_owned()));
        panic!("as a failing test does");
    }));
    assert!(result.is_err());
    let (pid, folder) = left.unwrap();
    assert!(!is_running(pid));
    assert!(!folder.exists());
}

#[test]
fn a_killed_test_process_leaves_no_process_and_no_folder() {
    let mut test = Command::new(HOLDS_A_SERVER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (pid, folder) = BufReader::new(test.stdout.take().unwrap())
        .lines()
        .find_map(|line| {
            let line = line.unwrap();
            let (_, server) = line.split_once("server: ")?;
            let (pid, folder) = server.split_once(' ')?;
            Some((pid.parse().unwrap(), PathBuf::from(folder)))
        })
        .unwrap();
    assert!(is_running(pid) && folder.exists());

    test.kill().unwrap();
    test.wait().unwrap();
    wait_until("the server is gone", || !is_running(pid));
    wait_until("its folder is gone", || !folder.exists());
}

#[test]
fn a_binary_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redis-server");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();

    // The variable belongs to the whole process, so it is set for another one.
    let output = Command::new(HOLDS_A_SERVER)
        .env("REDIS_SERVER_BIN", &file)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("NotExecutable"), "{text}");
}

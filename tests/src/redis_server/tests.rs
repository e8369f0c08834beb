//! What cannot be provoked from outside.

use std::net::TcpListener;
use std::path::Path;

use super::*;

#[test]
fn a_port_that_was_taken_in_between_is_given_up_for_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let other = RedisServer::start().unwrap();
    let other_port = other.tcp_address().unwrap().port();

    // The second is taken by a server that does answer.
    let mut ports = vec![None, Some(other_port), Some(taken_port)];
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").ok()?;
        Some(listener.local_addr().ok()?.port())
    };
    let server = RedisServer::builder()
        .start_on(|| ports.pop().unwrap_or_else(free))
        .unwrap();

    let port = server.tcp_address().unwrap().port();
    assert!(port != taken_port && port != other_port);
    assert_eq!(server.command(&["PING"]).unwrap(), "PONG");
}

#[test]
fn no_port_at_all_is_an_error_with_advice() {
    let error = RedisServer::builder().start_on(|| None).unwrap_err();
    assert!(error.to_string().contains("found no free TCP port"));
}

#[test]
fn a_path_with_a_space_stands_in_a_url() {
    assert_eq!(
        percent_encoded(Path::new("/a b/c-1.sock")),
        "/a%20b/c-1.sock"
    );
}

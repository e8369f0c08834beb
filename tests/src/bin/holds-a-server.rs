//! Starts a server, freezes it, says where it is, and waits to be killed: a killed test must leave
//! nothing behind, not even a server that cannot hear.

use std::io;

use event_tests::RedisServer;
use event_tests::redis_server::Error;

fn main() -> Result<(), Error> {
    let server = RedisServer::start()?;
    server.freeze()?;
    println!(
        "server: {} {}",
        server.pid().unwrap_or_default(),
        server.folder().display()
    );
    // Whoever started this lets go, or kills it.
    let _ = io::stdin().read_line(&mut String::new());
    Ok(())
}

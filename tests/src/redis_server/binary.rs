//! Which program is the server.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Error;

/// The variable that names the server to use, whatever is on `PATH`.
const VARIABLE: &str = "REDIS_SERVER_BIN";

/// The server that `REDIS_SERVER_BIN` names, else the first one on `PATH`.
pub(super) fn find() -> Result<PathBuf, Error> {
    if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return if is_executable(&path) {
            Ok(path)
        } else {
            Err(Error::NotExecutable { path })
        };
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    ["redis-server", "valkey-server"]
        .iter()
        .flat_map(|name| env::split_paths(&folders).map(move |folder| folder.join(name)))
        .find(|path| is_executable(path))
        .ok_or(Error::NoBinary)
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

//! The Redis server that tests and benchmarks run against: found, or else installed.

use std::env;
use std::fmt;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{self, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::package_manager::{PackageManager, Software};

/// The variable that names the server, to this command and by this command to the tests.
pub(crate) const VARIABLE: &str = "REDIS_SERVER_BIN";

/// Some distributions put servers where only root's `PATH` looks.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

const ADVICE: &str = "install Redis 7.0 or later or Valkey 7.2 or later, or set REDIS_SERVER_BIN \
                      to the path of its server";

/// The path of a server that is new enough.
///
/// That is the one `REDIS_SERVER_BIN` names, else one that is installed, else one that the system's
/// package manager installs now.
pub(crate) fn find_or_install() -> anyhow::Result<PathBuf> {
    let server = match named()? {
        Some(server) => server,
        None => match installed()? {
            Some(server) => server,
            None => {
                install()?;
                installed()?.with_context(|| {
                    format!("there is still no redis-server after the installation: {ADVICE}")
                })?
            }
        },
    };
    let version = Version::of(&server)?;
    eprintln!("Redis server: {} ({version})", server.display());
    Ok(server)
}

/// The server that the user has named.
fn named() -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    // Cargo runs tests in the folder of their package, the user's path starts where the user is.
    let path = path::absolute(&path).with_context(|| format!("cannot resolve {path:?}"))?;
    ensure!(
        is_executable(&path),
        "{VARIABLE} is set to {path:?}, which is no executable file: correct it, or unset it to \
         have a server found or installed"
    );
    let version = Version::of(&path)?;
    ensure!(version.is_enough(), too_old(&path, &version));
    Ok(Some(path))
}

/// The first server on this machine that is new enough, if there is any server at all.
fn installed() -> anyhow::Result<Option<PathBuf>> {
    let mut old = None;
    for server in candidates()? {
        let version = Version::of(&server)?;
        if version.is_enough() {
            return Ok(Some(server));
        }
        old.get_or_insert_with(|| too_old(&server, &version));
    }
    match old {
        Some(sentence) => bail!(sentence),
        None => Ok(None),
    }
}

fn candidates() -> anyhow::Result<Vec<PathBuf>> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path)
        .chain(MORE_FOLDERS.map(PathBuf::from))
        .collect();
    let in_folders = |name: &'static str| folders.iter().map(move |folder| folder.join(name));
    let mut servers: Vec<PathBuf> = ["redis-server", "valkey-server"]
        .into_iter()
        .flat_map(in_folders)
        .filter(|path| is_executable(path))
        .collect();
    if servers.is_empty()
        && let Some(checker) = in_folders("redis-check-rdb").find(|path| is_executable(path))
    {
        servers.push(server_in_disguise(&checker)?);
    }
    Ok(servers)
}

/// The server of Debian's `redis-tools`.
///
/// `redis-check-rdb` is the server, which looks at the name it is called by. Debian's package
/// `redis-server` adds no program to that of `redis-tools`, only that name, and a service which
/// would start at once. So the name is given here, beside this very program.
fn server_in_disguise(checker: &Path) -> anyhow::Result<PathBuf> {
    let link = env::current_exe()
        .context("cannot tell where this program is")?
        .with_file_name("redis-server");
    // Another run of this program may be doing the same.
    match symlink(checker, &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot write {}: {ADVICE}", link.display()))
        }
        _ => Ok(link),
    }
}

fn install() -> anyhow::Result<()> {
    let Some(manager) = PackageManager::of_this_machine() else {
        bail!("there is no redis-server here, and no package manager to install one: {ADVICE}");
    };
    eprintln!("There is no redis-server here. Installing one, without starting a service:");
    manager.install(Software::RedisServer)
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn too_old(server: &Path, version: &Version) -> String {
    let server = server.display();
    format!("{server} is {version}, which is too old: {ADVICE}")
}

/// What a server says about itself.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    product: &'static str,
    number: String,
    major: u32,
    minor: u32,
}

impl Version {
    fn of(server: &Path) -> anyhow::Result<Self> {
        let output = Command::new(server)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}: {ADVICE}", server.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Self::read(&text).with_context(|| {
            let server = server.display();
            format!("{server} --version answers {text:?}, which is no Redis server: {ADVICE}")
        })
    }

    /// Reads `Redis server v=7.0.15 sha=00000000:0 …` and `Valkey server v=8.1.0 …`.
    fn read(text: &str) -> Option<Self> {
        let number = text.split_whitespace().find_map(|word| {
            let number = word.strip_prefix("v=")?;
            Some(number.to_owned())
        })?;
        let mut parts = number.split('.').map(|part| part.parse().ok());
        let (major, minor) = (parts.next()??, parts.next()??);
        let product = if text.starts_with("Valkey") {
            "Valkey"
        } else {
            "Redis"
        };
        Some(Self {
            product,
            number,
            major,
            minor,
        })
    }

    fn is_enough(&self) -> bool {
        let least = match self.product {
            "Valkey" => (7, 2),
            _ => (7, 0),
        };
        (self.major, self.minor) >= least
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.product, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        for (text, name, enough) in [
            (
                "Redis server v=7.0.15 sha=0:0 bits=64",
                "Redis 7.0.15",
                true,
            ),
            (
                "Redis server v=6.2.14 sha=0:0 bits=64",
                "Redis 6.2.14",
                false,
            ),
            (
                "Redis server v=10.0.0 sha=0:0 bits=64",
                "Redis 10.0.0",
                true,
            ),
            (
                "Valkey server v=8.1.0 sha=0:0 bits=64",
                "Valkey 8.1.0",
                true,
            ),
            (
                "Valkey server v=7.1.0 sha=0:0 bits=64",
                "Valkey 7.1.0",
                false,
            ),
        ] {
            let version = Version::read(text).unwrap();
            assert_eq!(version.to_string(), name);
            assert_eq!(version.is_enough(), enough, "{name}");
        }
        for text in ["", "cat (GNU coreutils) 9.1", "Redis server v=new", "v=7"] {
            assert_eq!(Version::read(text), None);
        }
    }
}

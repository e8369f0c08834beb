//! The system's package manager.

use std::env;
use std::process::Command;

use anyhow::{Context, bail};

/// Who must run an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Root,
    Nobody,
}

/// A package manager and the packages in which it may have a server.
#[derive(Debug)]
pub(crate) struct PackageManager {
    program: &'static str,
    needs: Needs,
    /// What makes it know the packages there are, where it does not see to that by itself.
    refresh: Option<&'static [&'static str]>,
    install: &'static [&'static str],
    /// The first one that there is gets installed. None of them starts a service.
    packages: &'static [&'static str],
}

/// Those that only one distribution has come before those which are found beside others.
const KNOWN: [PackageManager; 7] = [
    PackageManager {
        program: "apt-get",
        needs: Needs::Root,
        refresh: Some(&["update"]),
        install: &["install", "--yes", "--no-install-recommends"],
        // Not `redis-server`: that one is the same program, and a service which starts at once.
        packages: &["redis-tools"],
    },
    PackageManager {
        program: "dnf",
        needs: Needs::Root,
        refresh: None,
        install: &["install", "--assumeyes"],
        packages: &["valkey", "redis"],
    },
    PackageManager {
        program: "yum",
        needs: Needs::Root,
        refresh: None,
        install: &["install", "--assumeyes"],
        packages: &["valkey", "redis"],
    },
    PackageManager {
        program: "apk",
        needs: Needs::Root,
        refresh: None,
        install: &["add", "--no-cache"],
        packages: &["valkey", "redis"],
    },
    PackageManager {
        program: "pacman",
        needs: Needs::Root,
        refresh: None,
        install: &["--sync", "--refresh", "--needed", "--noconfirm"],
        packages: &["valkey", "redis"],
    },
    PackageManager {
        program: "zypper",
        needs: Needs::Root,
        refresh: None,
        install: &["--non-interactive", "install"],
        packages: &["valkey", "redis"],
    },
    PackageManager {
        program: "brew",
        // It refuses to be run by root.
        needs: Needs::Nobody,
        refresh: None,
        install: &["install"],
        packages: &["valkey", "redis"],
    },
];

impl PackageManager {
    /// The first known one on `PATH`.
    pub(crate) fn of_this_machine() -> Option<Self> {
        KNOWN
            .into_iter()
            .find(|manager| is_on_path(manager.program))
    }

    /// Installs the first of its packages that there is, and prints every command before it is run.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        let prefix = self.prefix()?;
        if let Some(arguments) = self.refresh
            && !run(&self.command(prefix, arguments, None))?
        {
            // One source of several may be out of order, and not the one that is needed.
            eprintln!("It failed. Going on with what is known.");
        }
        for package in self.packages {
            if run(&self.command(prefix, self.install, Some(package)))? {
                return Ok(());
            }
        }
        bail!(
            "{} has installed no Redis server, see above: install one yourself, or set \
             REDIS_SERVER_BIN to its path",
            self.program
        )
    }

    /// What goes before its name, for this user.
    fn prefix(&self) -> anyhow::Result<&'static [&'static str]> {
        if self.needs == Needs::Nobody || is_root()? {
            return Ok(&[]);
        }
        if is_on_path("sudo") {
            return Ok(&["sudo"]);
        }
        let command = self.command(&[], self.install, self.packages.first());
        bail!(
            "only root can install packages, and there is no sudo: have root run `{}`, or set \
             REDIS_SERVER_BIN to the path of a Redis server",
            command.join(" ")
        )
    }

    fn command<'a>(
        &self,
        prefix: &[&'a str],
        arguments: &[&'a str],
        package: Option<&&'a str>,
    ) -> Vec<&'a str> {
        let mut command = prefix.to_vec();
        command.push(self.program);
        command.extend(arguments);
        command.extend(package);
        command
    }
}

/// Whether the command succeeds.
fn run(command: &[&str]) -> anyhow::Result<bool> {
    let line = command.join(" ");
    eprintln!("    {line}");
    let (program, arguments) = command
        .split_first()
        .context("there is no command to run")?;
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run `{line}`"))?;
    Ok(status.success())
}

fn is_root() -> anyhow::Result<bool> {
    let output = Command::new("id")
        .arg("-u")
        .output()
        .context("cannot run `id -u` to see who installs")?;
    Ok(output.stdout.trim_ascii() == b"0")
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(program: &str, prefix: &[&str]) -> String {
        let manager = KNOWN
            .into_iter()
            .find(|manager| manager.program == program)
            .unwrap();
        let package = manager.packages.first();
        manager.command(prefix, manager.install, package).join(" ")
    }

    #[test]
    fn commands_are_those_that_ask_nothing() {
        for (program, prefix, expected) in [
            (
                "apt-get",
                &["sudo"][..],
                "sudo apt-get install --yes --no-install-recommends redis-tools",
            ),
            ("dnf", &["sudo"], "sudo dnf install --assumeyes valkey"),
            ("yum", &[], "yum install --assumeyes valkey"),
            ("apk", &[], "apk add --no-cache valkey"),
            (
                "pacman",
                &[],
                "pacman --sync --refresh --needed --noconfirm valkey",
            ),
            ("zypper", &[], "zypper --non-interactive install valkey"),
            ("brew", &[], "brew install valkey"),
        ] {
            assert_eq!(line(program, prefix), expected);
        }
    }
}

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

/// What may have to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Software {
    RedisServer,
    Node,
    Chromium,
}

impl Software {
    fn name(self) -> &'static str {
        match self {
            Self::RedisServer => "Redis server",
            Self::Node => "Node.js",
            Self::Chromium => "Chromium",
        }
    }

    /// What to do where it cannot be installed here.
    fn advice(self) -> &'static str {
        match self {
            Self::RedisServer => "set REDIS_SERVER_BIN to the path of a Redis server",
            Self::Node => "put Node.js and npm on PATH",
            Self::Chromium => "set CHROMIUM_BIN to the path of a Chromium",
        }
    }
}

/// A package manager and the packages in which it may have what is needed.
#[derive(Debug)]
pub(crate) struct PackageManager {
    program: &'static str,
    needs: Needs,
    /// What makes it know the packages there are, where it does not see to that by itself.
    refresh: Option<&'static [&'static str]>,
    install: &'static [&'static str],
    /// Those with a server, of which the first that there is gets installed. None of them starts a service.
    redis: &'static [&'static str],
    /// Those with Node.js and npm, all of which are installed.
    node: &'static [&'static str],
    /// The one with a browser.
    chromium: &'static str,
}

/// Those that only one distribution has come before those which are found beside others.
const KNOWN: [PackageManager; 7] = [
    PackageManager {
        program: "apt-get",
        needs: Needs::Root,
        refresh: Some(&["update"]),
        install: &["install", "--yes", "--no-install-recommends"],
        // Not `redis-server`: that one is the same program, and a service which starts at once.
        redis: &["redis-tools"],
        node: &["nodejs", "npm"],
        chromium: "chromium",
    },
    PackageManager {
        program: "dnf",
        needs: Needs::Root,
        refresh: None,
        install: &["install", "--assumeyes"],
        redis: &["valkey", "redis"],
        node: &["nodejs", "npm"],
        chromium: "chromium",
    },
    PackageManager {
        program: "yum",
        needs: Needs::Root,
        refresh: None,
        install: &["install", "--assumeyes"],
        redis: &["valkey", "redis"],
        node: &["nodejs", "npm"],
        chromium: "chromium",
    },
    PackageManager {
        program: "apk",
        needs: Needs::Root,
        refresh: None,
        install: &["add", "--no-cache"],
        redis: &["valkey", "redis"],
        node: &["nodejs", "npm"],
        chromium: "chromium",
    },
    PackageManager {
        program: "pacman",
        needs: Needs::Root,
        refresh: None,
        install: &["--sync", "--refresh", "--needed", "--noconfirm"],
        redis: &["valkey", "redis"],
        node: &["nodejs", "npm"],
        chromium: "chromium",
    },
    PackageManager {
        program: "zypper",
        needs: Needs::Root,
        refresh: None,
        install: &["--non-interactive", "install"],
        redis: &["valkey", "redis"],
        node: &["nodejs", "npm"],
        chromium: "chromium",
    },
    PackageManager {
        program: "brew",
        // It refuses to be run by root.
        needs: Needs::Nobody,
        refresh: None,
        install: &["install"],
        redis: &["valkey", "redis"],
        node: &["node"],
        chromium: "chromium",
    },
];

impl PackageManager {
    /// The first known one on `PATH`.
    pub(crate) fn of_this_machine() -> Option<Self> {
        KNOWN
            .into_iter()
            .find(|manager| is_on_path(manager.program))
    }

    /// Installs it from the first of its packages that there is, and prints every command before it is run.
    pub(crate) fn install(&self, software: Software) -> anyhow::Result<()> {
        let prefix = self.prefix(software)?;
        if let Some(arguments) = self.refresh
            && !run(&self.command(prefix, arguments, &[]))?
        {
            // One source of several may be out of order, and not the one that is needed.
            eprintln!("It failed. Going on with what is known.");
        }
        for packages in self.packages(software) {
            if run(&self.command(prefix, self.install, packages))? {
                return Ok(());
            }
        }
        bail!(
            "{} has installed no {}, see above: install it yourself, or {}",
            self.program,
            software.name(),
            software.advice()
        )
    }

    /// The packages that are tried, one after the other, each with those that go with it.
    fn packages(&self, software: Software) -> Vec<&[&'static str]> {
        match software {
            Software::RedisServer => self.redis.chunks(1).collect(),
            Software::Node => vec![self.node],
            Software::Chromium => vec![std::slice::from_ref(&self.chromium)],
        }
    }

    /// What goes before its name, for this user.
    fn prefix(&self, software: Software) -> anyhow::Result<&'static [&'static str]> {
        if self.needs == Needs::Nobody || is_root()? {
            return Ok(&[]);
        }
        if is_on_path("sudo") {
            return Ok(&["sudo"]);
        }
        let packages = self.packages(software);
        let first = packages.first().copied().unwrap_or_default();
        bail!(
            "only root can install packages, and there is no sudo: have root run `{}`, or {}",
            self.command(&[], self.install, first).join(" "),
            software.advice()
        )
    }

    fn command<'a>(
        &self,
        prefix: &[&'a str],
        arguments: &[&'a str],
        packages: &[&'a str],
    ) -> Vec<&'a str> {
        let mut command = prefix.to_vec();
        command.push(self.program);
        command.extend(arguments);
        command.extend(packages);
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

pub(crate) fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(program: &str, prefix: &[&str], software: Software) -> String {
        let manager = KNOWN
            .into_iter()
            .find(|manager| manager.program == program)
            .unwrap();
        let packages = manager.packages(software);
        let command = manager.command(prefix, manager.install, packages[0]);
        command.join(" ")
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
            assert_eq!(line(program, prefix, Software::RedisServer), expected);
        }
    }
    #[test]
    fn what_belongs_together_is_installed_together() {
        for (program, software, expected) in [
            (
                "apt-get",
                Software::Node,
                "apt-get install --yes --no-install-recommends nodejs npm",
            ),
            (
                "apt-get",
                Software::Chromium,
                "apt-get install --yes --no-install-recommends chromium",
            ),
            ("brew", Software::Node, "brew install node"),
        ] {
            assert_eq!(line(program, &[], software), expected);
        }
    }
}

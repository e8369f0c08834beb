//! The oldest Rust that the workspace says it builds with, and whether that is true.

use std::fmt;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;

use crate::cargo::cargo;

/// A release of Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Release {
    major: u32,
    minor: u32,
    patch: u32,
}

impl FromStr for Release {
    type Err = anyhow::Error;

    /// Reads `1.95`, `1.95.0` and `1.96.0-nightly`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let number = text.split(['-', '+']).next().unwrap_or(text);
        let mut parts = number.split('.').map(str::parse::<u32>);
        let mut part = || parts.next().unwrap_or(Ok(0));
        match (part(), part(), part()) {
            (Ok(major), Ok(minor), Ok(patch)) => Ok(Self {
                major,
                minor,
                patch,
            }),
            _ => Err(anyhow!("{text:?} is no release of Rust such as 1.95")),
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Checks that `rust-version` is the same in every crate of the workspace, no newer than the Rust
/// that runs, and no older than what any dependency asks for.
pub(crate) fn check() -> anyhow::Result<()> {
    let running = running()?;
    let output = cargo(["metadata", "--locked", "--format-version", "1"])
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let metadata = serde_json::from_slice(&output.stdout)
        .context("cannot read what cargo metadata has written")?;
    let stated = compare(&metadata, running)?;
    eprintln!("Rust {stated} is stated, Rust {running} runs, no dependency asks for more");
    if (running.major, running.minor) > (stated.major, stated.minor) {
        eprintln!("to prove that it builds with the stated one: cargo +{stated} xtask ci");
    }
    Ok(())
}

fn running() -> anyhow::Result<Release> {
    let output = Command::new("rustc")
        .arg("--version")
        .output()
        .context("cannot run rustc; is it on PATH?")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace()
        .nth(1)
        .with_context(|| format!("cannot find a version in {text:?}"))?
        .parse()
}

/// The stated release, if it holds for what `cargo metadata` tells.
fn compare(metadata: &Value, running: Release) -> anyhow::Result<Release> {
    let packages = metadata["packages"].as_array();
    let packages = packages.context("cargo metadata names no packages")?;
    let members = metadata["workspace_members"].as_array();
    let members = members.context("cargo metadata names no members of the workspace")?;
    let rust_version = |package: &Value| {
        let version = package["rust_version"].as_str();
        version.map(Release::from_str).transpose()
    };
    let (own, dependencies): (Vec<_>, Vec<_>) = packages
        .iter()
        .partition(|package| members.contains(&package["id"]));

    let mut stated = None;
    for package in own {
        let version = rust_version(package)?.with_context(|| {
            let name = &package["name"];
            format!("{name} states no rust-version: write `rust-version.workspace = true` there")
        })?;
        match stated {
            Some(other) if other != version => bail!(
                "{} states Rust {version} and others {other}: write `rust-version.workspace = \
                 true` there",
                package["name"]
            ),
            _ => stated = Some(version),
        }
    }
    let stated = stated.context("the workspace has no members")?;
    ensure!(
        stated <= running,
        "the workspace states Rust {stated}, but it is Rust {running} that runs: update the \
         toolchain, or lower rust-version in the root Cargo.toml"
    );
    for package in dependencies {
        if let Some(asked) = rust_version(package)?
            && asked > stated
        {
            bail!(
                "{} {} asks for Rust {asked}, but the workspace states {stated}: take an older \
                 release of it, or raise rust-version in the root Cargo.toml",
                package["name"],
                package["version"]
            );
        }
    }
    Ok(stated)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compared(own: &[Option<&str>], dependency: Option<&str>) -> Result<String, String> {
        let mut packages: Vec<Value> = own
            .iter()
            .enumerate()
            .map(|(id, version)| json!({"id": id, "name": "own", "rust_version": version}))
            .collect();
        let members: Vec<usize> = (0..own.len()).collect();
        packages.push(json!({"id": "x", "name": "dependency", "rust_version": dependency}));
        let metadata = json!({"packages": packages, "workspace_members": members});
        let running = "1.95.0".parse().map_err(|_| "unreadable".to_owned())?;
        compare(&metadata, running)
            .map(|stated| stated.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_stated_release_must_hold() {
        let stated = compared(&[Some("1.90"), Some("1.90")], Some("1.90.0"));
        assert_eq!(stated, Ok("1.90.0".to_owned()));
        assert_eq!(compared(&[Some("1.95")], None), Ok("1.95.0".to_owned()));

        for (own, dependency, sentence) in [
            (vec![Some("1.96")], None, "update the toolchain"),
            (vec![Some("1.90")], Some("1.90.1"), "asks for Rust 1.90.1"),
            (vec![Some("1.90"), Some("1.91")], None, "and others 1.90.0"),
            (vec![None], None, "states no rust-version"),
            (vec![], None, "no members"),
        ] {
            let error = compared(&own, dependency).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
    }

    #[test]
    fn releases_are_read_as_rust_writes_them() {
        let release = |text: &str| text.parse::<Release>().unwrap();
        assert_eq!(release("1.95"), release("1.95.0"));
        assert_eq!(release("1.96.0-nightly"), release("1.96"));
        assert!(release("1.100") > release("1.95.1"));
        assert!("stable".parse::<Release>().is_err());
    }
}

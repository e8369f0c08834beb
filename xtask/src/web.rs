//! `cargo xtask test-web`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::cargo::{cargo, exit_code, workspace_root};
use crate::package_manager::{PackageManager, Software, is_on_path};
use crate::redis_server;

/// The variable that names the browser, to this command and by this command to the tests.
const CHROMIUM: &str = "CHROMIUM_BIN";

/// What a Chromium may be called.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// What the clients, and the driver of the browser, ask for.
const OLDEST_NODE: u32 = 20;

/// How many files run side by side: one of them waits most of the time.
const AT_ONCE: &str = "--test-concurrency=3";

/// After how many milliseconds a test has failed that has not ended.
const TIMEOUT: &str = "--test-timeout=600000";

/// The servers that are tested, and the variables that name them to the tests.
const SERVERS: [(&str, &str); 2] = [
    ("web-server", "WEB_SERVER_BIN"),
    ("github-live", "GITHUB_LIVE_BIN"),
];

/// Runs the tests that need Node.js and a browser, and ends with their exit code.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let server = redis_server::find_or_install()?;
    find_or_install_node()?;
    let chromium = find_or_install_chromium()?;
    let folder = workspace_root().join("tests/web");
    // Exactly what the lock file says, from the registry that the user has set up.
    let install = ["ci", "--no-audit", "--no-fund"];
    succeed(Command::new("npm").args(install).current_dir(&folder))?;

    let mut command = Command::new("node");
    command
        .current_dir(&folder)
        .args(["--test", "--test-reporter=spec", AT_ONCE, TIMEOUT])
        .args(arguments)
        .env(redis_server::VARIABLE, server)
        .env(CHROMIUM, chromium)
        .env("SCREENSHOTS", workspace_root().join("target/web"));
    if !arguments.iter().any(|argument| argument.ends_with(".mjs")) {
        command.args(tests_in(&folder)?);
    }
    for (variable, path) in build()? {
        command.env(variable, path);
    }
    eprintln!("running {command:?}");
    Ok(exit_code(command.status().context("cannot run Node.js")?))
}

/// Builds the servers; the variables that name them, and their paths.
fn build() -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    // With all that the tests of the workspace are built with, so that nothing is built twice.
    let mut command = cargo(["build", "--workspace", "--all-features", "--locked"]);
    command.arg("--message-format=json-render-diagnostics");
    for (name, _) in SERVERS {
        command.args(["--bin", name]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo build; is Cargo on PATH?")?;
    ensure!(
        output.status.success(),
        "the servers cannot be built, see above"
    );
    let messages = String::from_utf8_lossy(&output.stdout);
    let built: Vec<Value> = messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let path_of = |name: &str| {
        let of = |message: &&Value| message["target"]["name"] == name;
        let found = built
            .iter()
            .filter(of)
            .find_map(|message| message["executable"].as_str());
        found.with_context(|| format!("cargo build does not say where {name} is"))
    };
    SERVERS
        .into_iter()
        .map(|(name, variable)| Ok((variable, path_of(name)?.into())))
        .collect()
}

/// All tests, in the order of their names.
fn tests_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = folder
        .read_dir()
        .with_context(|| format!("cannot read {folder:?}"))?;
    let mut tests = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if name.to_string_lossy().ends_with(".test.mjs") {
            tests.push(name.into());
        }
    }
    tests.sort();
    Ok(tests)
}

fn find_or_install_node() -> anyhow::Result<()> {
    if !(is_on_path("node") && is_on_path("npm")) {
        install(Software::Node)?;
    }
    let output = Command::new("node").arg("--version").output();
    let output = output.context("there is no Node.js: put it and npm on PATH")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version
        .strip_prefix('v')
        .and_then(|number| number.split('.').next());
    let major: Option<u32> = major.and_then(|major| major.parse().ok());
    ensure!(
        major.is_some_and(|major| major >= OLDEST_NODE),
        "Node.js is {version}, which is too old: put Node.js {OLDEST_NODE} or later on PATH"
    );
    eprintln!("Node.js: {version}");
    Ok(())
}

fn find_or_install_chromium() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os(CHROMIUM).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    if !BROWSERS.into_iter().any(is_on_path) {
        install(Software::Chromium)?;
    }
    let found = BROWSERS.into_iter().find(|name| is_on_path(name));
    let name = found.context("there is still no Chromium: set CHROMIUM_BIN to the path of one")?;
    eprintln!("browser: {name}");
    Ok(on_path(name).unwrap_or_else(|| name.into()))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut paths = env::split_paths(&path).map(|folder| folder.join(program));
    paths.find(|path| path.is_file())
}

fn install(software: Software) -> anyhow::Result<()> {
    let Some(manager) = PackageManager::of_this_machine() else {
        bail!("there is no {software:?} here, and no package manager to install it: do that first");
    };
    eprintln!("There is no {software:?} here. Installing it:");
    manager.install(software)
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("running {command:?}");
    let status = command.status();
    let status = status.with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        status.success(),
        "{command:?} failed; see what it says above"
    );
    Ok(())
}

//! Follows docs/tutorial to the letter: writes every file, runs every command, compares the output.
//!
//! In the text a fenced block `<language> file=PATH` is a file, `sh` is commands, `text output` is what
//! the last command prints, and `text report` what the tests say without the dependency.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use event_tests::RedisServer;

/// The URL that the text gives, and the tests replace by that of a server of their own.
const REDIS_IN_TEXT: &str = "redis://127.0.0.1/";

/// What the text takes away to show the report of what is missing, and where.
const DEPENDENCY: &str = ".provide(RiskLimit(10))";
const TESTS: &str = "tests/repo_agent.rs";

#[derive(Debug, PartialEq)]
enum Step {
    File { path: String, content: String },
    Commands(Vec<String>),
    Output(String),
    Report(String),
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let content = block.join("\n") + "\n";
        if let Some((_, path)) = info.split_once(" file=") {
            let path = path.to_owned();
            steps.push(Step::File { path, content });
        } else if info == "sh" {
            steps.push(Step::Commands(content.lines().map(str::to_owned).collect()));
        } else if info == "text output" {
            steps.push(Step::Output(content));
        } else if info == "text report" {
            steps.push(Step::Report(content));
        }
    }
    steps
}

/// The folder where the reader is, and what the last command printed.
struct Reader {
    folder: PathBuf,
    target: PathBuf,
    lock: PathBuf,
    redis: RedisServer,
    output: String,
}

impl Reader {
    fn follow(&mut self, step: Step) {
        match step {
            Step::File { path, content } => {
                let path = self.folder.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Step::Commands(commands) => {
                for command in commands {
                    self.run(&command);
                }
            }
            Step::Output(expected) => assert_eq!(self.output, expected),
            Step::Report(expected) => {
                let path = self.folder.join(TESTS);
                let whole = std::fs::read_to_string(&path).unwrap();
                let without = whole.replacen(DEPENDENCY, "", 1);
                assert_ne!(without, whole);
                std::fs::write(&path, without).unwrap();
                let (succeeds, said) = self.try_to_run("cargo test");
                assert!(!succeeds && said.contains(&expected), "{said}");
                std::fs::write(path, whole).unwrap();
            }
        }
    }

    fn run(&mut self, line: &str) {
        let line = line.replace(REDIS_IN_TEXT, &self.redis.url());
        let mut words = line.split_whitespace();
        let program = words.next().unwrap();
        if program == "cd" {
            self.folder.push(words.next().unwrap());
            return;
        }
        if program == "cargo" && self.folder.join("Cargo.toml").exists() {
            // The versions that this repository is tested with, so that nothing is fetched here.
            std::fs::copy(&self.lock, self.folder.join("Cargo.lock")).unwrap();
        }
        let (succeeds, said) = self.try_to_run(&line);
        assert!(succeeds, "`{line}` failed:\n{said}");
    }

    /// Whether it ends well, and everything that it says.
    fn try_to_run(&mut self, line: &str) -> (bool, String) {
        let mut words = line.split_whitespace();
        let done = Command::new(words.next().unwrap())
            .args(words)
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", &self.target)
            .output()
            .unwrap();
        self.output = String::from_utf8(done.stdout).unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        (done.status.success(), format!("{}{errors}", self.output))
    }
}

#[test]
fn the_tutorial_works_to_the_letter() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("docs/tutorial/first-service.md")).unwrap();
    let steps = steps(&text);
    let count = |wanted: fn(&Step) -> bool| steps.iter().filter(|step| wanted(step)).count();
    assert_eq!(count(|step| matches!(step, Step::File { .. })), 9);
    assert_eq!(count(|step| matches!(step, Step::Output(_))), 3);
    assert_eq!(count(|step| matches!(step, Step::Report(_))), 1);

    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root, folder.path().join("event-sourcing")).unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("tutorial");
    let mut reader = Reader {
        folder: folder.path().to_owned(),
        target,
        lock: root.join("Cargo.lock"),
        redis: RedisServer::start().unwrap(),
        output: String::new(),
    };
    for step in steps {
        reader.follow(step);
    }
}

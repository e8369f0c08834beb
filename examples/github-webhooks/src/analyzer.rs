//! The analyzer: what a push says about the code, from the paths that it touched.

use std::collections::BTreeMap;
use std::path::Path;

use event_core::BoxError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::github::GithubPush;

/// How many files are named as the hot ones.
const HOT_FILES: usize = 5;

/// Analyzes pushes.
///
/// # Contract
/// It is asked again where it has failed, and may be asked twice for one push.
pub trait Analyzer: Send + Sync {
    /// Analyzes a push.
    ///
    /// # Errors
    /// [`AnalyzeError`] where it cannot just now.
    fn analyze(&self, push: &GithubPush) -> Result<Analysis, AnalyzeError>;
}

/// What a push says about the code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Analysis {
    /// How many files it touched.
    pub files: u32,
    /// How many of them are written in which language; those in none are left out.
    pub languages: BTreeMap<String, u32>,
    /// How many of them are tests.
    pub tests: u32,
    /// The files that most of its commits touched, hottest first.
    pub hot_files: Vec<HotFile>,
}

/// A file, and how many commits touched it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HotFile {
    /// Its path.
    pub path: String,
    /// The number of commits.
    pub commits: u32,
}

/// An analysis that failed.
#[derive(Debug, thiserror::Error)]
#[error("the push to {repository} cannot be analyzed")]
pub struct AnalyzeError {
    /// The repository.
    pub repository: String,
    /// Why.
    pub source: BoxError,
}

/// Knows languages and tests by their paths.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathAnalyzer;

impl Analyzer for PathAnalyzer {
    fn analyze(&self, push: &GithubPush) -> Result<Analysis, AnalyzeError> {
        let named = u32::try_from(push.files.len()).unwrap_or(u32::MAX);
        let mut analysis = Analysis {
            files: named.saturating_add(push.files_left_out),
            ..Analysis::default()
        };
        for path in push.files.keys() {
            if let Some(language) = language(path) {
                *analysis.languages.entry(language.to_owned()).or_default() += 1;
            }
            analysis.tests += u32::from(is_test(path));
        }
        let mut hot: Vec<_> = push
            .files
            .iter()
            .map(|(path, changes)| HotFile {
                path: path.clone(),
                commits: changes.total(),
            })
            .collect();
        // The paths are sorted, and stay so among equals.
        hot.sort_by_key(|file| std::cmp::Reverse(file.commits));
        hot.truncate(HOT_FILES);
        analysis.hot_files = hot;
        Ok(analysis)
    }
}

fn language(path: &str) -> Option<&'static str> {
    let path = Path::new(path);
    let name = path.file_name()?.to_str()?;
    match name {
        "Dockerfile" => return Some("Dockerfile"),
        "Makefile" => return Some("Makefile"),
        _ => {}
    }
    Some(match path.extension()?.to_str()? {
        "c" | "h" => "C",
        "cc" | "cpp" | "cxx" | "hpp" => "C++",
        "cs" => "C#",
        "css" | "scss" => "CSS",
        "ex" | "exs" => "Elixir",
        "go" => "Go",
        "html" => "HTML",
        "java" => "Java",
        "js" | "jsx" | "mjs" | "cjs" => "JavaScript",
        "json" => "JSON",
        "kt" | "kts" => "Kotlin",
        "md" => "Markdown",
        "php" => "PHP",
        "py" => "Python",
        "rb" => "Ruby",
        "rs" => "Rust",
        "scala" => "Scala",
        "sh" | "bash" => "Shell",
        "sql" => "SQL",
        "swift" => "Swift",
        "toml" => "TOML",
        "ts" | "tsx" => "TypeScript",
        "yaml" | "yml" => "YAML",
        _ => return None,
    })
}

/// Whether a file is a test: by its folder, or by its name as the languages have it.
fn is_test(path: &str) -> bool {
    let mut segments = path.rsplit('/');
    let name = segments.next().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    segments.any(|folder| matches!(folder, "test" | "tests" | "spec" | "__tests__"))
        || stem.starts_with("test_")
        || stem.ends_with("_test")
        || stem.ends_with("Test")
        || name.contains(".test.")
        || name.contains(".spec.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::FileChanges;

    fn push(files: &[(&str, u32)]) -> GithubPush {
        let files = files.iter().map(|(path, modified)| {
            let changes = FileChanges {
                modified: *modified,
                ..FileChanges::default()
            };
            ((*path).to_owned(), changes)
        });
        GithubPush {
            files: files.collect(),
            ..GithubPush::default()
        }
    }

    #[test]
    fn a_push_shows_languages_tests_and_hot_files() {
        let push = push(&[
            ("src/lib.rs", 3),
            ("src/main.rs", 1),
            ("tests/lib.rs", 3),
            ("web/app.test.ts", 2),
            ("web/app.ts", 1),
            ("Dockerfile", 1),
            ("LICENSE", 1),
        ]);
        let analysis = PathAnalyzer.analyze(&push).unwrap();
        let count = |language: &str| analysis.languages.get(language).copied();
        assert_eq!((analysis.files, analysis.tests), (7, 2));
        assert_eq!(
            (count("Rust"), count("TypeScript"), count("Dockerfile")),
            (Some(3), Some(2), Some(1))
        );
        assert_eq!(analysis.languages.len(), 3);
        let hot: Vec<_> = analysis.hot_files.iter().map(|file| &*file.path).collect();
        assert_eq!(
            hot,
            [
                "src/lib.rs",
                "tests/lib.rs",
                "web/app.test.ts",
                "Dockerfile",
                "LICENSE"
            ]
        );
    }

    #[test]
    fn odd_paths_are_files_too() {
        let analysis = PathAnalyzer
            .analyze(&push(&[
                ("", 1),
                ("/", 1),
                ("..", 1),
                (".rs", 1),
                ("a.RS", 1),
                ("ü.rs", 1),
            ]))
            .unwrap();
        assert_eq!(analysis.files, 6);
        assert_eq!(analysis.languages, BTreeMap::from([("Rust".to_owned(), 1)]));
    }

    #[test]
    fn tests_are_known_by_their_paths() {
        for test in [
            "tests/a.rs",
            "a/__tests__/b.js",
            "test_a.py",
            "a_test.go",
            "ATest.java",
            "a.spec.ts",
        ] {
            assert!(is_test(test), "{test}");
        }
        for other in ["src/attest.rs", "contest.py", "testing/a.rs", "a.rs", ""] {
            assert!(!is_test(other), "{other}");
        }
    }
}

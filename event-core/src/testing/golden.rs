//! Golden files: what a test comes to, kept in a file that changes are read in.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use similar::TextDiff;

/// The variable that has files written anew.
const UPDATE: &str = "UPDATE_GOLDEN";

/// How many lines are shown around one that differs.
const AROUND: usize = 4;

/// What a test comes to is not what its golden file has.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// They differ.
    #[error(
        "it does not come to what `{}` has (-), but to this (+); where that is right, write the file anew with {UPDATE}=1\n{difference}", path.display()
    )]
    Different {
        /// The file.
        path: PathBuf,
        /// The lines that differ, and some around them.
        difference: String,
    },
    /// There is no such file.
    #[error(
        "there is no `{}`; write it with {UPDATE}=1, read what it has, and put it under version control", path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot read or write `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Compares a text with a file, or writes the file where the environment says so.
pub(super) fn compare(path: &Path, text: &str) -> Result<(), GoldenError> {
    let update = env::var(UPDATE).is_ok_and(|value| value != "0" && !value.is_empty());
    let file = |source| GoldenError::File {
        path: path.to_owned(),
        source,
    };
    if update {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(file)?;
        }
        return fs::write(path, text).map_err(file);
    }
    let golden = match fs::read_to_string(path) {
        // A checkout may have given it ends of lines of its own.
        Ok(golden) => golden.replace("\r\n", "\n"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(GoldenError::Missing {
                path: path.to_owned(),
            });
        }
        Err(source) => return Err(file(source)),
    };
    match difference(&golden, text) {
        None => Ok(()),
        Some(difference) => Err(GoldenError::Different {
            path: path.to_owned(),
            difference,
        }),
    }
}

/// The lines that differ and some around them; `None` where none does.
pub(super) fn difference(before: &str, now: &str) -> Option<String> {
    (before != now).then(|| {
        TextDiff::from_lines(before, now)
            .unified_diff()
            .context_radius(AROUND)
            .to_string()
    })
}

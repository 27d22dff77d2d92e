//! Files of the repository, by their path from its root.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of a file.
///
/// # Errors
/// The path with what the system says.
pub fn text(path: impl AsRef<Path>) -> Result<String, String> {
    let path = root().join(path);
    std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// A JSON file.
///
/// # Errors
/// The path with what is wrong.
pub fn json(path: impl AsRef<Path>) -> Result<Value, String> {
    let path = path.as_ref();
    serde_json::from_str(&text(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

/// The files directly in a directory whose names end so, sorted, by their path from the root.
///
/// # Errors
/// The path with what the system says.
pub fn list(directory: impl AsRef<Path>, ending: &str) -> Result<Vec<PathBuf>, String> {
    let directory = directory.as_ref();
    let read = std::fs::read_dir(root().join(directory))
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut found: Vec<PathBuf> = read
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(ending))
        .map(|entry| directory.join(entry.file_name()))
        .collect();
    found.sort();
    Ok(found)
}

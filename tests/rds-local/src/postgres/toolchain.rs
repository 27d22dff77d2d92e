//! Finds installed PostgreSQL versions. Does not install any: `make setup` does.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::account;
use crate::host::error::{Error, IoContext};

/// Environment variable with the install roots, separated by commas.
pub const ROOTS_VARIABLE: &str = "RDS_LOCAL_POSTGRES";

/// One installed PostgreSQL: a root with `bin/postgres`, `bin/initdb` and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    root: PathBuf,
    version: String,
    major: u32,
}

impl Toolchain {
    /// The toolchain in `root`, whose version is what `bin/postgres --version` says.
    pub fn at(root: &Path) -> Result<Self, Error> {
        let program = root.join("bin/postgres");
        let output = Command::new(&program).arg("--version").output().doing("running", &program)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().nth(2).unwrap_or_default().to_owned();
        let major = version.split('.').next().and_then(|major| major.parse().ok());
        match major {
            Some(major) if output.status.success() => Ok(Self { root: root.to_owned(), version, major }),
            _ => Err(Error::Tool {
                tool: program.display().to_string(),
                output: format!("{text}{}", String::from_utf8_lossy(&output.stderr)),
            }),
        }
    }

    /// The toolchains in `roots`, oldest version first. Every root must hold one.
    pub fn at_all(roots: &[PathBuf]) -> Result<Vec<Self>, Error> {
        let mut found = roots.iter().map(|root| Self::at(root)).collect::<Result<Vec<_>, _>>()?;
        found.sort_by_key(|toolchain| toolchain.major);
        Ok(found)
    }

    /// All installed toolchains, oldest version first: those of `RDS_LOCAL_POSTGRES` (roots separated by commas),
    /// else those below `${LIFEBOAT_CACHE:-$HOME/.cache/lifeboat}/postgresql`. It is an error to find none.
    pub fn find_all() -> Result<Vec<Self>, Error> {
        let (roots, searched) = match env::var(ROOTS_VARIABLE) {
            Ok(list) if !list.trim().is_empty() => {
                (list.split(',').map(|root| PathBuf::from(root.trim())).collect::<Vec<_>>(), list)
            }
            _ => {
                let cache = env::var_os("LIFEBOAT_CACHE").map_or_else(
                    || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/lifeboat"),
                    PathBuf::from,
                );
                let base = cache.join("postgresql");
                let roots = fs::read_dir(&base)
                    .map(|entries| {
                        entries
                            .flatten()
                            .map(|entry| entry.path())
                            .filter(|path| path.join("bin/postgres").is_file())
                            .collect()
                    })
                    .unwrap_or_default();
                (roots, base.display().to_string())
            }
        };
        let found = Self::at_all(&roots)?;
        if found.is_empty() {
            return Err(Error::NoToolchain { wanted: "PostgreSQL of any version".into(), searched });
        }
        Ok(found)
    }

    /// The installed toolchain of one major version (14 to 18).
    pub fn find(major: u32) -> Result<Self, Error> {
        let all = Self::find_all()?;
        let searched = all.iter().map(|one| one.root.display().to_string()).collect::<Vec<_>>().join(", ");
        all.into_iter()
            .find(|toolchain| toolchain.major == major)
            .ok_or(Error::NoToolchain { wanted: format!("PostgreSQL {major}"), searched })
    }

    /// Major version: 17.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Full version: "17.11".
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join("bin").join(name)
    }

    /// Runs a program under the servers' account and returns its standard output; a failure carries all output.
    pub(super) fn run(&self, name: &str, arguments: &[&str]) -> Result<String, Error> {
        let program = self.program(name);
        let output = account::command(&program).args(arguments).output().doing("running", &program)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Tool {
            tool: name.to_owned(),
            output: format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        })
    }
}

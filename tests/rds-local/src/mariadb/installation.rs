//! Finds the installed MariaDB. Does not install it: `make setup` does.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::account;
use crate::host::error::{Error, IoContext};

/// Environment variable with the install root; `/usr` by default.
pub const ROOT_VARIABLE: &str = "RDS_LOCAL_MARIADB";

/// Options that every server and tool gets. What is lost when the machine crashes does not matter here, so nothing is
/// synchronised; a commit writes the log, as on RDS, and what a copy of the files holds is as there.
pub(super) const COMMON: &[&str] = &[
    "--innodb-use-native-aio=0",
    "--innodb-log-file-size=16M",
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=2",
    "--debug-no-sync",
    "--skip-name-resolve",
];

/// An installed MariaDB: a root with `sbin/mariadbd`, `bin/mariadb-install-db` and `bin/mariadb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    root: PathBuf,
    version: String,
}

impl Installation {
    /// The installation in `root`, whose version is what `mariadbd --version` says.
    pub fn at(root: &Path) -> Result<Self, Error> {
        let program = root.join("sbin/mariadbd");
        if !program.exists() {
            return Err(Error::NoToolchain {
                wanted: "MariaDB".to_owned(),
                searched: root.display().to_string(),
            });
        }
        let output = Command::new(&program).arg("--version").output().doing("running", &program)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // "mariadbd  Ver 10.11.14-MariaDB-0+deb12u2 for debian-linux-gnu on x86_64 (Debian 12)"
        let version = text
            .split_once("Ver ")
            .and_then(|(_, rest)| rest.split_once("-MariaDB"))
            .map(|(version, _)| version.to_owned());
        match version {
            Some(version) if output.status.success() => Ok(Self { root: root.to_owned(), version }),
            _ => Err(Error::Tool {
                tool: program.display().to_string(),
                output: format!("{text}{}", String::from_utf8_lossy(&output.stderr)),
            }),
        }
    }

    /// The installation that `RDS_LOCAL_MARIADB` names, else the system's.
    pub fn find() -> Result<Self, Error> {
        Self::at(&env::var_os(ROOT_VARIABLE).map_or_else(|| PathBuf::from("/usr"), PathBuf::from))
    }

    /// Full version: "10.11.14".
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it is installed.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn server(&self) -> PathBuf {
        self.root.join("sbin/mariadbd")
    }

    /// The files of a new server, made once for each version and user and kept: making them takes seconds.
    pub(super) fn template(&self) -> Result<PathBuf, Error> {
        let cache = env::var_os("LIFEBOAT_CACHE").map_or_else(
            || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/lifeboat"),
            PathBuf::from,
        );
        let place = cache.join("mariadb").join(format!("new-{}-1", self.version));
        if place.exists() {
            return Ok(place);
        }
        let parent = cache.join("mariadb");
        fs::create_dir_all(&parent).doing("creating", &parent)?;
        let draft =
            tempfile::Builder::new().prefix(".new-").tempdir_in(&parent).doing("creating", &parent)?;
        let data = draft.path().join("data");
        account::private_dir(draft.path())?;
        account::private_dir(&data)?;
        let program = self.root.join("bin/mariadb-install-db");
        let output = account::command(&program)
            .arg("--no-defaults")
            .arg(format!("--basedir={}", self.root.display()))
            .arg(format!("--datadir={}", data.display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(COMMON)
            .output()
            .doing("running", &program)?;
        if !output.status.success() {
            return Err(Error::Tool {
                tool: "mariadb-install-db".to_owned(),
                output: format!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                ),
            });
        }
        // Somebody else may have been quicker; theirs is as good.
        match fs::rename(&data, &place) {
            Err(error) if !place.exists() => Err(error).doing("keeping", &place),
            _ => Ok(place),
        }
    }
}

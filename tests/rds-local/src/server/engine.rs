//! The seam between the API and real database servers: PostgreSQL, and MariaDB (no MySQL: it is not to be had here).

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::host::{Error, MasterUser};
use crate::mariadb::{self, Files, FilesOptions, Installation};
use crate::postgres::{Cluster, ClusterOptions, Running, StartOptions, StopMode, TcpOptions, Toolchain};

use super::tls::Authority;

/// A database engine in its installed versions. Everything blocks.
pub(super) trait Engine: Send + Sync {
    /// Its name in the API.
    fn name(&self) -> &'static str;
    /// Its name for people.
    fn title(&self) -> &'static str;
    /// Its full versions, oldest first.
    fn versions(&self) -> Vec<String>;
    /// Makes the files of a new, empty instance in `dir`.
    fn create(&self, version: &str, dir: &Path, checksums: bool, master: MasterUser) -> Result<(), Error>;
    /// Starts the files in `dir`, recovering them where they need it, with TLS on `127.0.0.1:port`.
    fn start(&self, version: &str, dir: &Path, port: u16, tls: &Authority) -> Result<Box<dyn Server>, Error>;
    /// Copies the files of a stopped instance or of a snapshot.
    fn copy(&self, version: &str, dir: &Path, to: &Path) -> Result<(), Error>;
}

/// A running server.
pub(super) trait Server: Send {
    /// All its processes.
    fn pids(&self) -> Vec<i32>;
    /// Really changes a role's password.
    fn set_password(&self, role: &str, password: &str) -> Result<(), Error>;
    /// Copies its files as they are on disk at one instant, and returns that.
    fn snapshot(&self, to: &Path) -> Result<Timestamp, Error>;
    /// Stops it cleanly.
    fn stop(self: Box<Self>) -> Result<(), Error>;
    /// Ends it as a failure would: the next start recovers what was committed from the log.
    fn crash(self: Box<Self>) -> Result<(), Error>;
}

/// Whether an engine's name is one of Aurora's.
pub(super) fn is_aurora(engine: &str) -> bool {
    engine.starts_with("aurora")
}

/// The one version of Aurora MySQL: its own numbers say nothing of the server behind it.
const AURORA_MYSQL: &str = "8.0.mysql_aurora.3.08.1";

/// Aurora's flavour of an engine: the same servers under another name.
pub(super) struct Aurora {
    name: &'static str,
    title: &'static str,
    engine: Arc<dyn Engine>,
}

impl Aurora {
    /// Aurora PostgreSQL, in the versions of PostgreSQL.
    pub(super) fn postgresql(engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        Arc::new(Self { name: "aurora-postgresql", title: "Aurora PostgreSQL", engine })
    }

    /// Aurora MySQL, over the newest server there is.
    pub(super) fn mysql(engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        Arc::new(Self { name: "aurora-mysql", title: "Aurora MySQL", engine })
    }

    fn behind(&self, version: &str) -> String {
        let newest = || self.engine.versions().pop();
        (version == AURORA_MYSQL).then(newest).flatten().unwrap_or_else(|| version.to_owned())
    }
}

impl Engine for Aurora {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn versions(&self) -> Vec<String> {
        match self.name {
            "aurora-mysql" => vec![AURORA_MYSQL.to_owned()],
            _ => self.engine.versions(),
        }
    }

    fn create(&self, version: &str, dir: &Path, checksums: bool, master: MasterUser) -> Result<(), Error> {
        self.engine.create(&self.behind(version), dir, checksums, master)
    }

    fn start(&self, version: &str, dir: &Path, port: u16, tls: &Authority) -> Result<Box<dyn Server>, Error> {
        self.engine.start(&self.behind(version), dir, port, tls)
    }

    fn copy(&self, version: &str, dir: &Path, to: &Path) -> Result<(), Error> {
        self.engine.copy(&self.behind(version), dir, to)
    }
}

/// The default parameter group family of an engine's version: "postgres17".
pub(super) fn family(engine: &str, version: &str) -> String {
    format!("{engine}{}", major(engine, version))
}

/// The major version: "17" of PostgreSQL 17.5, "10.11" of MariaDB 10.11.14.
pub(super) fn major<'v>(engine: &str, version: &'v str) -> &'v str {
    let parts = if matches!(engine, "mariadb" | "aurora-mysql") { 2 } else { 1 };
    version.match_indices('.').nth(parts - 1).map_or(version, |(at, _)| &version[..at])
}

/// The default option group of an engine's version: "default:mariadb-10-11".
pub(super) fn option_group(engine: &str, version: &str) -> String {
    format!("default:{engine}-{}", major(engine, version).replace('.', "-"))
}

/// PostgreSQL.
pub(super) struct Postgres {
    toolchains: Vec<Toolchain>,
}

impl Postgres {
    pub(super) fn new(toolchains: Vec<Toolchain>) -> Self {
        Self { toolchains }
    }

    /// The toolchain of a version, for damage to files.
    pub(super) fn toolchain(&self, version: &str) -> Result<&Toolchain, Error> {
        self.toolchains.iter().find(|toolchain| toolchain.version() == version).ok_or_else(|| {
            Error::NoToolchain {
                wanted: version.to_owned(),
                searched: "the versions given at start".to_owned(),
            }
        })
    }
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn title(&self) -> &'static str {
        "PostgreSQL"
    }

    fn versions(&self) -> Vec<String> {
        self.toolchains.iter().map(|toolchain| toolchain.version().to_owned()).collect()
    }

    fn create(&self, version: &str, dir: &Path, checksums: bool, master: MasterUser) -> Result<(), Error> {
        let options = ClusterOptions { checksums, master: Some(master) };
        Cluster::create(self.toolchain(version)?, dir, &options).map(drop)
    }

    fn start(&self, version: &str, dir: &Path, port: u16, tls: &Authority) -> Result<Box<dyn Server>, Error> {
        let tcp = TcpOptions { port, certificate: tls.certificate.clone(), key: tls.key.clone() };
        let options = StartOptions { tcp: Some(tcp), ..StartOptions::default() };
        Ok(Box::new(Cluster::open(self.toolchain(version)?, dir)?.start(&options)?))
    }

    fn copy(&self, version: &str, dir: &Path, to: &Path) -> Result<(), Error> {
        Cluster::open(self.toolchain(version)?, dir)?.copy(to).map(drop)
    }
}

impl Server for Running {
    fn pids(&self) -> Vec<i32> {
        Running::pids(self)
    }

    fn set_password(&self, role: &str, password: &str) -> Result<(), Error> {
        Running::set_password(self, role, password)
    }

    fn snapshot(&self, to: &Path) -> Result<Timestamp, Error> {
        self.freeze_and_copy_timed(to).map(|(_, instant)| instant)
    }

    fn stop(self: Box<Self>) -> Result<(), Error> {
        Running::stop(*self, StopMode::Fast).map(drop)
    }

    fn crash(self: Box<Self>) -> Result<(), Error> {
        Running::stop(*self, StopMode::Immediate).map(drop)
    }
}

/// MariaDB, in the one version that is installed.
pub(super) struct MariaDb {
    installation: Installation,
}

impl MariaDb {
    pub(super) fn new(installation: Installation) -> Self {
        Self { installation }
    }

    /// The files in `dir`, for damage to them.
    pub(super) fn files(&self, dir: &Path) -> Result<Files, Error> {
        Files::open(&self.installation, dir)
    }
}

impl Engine for MariaDb {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn title(&self) -> &'static str {
        "MariaDB"
    }

    fn versions(&self) -> Vec<String> {
        vec![self.installation.version().to_owned()]
    }

    fn create(&self, _version: &str, dir: &Path, _checksums: bool, master: MasterUser) -> Result<(), Error> {
        Files::create(&self.installation, dir, &FilesOptions { master: Some(master) }).map(drop)
    }

    fn start(
        &self,
        _version: &str,
        dir: &Path,
        port: u16,
        tls: &Authority,
    ) -> Result<Box<dyn Server>, Error> {
        let tcp = mariadb::TcpOptions { port, certificate: tls.certificate.clone(), key: tls.key.clone() };
        let options = mariadb::StartOptions { tcp: Some(tcp), ..mariadb::StartOptions::default() };
        Ok(Box::new(self.files(dir)?.start(&options)?))
    }

    fn copy(&self, _version: &str, dir: &Path, to: &Path) -> Result<(), Error> {
        self.files(dir)?.copy(to).map(drop)
    }
}

impl Server for mariadb::Running {
    fn pids(&self) -> Vec<i32> {
        mariadb::Running::pids(self)
    }

    fn set_password(&self, role: &str, password: &str) -> Result<(), Error> {
        mariadb::Running::set_password(self, role, password)
    }

    fn snapshot(&self, to: &Path) -> Result<Timestamp, Error> {
        self.freeze_and_copy_timed(to).map(|(_, instant)| instant)
    }

    fn stop(self: Box<Self>) -> Result<(), Error> {
        mariadb::Running::stop(*self, mariadb::StopMode::Fast).map(drop)
    }

    fn crash(self: Box<Self>) -> Result<(), Error> {
        mariadb::Running::stop(*self, mariadb::StopMode::Immediate).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_major_version_has_one_part_or_two() {
        let cases = [
            ("postgres", "17.5", "17"),
            ("postgres", "17", "17"),
            ("mariadb", "10.11.14", "10.11"),
            ("mariadb", "10.11", "10.11"),
            ("mariadb", "10", "10"),
        ];
        for (engine, version, expected) in cases {
            assert_eq!(major(engine, version), expected, "{engine} {version}");
        }
        assert_eq!(family("mariadb", "10.11.14"), "mariadb10.11");
    }
}

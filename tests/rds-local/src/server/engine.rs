//! The seam between the API and real database servers. PostgreSQL is the one engine so far; another one implements
//! these two traits.

use std::path::Path;

use jiff::Timestamp;

use crate::postgres::{
    Cluster, ClusterOptions, Error, MasterUser, Running, StartOptions, StopMode, TcpOptions, Toolchain,
};

use super::tls::Authority;

/// A database engine in its installed versions. Everything blocks.
pub(super) trait Engine: Send + Sync {
    /// Its name in the API.
    fn name(&self) -> &'static str;
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
}

/// The default parameter group family of an engine's version: "postgres17".
pub(super) fn family(engine: &str, version: &str) -> String {
    format!("{engine}{}", major(version))
}

/// The major version.
pub(super) fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
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
}

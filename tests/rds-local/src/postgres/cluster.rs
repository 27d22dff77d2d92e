//! A data directory that no server of ours is using: made by initdb, by a copy, or left by a stopped server.

use std::fs;
use std::path::{Path, PathBuf};

use super::damage::Relation;
use super::running::{Running, StartOptions, StopMode};
use super::toolchain::Toolchain;
use crate::host::MasterUser;
use crate::host::error::{Error, IoContext};
use crate::host::{account, files};

/// The bootstrap superuser, named as on RDS.
pub const SUPERUSER: &str = "rdsadmin";

/// How a new cluster is made.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Data checksums, on by default.
    pub checksums: bool,
    /// With a master user, the cluster gets the roles and rights of RDS (see [`MasterUser`]). None by default: then
    /// there is only the superuser.
    pub master: Option<MasterUser>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { checksums: true, master: None }
    }
}

/// A stopped cluster: `DIR/data` with its log beside it.
#[derive(Debug, Clone)]
pub struct Cluster {
    toolchain: Toolchain,
    dir: PathBuf,
}

impl Cluster {
    /// Creates a cluster in `dir` (created if absent, must hold no `data`): UTF-8, C.UTF-8 collation, superuser
    /// [`SUPERUSER`] without password over the socket.
    pub fn create(toolchain: &Toolchain, dir: &Path, options: &ClusterOptions) -> Result<Self, Error> {
        let cluster = Self { toolchain: toolchain.clone(), dir: dir.to_owned() };
        account::private_dir(dir)?;
        let data = cluster.data_dir();
        if data.exists() {
            return Err(Error::Unsupported { path: data, reason: "there is a cluster already" });
        }
        let place = data.display().to_string();
        let mut arguments = vec![
            "--pgdata",
            &place,
            "--username",
            SUPERUSER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ];
        match (options.checksums, toolchain.major()) {
            (true, _) => arguments.push("--data-checksums"),
            // On by default since 18; the switch to turn them off came with it.
            (false, 18..) => arguments.push("--no-data-checksums"),
            (false, _) => {}
        }
        toolchain.run("initdb", &arguments)?;
        if let Some(master) = &options.master {
            let running = cluster.start(&StartOptions::default())?;
            running.set_up_roles(master)?;
            return running.stop(StopMode::Fast);
        }
        Ok(cluster)
    }

    /// The cluster that `dir` already holds.
    pub fn open(toolchain: &Toolchain, dir: &Path) -> Result<Self, Error> {
        let cluster = Self { toolchain: toolchain.clone(), dir: dir.to_owned() };
        let version_file = cluster.data_dir().join("PG_VERSION");
        let version = fs::read_to_string(&version_file).doing("reading", &version_file)?;
        if version.trim() != toolchain.major().to_string() {
            return Err(Error::Unsupported { path: version_file, reason: "another major version" });
        }
        Ok(cluster)
    }

    /// Starts a server on it and waits until it accepts connections (after crash recovery where needed).
    pub fn start(&self, options: &StartOptions) -> Result<Running, Error> {
        Running::start(self, options)
    }

    /// Copies a stopped cluster to a new directory.
    pub fn copy(&self, to: &Path) -> Result<Self, Error> {
        account::private_dir(to)?;
        let copy = Self { toolchain: self.toolchain.clone(), dir: to.to_owned() };
        files::copy_data(&self.data_dir(), &copy.data_dir())?;
        Ok(copy)
    }

    /// Starts it privately, so that crash recovery is done, looks up where the relations live, checkpoints and stops
    /// cleanly. Damage is then not undone by replaying full-page images.
    pub fn settle(&self, database: &str, relations: &[&str]) -> Result<Vec<Relation>, Error> {
        let running = self.start(&StartOptions::default())?;
        let found =
            relations.iter().map(|name| running.relation(database, name)).collect::<Result<Vec<_>, _>>()?;
        running.sql(database, "CHECKPOINT")?;
        running.stop(StopMode::Fast)?;
        Ok(found)
    }

    /// The same toolchain with another directory.
    pub(super) fn moved_to(self, dir: &Path) -> Self {
        Self { toolchain: self.toolchain, dir: dir.to_owned() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The PostgreSQL data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What servers of this cluster wrote to their log.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The toolchain it was made with.
    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// Bytes in all files of the data directory.
    pub fn size(&self) -> Result<u64, Error> {
        fn walk(dir: &Path) -> Result<u64, Error> {
            let mut sum = 0;
            for entry in fs::read_dir(dir).doing("listing", dir)? {
                let entry = entry.doing("listing", dir)?;
                let data = entry.metadata().doing("looking at", &entry.path())?;
                sum += if data.is_dir() { walk(&entry.path())? } else { data.len() };
            }
            Ok(sum)
        }
        walk(&self.data_dir())
    }

    /// Runs one of the toolchain's programs (such as `pg_resetwal`) under the servers' account; `arguments` come
    /// after the data directory. Returns what it printed.
    pub fn run_tool(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        let place = self.data_dir().display().to_string();
        let all: Vec<&str> = ["-D", &place].into_iter().chain(arguments.iter().copied()).collect();
        self.toolchain.run(program, &all)
    }

    /// Writes a file below the data directory, as the servers' account.
    pub fn write_file(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.data_dir().join(name);
        fs::write(&path, content).doing("writing", &path)?;
        account::give(&path)
    }

    /// One line of `pg_controldata`, by the text before its colon.
    pub(super) fn control(&self, key: &str) -> Result<String, Error> {
        let text = self.toolchain.run("pg_controldata", &[&self.data_dir().display().to_string()])?;
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
            .ok_or_else(|| Error::Tool {
                tool: "pg_controldata".into(),
                output: format!("no {key} in\n{text}"),
            })
    }
}

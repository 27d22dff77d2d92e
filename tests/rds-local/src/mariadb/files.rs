//! The files of a server that is not running: made new, by a copy, or left by a stopped server.

use std::path::{Path, PathBuf};

use super::installation::Installation;
use super::running::{Running, StartOptions, StopMode};
use crate::host::error::Error;
use crate::host::{MasterUser, account, files};

/// The superuser, named as on RDS; it logs in over the socket only, without a password.
pub const SUPERUSER: &str = "rdsadmin";

/// How new files are made.
#[derive(Debug, Clone, Default)]
pub struct FilesOptions {
    /// With a master user, the server gets it with RDS's rights. None by default: then there is only the superuser.
    pub master: Option<MasterUser>,
}

/// A stopped server: `DIR/data` with its log beside it.
#[derive(Debug, Clone)]
pub struct Files {
    installation: Installation,
    dir: PathBuf,
}

impl Files {
    /// Makes the files of a new server in `dir` (created if absent, must hold no `data`).
    pub fn create(installation: &Installation, dir: &Path, options: &FilesOptions) -> Result<Self, Error> {
        let made = Self { installation: installation.clone(), dir: dir.to_owned() };
        account::private_dir(dir)?;
        let data = made.data_dir();
        if data.exists() {
            return Err(Error::Unsupported { path: data, reason: "there is a server already" });
        }
        files::copy_data(&installation.template()?, &data)?;
        let running = made.start_as(&StartOptions::default(), "root")?;
        running.sql_as("root", "mysql", &format!("RENAME USER root@localhost TO {SUPERUSER}@localhost"))?;
        if let Some(master) = &options.master {
            running.set_up_master(master)?;
        }
        running.stop(StopMode::Fast)
    }

    /// The files that `dir` already holds.
    pub fn open(installation: &Installation, dir: &Path) -> Result<Self, Error> {
        let found = Self { installation: installation.clone(), dir: dir.to_owned() };
        if found.data_dir().join("ibdata1").exists() {
            return Ok(found);
        }
        Err(Error::Unsupported { path: found.data_dir(), reason: "it holds no MariaDB server" })
    }

    /// Starts a server on them and waits until it accepts connections (after crash recovery where needed).
    pub fn start(&self, options: &StartOptions) -> Result<Running, Error> {
        self.start_as(options, SUPERUSER)
    }

    fn start_as(&self, options: &StartOptions, user: &str) -> Result<Running, Error> {
        Running::start(self, options, user)
    }

    /// Copies the files of a stopped server to a new directory.
    pub fn copy(&self, to: &Path) -> Result<Self, Error> {
        account::private_dir(to)?;
        let copy = self.clone().moved_to(to);
        files::copy_data(&self.data_dir(), &copy.data_dir())?;
        Ok(copy)
    }

    /// Starts it privately, so that crash recovery is done, and stops it cleanly. Damage is then not undone by the
    /// redo log.
    pub fn settle(&self) -> Result<(), Error> {
        self.start(&StartOptions::default())?.stop(StopMode::Fast).map(drop)
    }

    pub(super) fn moved_to(self, dir: &Path) -> Self {
        Self { installation: self.installation, dir: dir.to_owned() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// MariaDB's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What servers on these files wrote to their log.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The installation it was made with.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }
}

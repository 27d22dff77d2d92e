//! Instances without a server behind them, for tests of the control plane at a size that no machine runs servers for.
//!
//! An order (`POST /_rds-local/config {"hollow": true}`) makes instances that are created from then on hollow, and so are
//! snapshots, copies and restores of them: a directory with a mark in it. Their API is the same; nothing listens behind
//! the endpoint, so that whatever would look inside fails.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::engine::{Engine, Server};
use super::tls::Authority;
use crate::host::{Error, MasterUser};

/// The file that marks a hollow instance's or snapshot's directory.
const MARK: &str = "hollow";

/// An engine whose files may be hollow.
pub(super) struct Hollow {
    /// The real one.
    pub(super) engine: Arc<dyn Engine>,
    /// Whether new instances are hollow.
    pub(super) on: bool,
}

fn mark(dir: &Path) -> Result<(), Error> {
    let fault = |source| Error::Io { doing: "marking as hollow", path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(fault)?;
    fs::write(dir.join(MARK), b"").map_err(fault)
}

fn is_hollow(dir: &Path) -> bool {
    dir.join(MARK).is_file()
}

impl Engine for Hollow {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn title(&self) -> &'static str {
        self.engine.title()
    }

    fn versions(&self) -> Vec<String> {
        self.engine.versions()
    }

    fn create(&self, version: &str, dir: &Path, checksums: bool, master: MasterUser) -> Result<(), Error> {
        if self.on { mark(dir) } else { self.engine.create(version, dir, checksums, master) }
    }

    fn start(&self, version: &str, dir: &Path, port: u16, tls: &Authority) -> Result<Box<dyn Server>, Error> {
        if is_hollow(dir) { Ok(Box::new(Nothing)) } else { self.engine.start(version, dir, port, tls) }
    }

    fn copy(&self, version: &str, dir: &Path, to: &Path) -> Result<(), Error> {
        if is_hollow(dir) { mark(to) } else { self.engine.copy(version, dir, to) }
    }
}

/// The server that is not there.
struct Nothing;

impl Server for Nothing {
    fn pids(&self) -> Vec<i32> {
        Vec::new()
    }

    fn set_password(&self, _: &str, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn snapshot(&self, to: &Path) -> Result<Timestamp, Error> {
        mark(to).map(|()| Timestamp::now())
    }

    fn stop(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }

    fn crash(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

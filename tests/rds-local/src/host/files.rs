//! Copies a data directory, leaving out what belongs to the running server only.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use super::account;
use super::error::{Error, IoContext};

/// Files in a data directory that belong to the running server.
const RUNNING_ONLY: [&str; 3] = ["postmaster.pid", "postmaster.opts", "mariadbd.pid"];

/// Copies the data directory `from` to `to`, which must not exist. What a crash would leave is copied; the lock
/// file, the option file and shared-memory segments are not. Returns the number of bytes copied.
pub(crate) fn copy_data(from: &Path, to: &Path) -> Result<u64, Error> {
    copy_dir(from, to, true)
}

fn copy_dir(from: &Path, to: &Path, top: bool) -> Result<u64, Error> {
    fs::DirBuilder::new().mode(0o700).create(to).doing("creating", to)?;
    account::give(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from).doing("listing", from)? {
        let entry = entry.doing("listing", from)?;
        let name = entry.file_name();
        let (source, target) = (entry.path(), to.join(&name));
        let kind = entry.file_type().doing("looking at", &source)?;
        if top && RUNNING_ONLY.iter().any(|only| name == *only) {
            continue;
        }
        if kind.is_dir() {
            if top && (name == "pg_dynshmem" || name == "pg_stat_tmp") {
                fs::DirBuilder::new().mode(0o700).create(&target).doing("creating", &target)?;
                account::give(&target)?;
            } else {
                bytes += copy_dir(&source, &target, false)?;
            }
        } else if kind.is_file() {
            bytes += fs::copy(&source, &target).doing("copying", &source)?;
            account::give(&target)?;
        } else if kind.is_symlink() {
            let place = fs::read_link(&source).doing("reading", &source)?;
            if place.is_absolute() {
                let reason = "a tablespace outside the data directory cannot be part of a copy";
                return Err(Error::Unsupported { path: source, reason });
            }
            symlink(place, &target).doing("linking", &target)?;
        }
    }
    Ok(bytes)
}

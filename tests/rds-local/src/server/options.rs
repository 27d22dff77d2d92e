//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::mariadb::Installation;
use crate::postgres::{ROOTS_VARIABLE, Toolchain};

/// What `--help` says.
pub const USAGE: &str = "\
rds-local --data DIR [--postgres DIR[,DIR...]] [--mariadb DIR] [--listen 127.0.0.1:0]
          [--aws-endpoint http://127.0.0.1:4566] [--account 000000000000] [--status-ms 300]

  --data          where everything is kept; endpoint.json and ca.pem appear in it. State does not outlive the process:
                  what an earlier run left in DIR is removed. A directory with other things in it is refused.
  --postgres      PostgreSQL installations (each with bin/postgres), one a major version; else RDS_LOCAL_POSTGRES,
                  else ~/.cache/lifeboat/postgresql/*
  --mariadb       a MariaDB installation (with sbin/mariadbd); else RDS_LOCAL_MARIADB, else the system's, where it has
                  one: without it the engine `mariadb` is not offered
  --listen        address of the API; port 0 picks a free one
  --aws-endpoint  the local cloud that answers for KMS and Secrets Manager; without it every well-formed key of the
                  Region is taken and managed master passwords are refused
  --account       account id in ARNs
  --status-ms     how long a status such as `creating` lasts at least";

/// Parsed options.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory for all files.
    pub data: PathBuf,
    /// Installed PostgreSQL versions.
    pub toolchains: Vec<Toolchain>,
    /// Installed MariaDB, if there is one.
    pub mariadb: Option<Installation>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The rest of the local cloud.
    pub aws_endpoint: Option<String>,
    /// Account id.
    pub account: String,
    /// Milliseconds.
    pub status_ms: u64,
}

impl Options {
    /// Reads command-line arguments (without the program's name). The error is for the user.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut data = None;
        let mut roots: Option<Vec<PathBuf>> = None;
        let mut mariadb = None;
        let mut listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut aws_endpoint = None;
        let mut account = "000000000000".to_owned();
        let mut status_ms = 300;
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--data" => data = Some(PathBuf::from(value()?)),
                "--postgres" => roots = Some(value()?.split(',').map(PathBuf::from).collect()),
                "--mariadb" => mariadb = Some(PathBuf::from(value()?)),
                "--listen" => listen = value()?.parse().map_err(|error| format!("--listen: {error}"))?,
                "--aws-endpoint" => aws_endpoint = Some(value()?),
                "--account" => account = value()?,
                "--status-ms" => {
                    status_ms = value()?.parse().map_err(|error| format!("--status-ms: {error}"))?;
                }
                _ => return Err(format!("unknown option {name}\n{USAGE}")),
            }
        }
        if !listen.ip().is_loopback() {
            return Err(format!(
                "--listen {listen}: only a loopback address, since anybody may give orders here"
            ));
        }
        if account.len() != 12 || !account.chars().all(|char| char.is_ascii_digit()) {
            return Err(format!("--account {account}: twelve digits are wanted"));
        }
        let toolchains = match roots {
            Some(roots) => Toolchain::at_all(&roots),
            None => Toolchain::find_all(),
        }
        .map_err(|error| format!("{error} (--postgres or {ROOTS_VARIABLE} name other places)"))?;
        let mariadb = match mariadb {
            Some(root) => Some(Installation::at(&root).map_err(|error| format!("--mariadb: {error}"))?),
            None => Installation::find().ok(),
        };
        let data = data.ok_or(format!("--data is missing\n{USAGE}"))?;
        Ok(Self { data, toolchains, mariadb, listen, aws_endpoint, account, status_ms })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn wrong_options_are_named() {
        for (arguments, named) in [
            (vec!["--nonsense"], "--nonsense"),
            (vec!["--data"], "--data needs a value"),
            (vec!["--data", "d", "--listen", "0.0.0.0:1"], "loopback"),
            (vec!["--data", "d", "--account", "12"], "--account"),
            (vec!["--data", "d", "--status-ms", "soon"], "--status-ms"),
            (vec!["--data", "d", "--postgres", "/nowhere"], "/nowhere"),
            (vec!["--data", "d", "--mariadb", "/nowhere"], "/nowhere"),
            (vec![], "--data is missing"),
        ] {
            let error = Options::parse(arguments.iter().map(|&text| text.to_owned())).unwrap_err();
            assert!(error.contains(named), "{arguments:?}: {error}");
        }
    }
}

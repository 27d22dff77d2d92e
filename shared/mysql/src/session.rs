//! A connection with pinned settings.
//!
//! Everything that a digest or a fingerprint could depend on is pinned, and each statement is its own transaction, so
//! that nothing holds back the purge of old rows on a source that is at work. No pooling and no retry in here: see
//! [`dr_database::pool`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dr_core::{DrError, ErrorName, Result};
use dr_database::pool::Connection;
use dr_database::{Access, ConnectionSettings, Security};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, Row, SslOpts, Value};
use tokio::sync::Mutex;

use crate::error::{named, server_error};
use crate::text::TextRow;

/// How long a statement waits for a lock, in seconds.
const LOCK_SECONDS: u32 = 30;

/// Which of the two servers it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Oracle's MySQL, and Aurora.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// The oldest version, and the first that is too new, as numbers such as 101114.
fn supported(flavour: Flavour) -> std::ops::Range<u32> {
    match flavour {
        Flavour::MySql => 80_000..80_500,
        Flavour::MariaDb => 100_600..120_000,
    }
}

/// An open connection.
pub struct Session {
    connection: Mutex<Conn>,
    closed: AtomicBool,
    settings: ConnectionSettings,
    flavour: Flavour,
    version: u32,
    incarnation: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("settings", &self.settings)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Connection for Session {
    async fn open(settings: &ConnectionSettings, access: Access) -> Result<Self> {
        Self::open(settings, access).await
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Every database is reached over every connection: names are qualified.
    fn serves(&self, _database: &str) -> bool {
        true
    }

    /// A server that recovers does not accept connections, which looks like one that is not there.
    fn is_recovering(_error: &DrError) -> bool {
        false
    }
}

/// Reads `10.11.14-MariaDB-log` or `8.0.41`.
fn version(text: &str) -> Option<(Flavour, u32)> {
    let flavour = if text.contains("MariaDB") { Flavour::MariaDb } else { Flavour::MySql };
    let numbers = text.split(|char: char| char != '.' && !char.is_ascii_digit()).next()?;
    let mut parts = numbers.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    let patch = parts.next().and_then(std::result::Result::ok).unwrap_or(0);
    Some((flavour, major * 10_000 + minor * 100 + patch.min(99)))
}

impl Session {
    /// Connects, checks the version and pins the settings. The settings' database plays no part.
    ///
    /// # Errors
    /// `CredentialsRejected`, `CertificateRejected`, `ConnectionFailed`, `EngineUnsupported`, `QueryFailed`.
    pub async fn open(settings: &ConnectionSettings, access: Access) -> Result<Self> {
        let what = || format!("connecting to {}", settings.place());
        let mut options = OptsBuilder::default()
            .user(Some(&settings.user))
            .pass(settings.password.as_ref().map(|password| password.expose().to_owned()))
            .prefer_socket(false)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .stmt_cache_size(0)
            // Otherwise the driver asks for them.
            .max_allowed_packet(Some(1 << 30))
            .wait_timeout(Some(600));
        options = match &settings.security {
            Security::Verified { bundle, .. } => {
                let tls = SslOpts::default()
                    .with_disable_built_in_roots(true)
                    .with_root_certs(vec![bundle.to_vec().into()]);
                options
                    .ip_or_hostname(&settings.host)
                    .tcp_port(settings.port)
                    .ssl_opts(tls)
                    // What RDS's IAM authentication asks for; the certificate has been verified by then.
                    .enable_cleartext_plugin(true)
            }
            Security::LocalSocket(socket) => options.socket(Some(socket.display().to_string())),
        };
        let connection = match tokio::time::timeout(settings.connect_timeout, Conn::new(options)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(named(what(), &error, true)),
            Err(_) => {
                let name = ErrorName::ConnectionFailed;
                return Err(DrError::new(name, format!("{}: no answer in time", what())));
            }
        };
        let mut session = Self {
            connection: Mutex::new(connection),
            closed: AtomicBool::new(false),
            settings: settings.clone(),
            flavour: Flavour::MySql,
            version: 0,
            incarnation: String::new(),
        };
        session.prepare(access).await?;
        Ok(session)
    }

    async fn prepare(&mut self, access: Access) -> Result<()> {
        let text = self.row("looking at the server's version", "SELECT VERSION()").await?.text(0)?.to_owned();
        let found = version(&text).filter(|(flavour, version)| supported(*flavour).contains(version));
        let Some((flavour, version)) = found else {
            let shown: String = text.chars().take(40).collect();
            return Err(DrError::new(
                ErrorName::EngineUnsupported,
                format!("connecting to {}: it is version {shown}", self.settings.place()),
            ));
        };
        (self.flavour, self.version) = (flavour, version);
        let seconds = self.settings.statement_timeout.as_secs().max(1);
        let limit = match flavour {
            Flavour::MariaDb => format!("max_statement_time = {seconds}"),
            Flavour::MySql => {
                format!("max_execution_time = {}, information_schema_stats_expiry = 0", seconds * 1000)
            }
        };
        let pins = [
            "SET NAMES utf8mb4".to_owned(),
            // Nothing but this: no padding of CHAR, no quoting by backslash, zero dates as they are.
            "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'".to_owned(),
            format!(
                "SET SESSION time_zone = '+00:00', autocommit = 1, sql_select_limit = DEFAULT, \
                 lock_wait_timeout = {LOCK_SECONDS}, innodb_lock_wait_timeout = {LOCK_SECONDS}, {limit}"
            ),
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned(),
            format!(
                "SET SESSION TRANSACTION {}",
                if access == Access::ReadOnly { "READ ONLY" } else { "READ WRITE" }
            ),
        ];
        for pin in pins {
            self.rows("pinning the session's settings", &pin).await?;
        }
        // Both are taken at the statement's start, so the difference is the same until the server starts anew.
        let sql = format!(
            "SELECT CAST(UNIX_TIMESTAMP() - variable_value AS UNSIGNED) FROM {} WHERE variable_name = 'Uptime'",
            self.status_table()
        );
        let started = self.row("looking at the server's start", &sql).await?.text(0)?.to_owned();
        self.incarnation = started;
        Ok(())
    }

    /// Where the server shows its counters as a table.
    pub(crate) fn status_table(&self) -> &'static str {
        match self.flavour {
            Flavour::MariaDb => "information_schema.global_status",
            Flavour::MySql => "performance_schema.global_status",
        }
    }

    /// Where it is connected to.
    pub fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    /// Which server it is.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The server's version as a number, such as 101114 or 80041.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// When the server was started, in seconds since 1970, as text.
    pub(crate) fn started(&self) -> &str {
        &self.incarnation
    }

    /// All rows of a query, as text, or the driver's error.
    pub(crate) async fn try_rows(&self, sql: &str) -> std::result::Result<Vec<TextRow>, mysql_async::Error> {
        let mut connection = self.connection.lock().await;
        let asked = async {
            let mut result = connection.query_iter(sql).await?;
            let mut rows: Vec<TextRow> = Vec::new();
            while !result.is_empty() {
                rows.extend(result.collect::<Row>().await?.into_iter().map(as_text));
            }
            Ok(rows)
        };
        let answer: std::result::Result<Vec<TextRow>, mysql_async::Error> = asked.await;
        if answer.as_ref().is_err_and(|error| server_error(error).is_none_or(|error| error.code == 1927)) {
            self.closed.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// All rows of a query, as text. `doing` completes "... at x".
    pub(crate) async fn rows(&self, doing: &str, sql: &str) -> Result<Vec<TextRow>> {
        self.try_rows(sql).await.map_err(|error| self.fault(doing, &error))
    }

    /// The first row of a query that always has one.
    pub(crate) async fn row(&self, doing: &str, sql: &str) -> Result<TextRow> {
        let mut rows = self.rows(doing, sql).await?;
        if rows.is_empty() {
            return Err(crate::text::unexpected(&format!("no row while {doing}")));
        }
        Ok(rows.swap_remove(0))
    }

    pub(crate) fn fault(&self, doing: &str, error: &mysql_async::Error) -> DrError {
        named(format!("{doing} at {}", self.settings.place()), error, false)
    }
}

fn as_text(row: Row) -> TextRow {
    let values = row.unwrap_raw().into_iter().map(|value| match value {
        None | Some(Value::NULL) => None,
        Some(Value::Bytes(bytes)) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Some(other) => Some(other.as_sql(true)),
    });
    TextRow(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_bounded() {
        let cases = [
            ("10.11.14-MariaDB-0+deb12u2", Some((Flavour::MariaDb, 101_114)), true),
            ("10.6.19-MariaDB-log", Some((Flavour::MariaDb, 100_619)), true),
            ("11.8.2-MariaDB", Some((Flavour::MariaDb, 110_802)), true),
            ("10.5.27-MariaDB", Some((Flavour::MariaDb, 100_527)), false),
            ("8.0.41", Some((Flavour::MySql, 80_041)), true),
            ("8.4.3-log", Some((Flavour::MySql, 80_403)), true),
            ("5.7.44-log", Some((Flavour::MySql, 50_744)), false),
            ("9.1.0", Some((Flavour::MySql, 90_100)), false),
            ("what", None, false),
        ];
        for (text, expected, fits) in cases {
            assert_eq!(version(text), expected, "{text}");
            let here = version(text).is_some_and(|(flavour, number)| supported(flavour).contains(&number));
            assert_eq!(here, fits, "{text}");
        }
    }
}

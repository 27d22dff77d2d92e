//! A connection with pinned settings.
//!
//! Everything that a digest or a fingerprint could depend on is pinned, and nothing is left open between two
//! statements: each statement is its own transaction, so that locks and the horizon of vacuum are held for seconds
//! at most on a source that is at work. No pooling and no retry in here: see [`crate::pool`].

use std::fmt::Write as _;
use std::time::Duration;

use dr_core::{DrError, ErrorName, Result};
use dr_database::Access;
use dr_database::pool::Connection;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{ServerSaid, named};
use crate::text::{TextRow, literal};
use dr_database::{ConnectionSettings, Security};

/// How often a statement is asked again that lost against DDL at the same moment.
pub(crate) const MOST_RACES: u32 = 10;
/// The pause before it is: long enough not to run in step with whoever renames back and forth.
pub(crate) const AFTER_A_RACE: Duration = Duration::from_millis(100);

/// Whether a SQLSTATE says that a table, a column or an object is not there under the name that was looked up.
pub(crate) fn lost_a_race(sqlstate: &str) -> bool {
    matches!(sqlstate, "42P01" | "42703" | "42704")
}

/// Oldest and newest major version that is supported.
pub const SUPPORTED: (u32, u32) = (14, 18);
/// How long a statement waits for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// An open connection.
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
    settings: ConnectionSettings,
    major: u32,
    incarnation: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Closes the socket even when a statement is still running; the server looks every few seconds
        // (client_connection_check_interval) and gives the statement up.
        self.driver.abort();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("settings", &self.settings)
            .field("major", &self.major)
            .finish_non_exhaustive()
    }
}

impl Connection for Session {
    async fn open(settings: &ConnectionSettings, access: Access) -> Result<Self> {
        Self::open(settings, access).await
    }

    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    fn incarnation(&self) -> &str {
        &self.incarnation
    }

    fn serves(&self, database: &str) -> bool {
        self.settings.database == database
    }

    fn is_recovering(error: &DrError) -> bool {
        std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<ServerSaid>())
            .is_some_and(|said| said.sqlstate == "57P03")
    }
}

impl Session {
    /// Connects, checks the version and pins the settings.
    ///
    /// # Errors
    /// `CredentialsRejected`, `CertificateRejected`, `ConnectionFailed`, `EngineUnsupported` (a server before 14 or
    /// after 18), `QueryFailed`.
    pub async fn open(settings: &ConnectionSettings, access: Access) -> Result<Self> {
        let what = || format!("connecting to {}", settings.place());
        let mut config = Config::new();
        config
            .port(settings.port)
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name("lifeboat")
            .connect_timeout(settings.connect_timeout)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3);
        if let Some(password) = &settings.password {
            config.password(password.expose());
        }
        // The driver's own timeout covers the TCP handshake only: TLS and authentication can hang as well.
        let connect = async {
            match &settings.security {
                Security::Verified { config: tls, .. } => {
                    config.host(&settings.host).ssl_mode(SslMode::Require);
                    let tls = MakeRustlsConnect::new((**tls).clone());
                    let (client, connection) = config.connect(tls).await?;
                    Ok((client, tokio::spawn(drive(connection))))
                }
                Security::LocalSocket(directory) => {
                    config.host_path(directory).ssl_mode(SslMode::Disable);
                    let (client, connection) = config.connect(NoTls).await?;
                    Ok((client, tokio::spawn(drive(connection))))
                }
            }
        };
        let (client, driver) = match tokio::time::timeout(settings.connect_timeout, connect).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(named(what(), error, true)),
            Err(_) => {
                let name = ErrorName::ConnectionFailed;
                return Err(DrError::new(name, format!("{}: no answer in time", what())));
            }
        };
        let mut session =
            Self { client, driver, settings: settings.clone(), major: 0, incarnation: String::new() };
        session.prepare(access).await?;
        Ok(session)
    }

    async fn prepare(&mut self, access: Access) -> Result<()> {
        let doing = "looking at the server's version";
        let version: u32 = self.row(doing, "SELECT current_setting('server_version_num')").await?.parse(0)?;
        self.major = version / 10_000;
        if !(SUPPORTED.0..=SUPPORTED.1).contains(&self.major) {
            return Err(DrError::new(
                ErrorName::EngineUnsupported,
                format!("connecting to {}: it is PostgreSQL {}", self.settings.place(), self.major),
            ));
        }
        let mut pins = vec![
            ("client_encoding", "UTF8".to_owned()),
            ("standard_conforming_strings", "on".to_owned()),
            ("datestyle", "ISO, MDY".to_owned()),
            ("timezone", "UTC".to_owned()),
            ("intervalstyle", "postgres".to_owned()),
            ("extra_float_digits", "1".to_owned()),
            ("bytea_output", "hex".to_owned()),
            ("xmlbinary", "base64".to_owned()),
            ("xmloption", "content".to_owned()),
            ("lc_monetary", "C".to_owned()),
            // Notices come from users' functions, too, and nobody reads them here.
            ("client_min_messages", "error".to_owned()),
            // A row that a policy hides must be an error, not a gap.
            ("row_security", "off".to_owned()),
            ("quote_all_identifiers", "off".to_owned()),
            // Short scans that always run in the same order, by one process.
            ("synchronize_seqscans", "off".to_owned()),
            ("max_parallel_workers_per_gather", "0".to_owned()),
            ("jit", "off".to_owned()),
            ("statement_timeout", millis(self.settings.statement_timeout)),
            ("lock_timeout", millis(LOCK_TIMEOUT)),
            ("idle_in_transaction_session_timeout", "60000".to_owned()),
            ("client_connection_check_interval", "5000".to_owned()),
            ("default_transaction_isolation", "read committed".to_owned()),
            (
                "default_transaction_read_only",
                if access == Access::ReadOnly { "on" } else { "off" }.to_owned(),
            ),
        ];
        if self.major >= 15 {
            pins.push(("stats_fetch_consistency", "none".to_owned()));
        }
        if self.major >= 17 {
            pins.push(("transaction_timeout", "0".to_owned()));
        }
        let mut sql = String::new();
        for (name, value) in pins {
            let _ = write!(sql, "SET {name} = {}; ", literal(&value));
        }
        // Last, and as an expression: an empty string literal is no valid list item for SET.
        sql.push_str("SELECT pg_catalog.set_config('search_path', '', false)");
        self.rows("pinning the session's settings", &sql).await?;
        // The checkpointer starts anew after every crash of the server, and with it.
        let sql = "SELECT concat(pg_postmaster_start_time(), '/', (SELECT max(backend_start) FROM pg_stat_activity \
                   WHERE backend_type = 'checkpointer'))";
        let row = self.row("looking at the server's start", sql).await?;
        row.text(0)?.clone_into(&mut self.incarnation);
        Ok(())
    }

    /// Where it is connected to.
    pub fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    /// The server's major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// All rows of a query, as text, or the driver's error.
    pub(crate) async fn try_rows(
        &self,
        sql: &str,
    ) -> std::result::Result<Vec<TextRow>, tokio_postgres::Error> {
        let messages = self.client.simple_query(sql).await?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(TextRow(row)),
                _ => None,
            })
            .collect())
    }

    /// All rows of a query, as text. `doing` completes "... in database x".
    pub(crate) async fn rows(&self, doing: &str, sql: &str) -> Result<Vec<TextRow>> {
        self.try_rows(sql).await.map_err(|error| self.fault(doing, error))
    }

    /// Rows of a catalogue query. Catalogue functions look at the newest state and not at the query's snapshot, so
    /// DDL at the same moment makes them fail with an internal error; such a query is simply asked again.
    pub(crate) async fn catalogue_rows(&self, doing: &str, sql: &str) -> Result<Vec<TextRow>> {
        let mut attempt = 0;
        loop {
            match self.try_rows(sql).await {
                Err(error)
                    if attempt < MOST_RACES
                        && crate::error::sqlstate(&error)
                            .is_some_and(|state| state == "XX000" || lost_a_race(state)) =>
                {
                    attempt += 1;
                    tokio::time::sleep(AFTER_A_RACE).await;
                }
                answer => return answer.map_err(|error| self.fault(doing, error)),
            }
        }
    }

    /// The first row of a query that always has one.
    pub(crate) async fn row(&self, doing: &str, sql: &str) -> Result<TextRow> {
        let mut rows = self.rows(doing, sql).await?;
        if rows.is_empty() {
            return Err(crate::text::unexpected(&format!("no row while {doing}")));
        }
        Ok(rows.swap_remove(0))
    }

    pub(crate) fn fault(&self, doing: &str, error: tokio_postgres::Error) -> DrError {
        named(format!("{doing} in {}", self.settings.place()), error, false)
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().min(i32::MAX as u128).to_string()
}

async fn drive<F: Future<Output = std::result::Result<(), tokio_postgres::Error>>>(connection: F) {
    if let Err(error) = connection.await {
        // The statement that was running gets its own error; this one is for whoever follows a connection's end.
        tracing::debug!(
            closed = error.is_closed(),
            sqlstate = crate::error::sqlstate(&error),
            "a connection ended"
        );
    }
}

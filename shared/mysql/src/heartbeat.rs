//! The row that tells how far a restore reaches.
//!
//! It is written to the source after the last digest and right before the snapshot, and committed: whatever the frame
//! saw is in the redo log before it. A restore on which the row is missing has lost the end of its log, however sound
//! its pages are. (With `innodb_flush_log_at_trx_commit` other than 1 the last second may be lost by design; the
//! judgement then says so as well.)

use dr_core::proof::frame::Heartbeat;
use dr_core::{DrError, ErrorName, Result};
use dr_database::{Access, ConnectionSettings};
use jiff::Timestamp;

use crate::catalogue::server::moment;
use crate::session::Session;
use crate::text::literal;

/// The database that holds the table.
pub const DATABASE: &str = "lifeboat";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS lifeboat.heartbeat (operation_id VARCHAR(255) CHARACTER SET ascii \
    COLLATE ascii_bin NOT NULL PRIMARY KEY, beat BIGINT NOT NULL, written_at DATETIME(6) NOT NULL) ENGINE=InnoDB";
const MICROS: &str = "CAST(UNIX_TIMESTAMP(written_at) * 1000000 AS SIGNED)";
const THERE: &str = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'lifeboat' \
    AND table_name = 'heartbeat'";

/// Writes a beat of this operation and removes rows older than 30 days. Each call is one beat more.
///
/// # Errors
/// `PermissionMissing` when the user may not create the database or write the table; of the connection; `QueryFailed`
/// on a replica that is read-only.
pub async fn beat(settings: &ConnectionSettings, operation_id: &str) -> Result<Heartbeat> {
    let session = Session::open(settings, Access::ReadWrite).await?;
    let doing = "writing the heartbeat";
    if !session.row(doing, THERE).await?.flag(0)? {
        // The table may be created by somebody who may not create the database, once that is there.
        let database = session.rows("creating lifeboat", "CREATE DATABASE IF NOT EXISTS lifeboat").await;
        if let Err(error) = session.rows("creating lifeboat.heartbeat", CREATE).await {
            return Err(database.err().unwrap_or(error));
        }
    }
    let id = literal(operation_id);
    let sql = format!(
        "INSERT INTO lifeboat.heartbeat (operation_id, beat, written_at) VALUES ({id}, 1, NOW(6)) \
         ON DUPLICATE KEY UPDATE beat = beat + 1, written_at = NOW(6)"
    );
    session.rows(doing, &sql).await?;
    let sql = format!("SELECT beat, {MICROS} FROM lifeboat.heartbeat WHERE operation_id = {id}");
    let row = session.row(doing, &sql).await?;
    let beat = Heartbeat {
        database: DATABASE.to_owned(),
        operation_id: operation_id.to_owned(),
        beat: row.parse(0)?,
        written_at: moment(row.parse(1)?)?,
    };
    let sql = "DELETE FROM lifeboat.heartbeat WHERE written_at < NOW(6) - INTERVAL 30 DAY";
    session.rows("removing old heartbeats", sql).await?;
    Ok(beat)
}

/// The last beat of this operation as the writer has it; `None` when there is no row.
///
/// # Errors
/// `DatabaseUnavailable` when a replica answers: what it has not applied is not lost; of the connection or the query.
pub async fn last(settings: &ConnectionSettings, operation_id: &str) -> Result<Option<i64>> {
    let session = Session::open(settings, Access::ReadOnly).await?;
    let sql = "SELECT @@global.read_only OR @@global.innodb_read_only";
    if session.row("looking at the server's role", sql).await?.flag(0)? {
        let what = format!("reading the heartbeat at {}: it is read-only", settings.place());
        return Err(DrError::new(ErrorName::DatabaseUnavailable, what)
            .with_remedy("Wait until the name leads to the new writer."));
    }
    Ok(look(&session, Some(operation_id)).await?.of_operation.map(|beat| beat.beat))
}

/// What the heartbeat table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The row of the operation that was asked for.
    pub of_operation: Option<Heartbeat>,
    /// When the newest row of any operation was written.
    pub newest: Option<Timestamp>,
}

/// Reads the heartbeat table; one that is absent, or that cannot be read, has no rows.
///
/// # Errors
/// Of the connection; `PermissionMissing`.
pub async fn find(session: &Session, operation_id: Option<&str>) -> Result<Found> {
    match look(session, operation_id).await {
        // Its definition may be there without its rows, when the log was cut in between.
        Err(error) if error.name() == ErrorName::QueryFailed => {
            Ok(Found { of_operation: None, newest: None })
        }
        found => found,
    }
}

async fn look(session: &Session, operation_id: Option<&str>) -> Result<Found> {
    let doing = "reading the heartbeat";
    let mut found = Found { of_operation: None, newest: None };
    if !session.row(doing, THERE).await?.flag(0)? {
        return Ok(found);
    }
    let sql = format!("SELECT MAX({MICROS}) FROM lifeboat.heartbeat");
    found.newest = session.row(doing, &sql).await?.parse_optional(0)?.map(moment).transpose()?;
    if let Some(operation_id) = operation_id {
        let sql = format!(
            "SELECT beat, {MICROS} FROM lifeboat.heartbeat WHERE operation_id = {}",
            literal(operation_id)
        );
        if let Some(row) = session.rows(doing, &sql).await?.first() {
            found.of_operation = Some(Heartbeat {
                database: DATABASE.to_owned(),
                operation_id: operation_id.to_owned(),
                beat: row.parse(0)?,
                written_at: moment(row.parse(1)?)?,
            });
        }
    }
    Ok(found)
}

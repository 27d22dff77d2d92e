//! The row that tells how far a restore reaches.
//!
//! It is written to the source after the last digest and right before the snapshot, and committed synchronously:
//! whatever the frame saw is in the write-ahead log before it. A restore on which the row is missing has lost the end
//! of its log, however sound its pages are.

use dr_core::proof::frame::Heartbeat;
use dr_core::{DrError, ErrorName, Result};
use jiff::Timestamp;

use crate::catalogue::server::moment;
use crate::session::Session;
use crate::text::literal;
use dr_database::Access;
use dr_database::ConnectionSettings;

/// A schema that is there is not asked for: `IF NOT EXISTS` wants CREATE on the database all the same, which the owner
/// of a schema need not have.
const CREATE_SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS lifeboat";

/// A race with another operation fails harmlessly on the name.
const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS lifeboat.heartbeat ( \
    operation_id text PRIMARY KEY, beat bigint NOT NULL, written_at timestamptz NOT NULL)";

/// Writes a beat of this operation on the writer, in the settings' database, and removes rows older than 30 days.
/// Each call is one beat more.
///
/// # Errors
/// `PermissionMissing` when the user may not create the schema or write the table (grant CREATE on the database, or
/// create `lifeboat.heartbeat` for it beforehand); of the connection; `QueryFailed` on a standby.
pub async fn beat(settings: &ConnectionSettings, operation_id: &str) -> Result<Heartbeat> {
    let session = Session::open(settings, Access::ReadWrite).await?;
    let doing = "writing the heartbeat";
    let there = session.row(doing, "SELECT to_regclass('lifeboat.heartbeat') IS NOT NULL").await?.flag(0)?;
    if !there {
        let created = create(&session).await;
        let there =
            session.row(doing, "SELECT to_regclass('lifeboat.heartbeat') IS NOT NULL").await?.flag(0)?;
        if !there {
            created?;
        }
    }
    session.rows(doing, "SET synchronous_commit = on").await?;
    let sql = format!(
        "INSERT INTO lifeboat.heartbeat AS h VALUES ({}, 1, clock_timestamp()) ON CONFLICT (operation_id) \
         DO UPDATE SET beat = h.beat + 1, written_at = excluded.written_at \
         RETURNING beat, (extract(epoch FROM written_at) * 1000000)::bigint",
        literal(operation_id)
    );
    let row = session.row(doing, &sql).await?;
    let beat = Heartbeat {
        database: settings.database.clone(),
        operation_id: operation_id.to_owned(),
        beat: row.parse(0)?,
        written_at: moment(row.parse(1)?)?,
    };
    let sql = "DELETE FROM lifeboat.heartbeat WHERE written_at < clock_timestamp() - interval '30 days'";
    session.rows("removing old heartbeats", sql).await?;
    Ok(beat)
}

async fn create(session: &Session) -> Result<()> {
    let sql = "SELECT to_regnamespace('lifeboat') IS NOT NULL";
    if !session.row("writing the heartbeat", sql).await?.flag(0)? {
        session.rows("creating the schema lifeboat", CREATE_SCHEMA).await?;
    }
    session.rows("creating lifeboat.heartbeat", CREATE_TABLE).await?;
    Ok(())
}

/// The last beat of this operation as the writer has it, in the settings' database; `None` when there is no row.
///
/// # Errors
/// `DatabaseUnavailable` when a standby answers: what it has not replayed is not lost; of the connection or the query.
pub async fn last(settings: &ConnectionSettings, operation_id: &str) -> Result<Option<i64>> {
    let session = Session::open(settings, Access::ReadOnly).await?;
    if session.row("looking at the server's role", "SELECT pg_is_in_recovery()").await?.flag(0)? {
        let what = format!("reading the heartbeat in {}: it is a standby", settings.place());
        return Err(DrError::new(ErrorName::DatabaseUnavailable, what)
            .with_remedy("Wait until the name leads to the new writer."));
    }
    Ok(find(&session, Some(operation_id)).await?.of_operation.map(|beat| beat.beat))
}

/// What the heartbeat table of a database says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The row of the operation that was asked for.
    pub of_operation: Option<Heartbeat>,
    /// When the newest row of any operation was written.
    pub newest: Option<Timestamp>,
}

/// Reads the heartbeat table of the session's database; a table that is absent has no rows.
///
/// # Errors
/// Of the connection or the query.
pub async fn find(session: &Session, operation_id: Option<&str>) -> Result<Found> {
    let doing = "reading the heartbeat";
    let mut found = Found { of_operation: None, newest: None };
    if !session.row(doing, "SELECT to_regclass('lifeboat.heartbeat') IS NOT NULL").await?.flag(0)? {
        return Ok(found);
    }
    let micros = "(extract(epoch FROM written_at) * 1000000)::bigint";
    let sql = format!("SELECT max({micros}) FROM lifeboat.heartbeat");
    found.newest = session.row(doing, &sql).await?.parse_optional(0)?.map(moment).transpose()?;
    if let Some(operation_id) = operation_id {
        let sql = format!(
            "SELECT beat, {micros} FROM lifeboat.heartbeat WHERE operation_id = {}",
            literal(operation_id)
        );
        if let Some(row) = session.rows(doing, &sql).await?.first() {
            found.of_operation = Some(Heartbeat {
                database: session.settings().database.clone(),
                operation_id: operation_id.to_owned(),
                beat: row.parse(0)?,
                written_at: moment(row.parse(1)?)?,
            });
        }
    }
    Ok(found)
}

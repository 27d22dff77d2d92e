//! The server itself, its databases, and whether all of it may be read.

use dr_core::proof::frame::ServerFacts;
use dr_core::{DrError, ErrorName, Result};
use jiff::Timestamp;

use super::NOT_USERS;
use crate::session::Session;
use crate::text::unexpected;

/// A server's moment from microseconds since 1970.
pub(crate) fn moment(microseconds: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(microseconds)
        .map_err(|error| unexpected("a moment out of bounds").with_source(error))
}

/// Facts of the server behind a session. MySQL has nothing that a physical restore keeps and another server cannot
/// have, so there is no system identifier: the heartbeat tells whose restore it is.
///
/// # Errors
/// Of the connection or the query.
pub async fn server_facts(session: &Session) -> Result<ServerFacts> {
    let sql = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED), @@innodb_checksum_algorithm <> 'none', \
               @@global.read_only";
    let row = session.row("reading the server's facts", sql).await?;
    Ok(ServerFacts {
        version: session.version(),
        system_identifier: None,
        data_checksums: row.flag(1)?,
        in_recovery: row.flag(2)?,
        clock: moment(row.parse(0)?)?,
    })
}

/// The databases that hold users' data.
///
/// # Errors
/// Of the connection or the query.
pub async fn databases(session: &Session) -> Result<Vec<String>> {
    let sql =
        format!("SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN {NOT_USERS}");
    let rows = session.rows("listing the databases", &sql).await?;
    let mut names = rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Makes sure that the user sees every table: `information_schema` leaves out silently what a user may not read.
///
/// # Errors
/// `PermissionMissing` without SELECT on everything.
pub async fn check_readable(session: &Session) -> Result<()> {
    let rows = session.rows("looking at the user's rights", "SHOW GRANTS").await?;
    let everything = rows.iter().filter_map(|row| row.optional(0)).any(|grant| {
        grant.strip_prefix("GRANT ").and_then(|grant| grant.split_once(" ON *.* TO ")).is_some_and(
            |(rights, _)| rights.split(", ").any(|right| right == "SELECT" || right == "ALL PRIVILEGES"),
        )
    });
    if everything {
        return Ok(());
    }
    let what = format!("reading everything at {}: the user may not", session.settings().place());
    Err(DrError::new(ErrorName::PermissionMissing, what).with_remedy(
        "Grant it SELECT, SHOW VIEW, TRIGGER, EVENT and PROCESS on *.*, and ALL on lifeboat.* for the heartbeat.",
    ))
}

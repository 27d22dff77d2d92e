//! The server itself and its databases.

use dr_core::proof::frame::ServerFacts;
use dr_core::{DrError, ErrorName, Result};
use jiff::Timestamp;

use crate::session::Session;
use crate::text::unexpected;

/// Facts of the server behind a session.
///
/// # Errors
/// Of the connection or the query.
pub async fn server_facts(session: &Session) -> Result<ServerFacts> {
    let doing = "reading the server's facts";
    let sql = "SELECT current_setting('server_version_num'), current_setting('data_checksums'), \
               pg_is_in_recovery(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
               has_function_privilege('pg_control_system()', 'execute')";
    let row = session.row(doing, sql).await?;
    let system_identifier = if row.flag(4)? {
        let control = session.row(doing, "SELECT system_identifier FROM pg_control_system()").await?;
        control.optional(0).map(str::to_owned)
    } else {
        None
    };
    Ok(ServerFacts {
        version: row.parse(0)?,
        system_identifier,
        data_checksums: row.text(1)? == "on",
        in_recovery: row.flag(2)?,
        clock: moment(row.parse(3)?)?,
    })
}

/// A server's moment from microseconds since 1970.
pub(crate) fn moment(microseconds: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(microseconds)
        .map_err(|error| unexpected("a moment out of bounds").with_source(error))
}

/// The databases that hold users' data: those that accept connections, without templates and without RDS' own.
///
/// # Errors
/// `PermissionMissing` when the user may not connect to one of them: leaving it out silently would prove less than
/// was asked for.
pub async fn databases(session: &Session) -> Result<Vec<String>> {
    let sql = "SELECT datname, has_database_privilege(oid, 'connect') FROM pg_database \
               WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2 AND datname <> 'rdsadmin' \
               ORDER BY datname COLLATE \"C\"";
    let mut names = Vec::new();
    for row in session.rows("listing the databases", sql).await? {
        let name = row.text(0)?.to_owned();
        if !row.flag(1)? {
            let what = format!("listing the databases: the user may not connect to `{name}`");
            return Err(DrError::new(ErrorName::PermissionMissing, what).with_remedy(format!(
                "Grant CONNECT on database \"{name}\" to the user that Lifeboat connects as."
            )));
        }
        names.push(name);
    }
    Ok(names)
}

/// Large objects in the session's database.
///
/// # Errors
/// Of the connection or the query.
pub async fn large_objects(session: &Session) -> Result<u64> {
    session.row("counting large objects", "SELECT count(*) FROM pg_largeobject_metadata").await?.parse(0)
}

//! SQL as the superuser over the server's own socket, for set-up and for tests. Blocking: it runs on a thread of its
//! own, so that it may be called from inside an async runtime too.

use std::path::Path;
use std::thread;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, Row, Value};

use crate::host::Rows;
use crate::host::error::{Error, IoContext};

/// Quotes an identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Quotes a string literal; the sessions here have backslash escapes.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Runs statements and returns all rows of all of them.
pub(super) fn run(socket: &Path, user: &str, database: &str, statements: &str) -> Result<Rows, Error> {
    let sql_error = |source| Error::MariaDb { database: database.to_owned(), source: Box::new(source) };
    let options = OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some(user))
        .db_name(Some(database))
        .max_allowed_packet(Some(1 << 30))
        .wait_timeout(Some(28_800));
    let work = || -> Result<Rows, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing("starting a runtime for SQL in", Path::new(database))?;
        let talk = async {
            let mut connection = Conn::new(options).await?;
            let mut rows = Vec::new();
            {
                let mut result = connection.query_iter(statements).await?;
                while !result.is_empty() {
                    rows.extend(result.collect::<Row>().await?.into_iter().map(as_text));
                }
            }
            connection.disconnect().await?;
            Ok(rows)
        };
        runtime.block_on(talk).map_err(sql_error)
    };
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(payload) => std::panic::resume_unwind(payload),
    })
}

fn as_text(row: Row) -> Vec<Option<String>> {
    row.unwrap()
        .into_iter()
        .map(|value| match value {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            other => Some(other.as_sql(true)),
        })
        .collect()
}

//! SQL as the superuser over the server's own socket, for set-up and for tests. Blocking: it runs on a thread of its
//! own, so that it may be called from inside an async runtime too.

use std::path::Path;
use std::thread;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::host::Rows;
use crate::host::error::{Error, IoContext};

/// Runs statements (several, separated by semicolons, are one implicit transaction) and returns all rows.
pub(super) fn run(config: &Config, database: &str, statements: &str) -> Result<Rows, Error> {
    let sql_error = |source| Error::Sql { database: database.to_owned(), source };
    let work = || -> Result<Rows, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .doing("starting a runtime for SQL in", Path::new(database))?;
        let talk = async {
            let (client, connection) = config.connect(NoTls).await?;
            let driver = tokio::spawn(connection);
            let messages = client.simple_query(statements).await?;
            drop(client);
            let _ = driver.await;
            Ok(messages.into_iter().filter_map(as_row).collect())
        };
        runtime.block_on(talk).map_err(sql_error)
    };
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(payload) => std::panic::resume_unwind(payload),
    })
}

fn as_row(message: SimpleQueryMessage) -> Option<Vec<Option<String>>> {
    match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    }
}

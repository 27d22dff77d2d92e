//! Auto-increment counters and the columns that they feed.

use dr_core::Result;
use dr_core::proof::frame::{SequenceFacts, TableName};
use dr_database::pool::is_passing;

use super::NOT_USERS;
use crate::session::Session;
use crate::text::{identifier, qualified};

/// One entry for each table with an AUTO_INCREMENT column: the last number that it gave out by its own account, and
/// the greatest in the column. Numbers beyond 2^63 are shown as 2^63 - 1.
///
/// # Errors
/// Of the connection or the query.
pub async fn sequences(session: &Session) -> Result<Vec<SequenceFacts>> {
    let sql = format!(
        "SELECT t.table_schema, t.table_name, t.auto_increment, c.column_name, c.data_type \
         FROM information_schema.tables t JOIN information_schema.columns c \
           ON c.table_schema = t.table_schema AND c.table_name = t.table_name \
         WHERE c.extra LIKE '%auto_increment%' AND t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') \
           AND t.table_schema NOT IN {NOT_USERS}"
    );
    let mut found = Vec::new();
    for row in session.rows("reading the auto-increment counters", &sql).await? {
        let (database, table, column) = (row.text(0)?, row.text(1)?, row.text(3)?);
        let next: Option<u64> = row.parse_optional(2)?;
        let whole = !matches!(row.text(4)?, "float" | "double");
        found.push(SequenceFacts {
            name: TableName { database: database.to_owned(), schema: String::new(), table: table.to_owned() },
            last_value: next.map(|next| bounded(next.saturating_sub(1))),
            increment: 1,
            feeds: Some(format!("{database}.{table}.{column}")),
            farthest_fed: if whole { farthest(session, database, table, column).await? } else { None },
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The greatest value of a column; `None` also when it cannot be read, which digests and checks report by themselves.
async fn farthest(session: &Session, database: &str, table: &str, column: &str) -> Result<Option<i64>> {
    let sql = format!("SELECT MAX(t.{}) FROM {} AS t", identifier(column), qualified(database, table));
    match session.row("reading the greatest value of a column", &sql).await {
        // Negative ones are not given out.
        Ok(row) => Ok(row.optional(0).and_then(|text| text.parse::<u64>().ok()).map(bounded)),
        Err(error) if is_passing(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

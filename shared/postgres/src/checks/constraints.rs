//! Constraints proved again over all rows, without trusting an index.

use dr_core::Result;
use dr_core::proof::examination::{CheckOutcome, CheckSubject};

use super::refused;
use crate::session::Session;
use crate::text::{TextRow, identifier, qualified};

/// Runs a query that counts violations, with every use of an index switched off for it.
async fn violations(
    session: &Session,
    subject: &CheckSubject,
    sql: &str,
    what: &str,
) -> Result<CheckOutcome> {
    let guarded = format!(
        "BEGIN READ ONLY; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; \
         SET LOCAL enable_bitmapscan = off; {sql}; COMMIT"
    );
    match session.try_rows(&guarded).await {
        Ok(rows) => match rows.first().map(|row| row.parse::<u64>(0)).transpose()? {
            Some(0) => Ok(CheckOutcome::Sound),
            Some(count) => Ok(CheckOutcome::Faulty { messages: vec![format!("{count} {what}")] }),
            None => Err(crate::text::unexpected("no count of violations")),
        },
        Err(error) => {
            // The transaction is in a failed state; if even that fails, the connection is broken and says so next.
            let _ = session.try_rows("ROLLBACK").await;
            refused(session, subject, error)
        }
    }
}

fn gone() -> CheckOutcome {
    CheckOutcome::NotPossible { reason: "it is gone".to_owned() }
}

/// Every row that refers to something refers to something that is there.
pub(super) async fn foreign_key(session: &Session, subject: &CheckSubject) -> Result<CheckOutcome> {
    let period = if session.major() >= 18 { "k.conperiod" } else { "false" };
    let sql = format!(
        "SELECT cn.nspname, c.relname, c.relkind, fn.nspname, f.relname, f.relkind, k.confmatchtype, a.attname, \
           b.attname, on_.nspname, o.oprname, {period} \
         FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace \
           JOIN pg_class f ON f.oid = k.confrelid JOIN pg_namespace fn ON fn.oid = f.relnamespace \
           CROSS JOIN unnest(k.conkey, k.confkey, k.conpfeqop) WITH ORDINALITY AS u(own, other, op, place) \
           JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.own \
           JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = u.other \
           JOIN pg_operator o ON o.oid = u.op JOIN pg_namespace on_ ON on_.oid = o.oprnamespace \
         WHERE k.oid = {} ORDER BY u.place",
        subject.oid
    );
    let rows = session.catalogue_rows("reading a foreign key", &sql).await?;
    let Some(first) = rows.first() else { return Ok(gone()) };
    if first.flag(11)? {
        let reason = "a foreign key over periods is not proved again".to_owned();
        return Ok(CheckOutcome::NotPossible { reason });
    }
    let (own, other) = (relation(first, 0)?, relation(first, 3)?);
    let (mut equal, mut set) = (Vec::new(), Vec::new());
    for row in &rows {
        let (a, b) = (identifier(row.text(7)?), identifier(row.text(8)?));
        let operator = format!("OPERATOR({}.{})", identifier(row.text(9)?), row.text(10)?);
        equal.push(format!("p.{b} {operator} t.{a}"));
        set.push(format!("t.{a} IS NOT NULL"));
    }
    // MATCH FULL looks at rows with some NULLs, too; without any key column set there is nothing to refer to.
    let junction = if first.text(6)? == "f" { " OR " } else { " AND " };
    let sql = format!(
        "SELECT count(*) FROM {own} t WHERE ({}) AND NOT EXISTS (SELECT FROM {other} p WHERE {})",
        set.join(junction),
        equal.join(" AND ")
    );
    violations(session, subject, &sql, "rows refer to a row that is not there").await
}

/// A table in three columns of a row: schema, name, kind. Children by plain inheritance are not part of a constraint.
fn relation(row: &TextRow, column: usize) -> Result<String> {
    let only = if row.text(column + 2)? == "p" { "" } else { "ONLY " };
    Ok(format!("{only}{}", qualified(row.text(column)?, row.text(column + 1)?)))
}

/// No key is there twice.
pub(super) async fn unique(session: &Session, subject: &CheckSubject) -> Result<CheckOutcome> {
    let nulls = if session.major() >= 15 { "i.indnullsnotdistinct" } else { "false" };
    let sql = format!(
        "SELECT n.nspname, c.relname, pg_get_indexdef(i.indexrelid, place, true), \
           pg_get_expr(i.indpred, i.indrelid), {nulls} \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
           CROSS JOIN generate_series(1, i.indnkeyatts) AS place \
         WHERE i.indexrelid = {} ORDER BY place",
        subject.oid
    );
    let rows = session.catalogue_rows("reading a unique index", &sql).await?;
    let Some(first) = rows.first() else { return Ok(gone()) };
    let keys = rows.iter().map(|row| Ok(format!("({})", row.text(2)?))).collect::<Result<Vec<_>>>()?;
    let mut conditions = vec!["true".to_owned()];
    if !first.flag(4)? {
        conditions.extend(keys.iter().map(|key| format!("{key} IS NOT NULL")));
    }
    if let Some(predicate) = first.optional(3) {
        conditions.push(format!("({predicate})"));
    }
    let sql = format!(
        "SELECT count(*) FROM (SELECT FROM ONLY {} WHERE {} GROUP BY {} HAVING count(*) > 1) s",
        qualified(first.text(0)?, first.text(1)?),
        conditions.join(" AND "),
        keys.join(", ")
    );
    violations(session, subject, &sql, "keys are there more than once").await
}

//! Structural checks of a restore: `CHECK TABLE … EXTENDED`, and constraints proved again on request.
//!
//! `CHECK TABLE` reads every page of every index of a table and compares their entries with the rows. What it found is
//! reported in the server's words, which name pages and indexes and hold no values of rows.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_core::Result;
use dr_core::proof::examination::{Check, CheckKind, CheckOutcome, CheckResult, CheckSubject};
use dr_core::proof::frame::TableFacts;
use dr_database::pool::{self, Task, is_passing};
use dr_database::{Access, ConnectionSettings, Limits, Progress, Wishes};
use tokio::time::Instant;

use crate::catalogue::NOT_USERS;
use crate::error::{ServerSaid, server_error};
use crate::session::Session;
use crate::text::{identifier, literal, qualified, unexpected};

/// Messages kept of one subject.
const MESSAGES: usize = 10;
/// Subjects in one check at most.
const SUBJECTS: usize = 256;
/// What one subject costs at least, in bytes that could be checked meanwhile.
const SUBJECT_COST: u64 = 64 << 10;
/// How fast a check is taken to be at least, in bytes a second, to tell whether it still fits.
const SPEED: u64 = 20 << 20;

/// The checks of all tables, and of constraints where they are wished for.
///
/// # Errors
/// Of the connection or the queries.
pub async fn plan(session: &Session, tables: &[TableFacts], wishes: Wishes) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let mut sizes: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for table in tables {
        sizes.insert((&table.name.database, &table.name.table), table.bytes);
        let subject = subject(&table.name.table, &table.name.table, table.bytes);
        add(&mut checks, CheckKind::Table, &table.name.database, subject, wishes.unit_bytes);
    }
    let listed = async |kind, sql: String, checks: &mut Vec<Check>| -> Result<()> {
        for row in session.rows("listing what to check", &sql).await? {
            let (database, name, table) = (row.text(0)?, row.text(1)?, row.text(2)?);
            let bytes = sizes.get(&(database, table)).copied().unwrap_or(0);
            add(checks, kind, database, subject(name, table, bytes), wishes.unit_bytes);
        }
        Ok(())
    };
    if wishes.foreign_keys {
        let sql = format!(
            "SELECT constraint_schema, constraint_name, table_name FROM information_schema.referential_constraints \
             WHERE constraint_schema NOT IN {NOT_USERS} ORDER BY 1, 3, 2"
        );
        listed(CheckKind::ForeignKey, sql, &mut checks).await?;
    }
    if wishes.unique_constraints {
        let sql = format!(
            "SELECT table_schema, index_name, table_name FROM information_schema.statistics \
             WHERE non_unique = 0 AND seq_in_index = 1 AND table_schema NOT IN {NOT_USERS} ORDER BY 1, 3, 2"
        );
        listed(CheckKind::Unique, sql, &mut checks).await?;
    }
    Ok(checks)
}

fn subject(name: &str, table: &str, bytes: u64) -> CheckSubject {
    CheckSubject { oid: 0, name: name.to_owned(), table: table.to_owned(), bytes, blocks: None }
}

/// Puts a subject into the last check where it fits, else into a new one.
fn add(checks: &mut Vec<Check>, kind: CheckKind, database: &str, subject: CheckSubject, unit_bytes: u64) {
    let cost = |subject: &CheckSubject| subject.bytes + SUBJECT_COST;
    let fits = checks.last().is_some_and(|check| {
        let full: u64 = check.subjects.iter().map(cost).sum();
        check.kind == kind
            && check.database == database
            && check.subjects.len() < SUBJECTS
            && full + cost(&subject) <= unit_bytes
    });
    match checks.last_mut() {
        Some(check) if fits => check.subjects.push(subject),
        _ => {
            let id = u32::try_from(checks.len()).unwrap_or(u32::MAX);
            checks.push(Check { id, database: database.to_owned(), kind, subjects: vec![subject] });
        }
    }
}

/// Makes checks over several connections until all are made or time is up; each result goes to `store` at once.
///
/// A check that had nearly all of the time and did not finish ends as not possible, with that as its reason.
///
/// # Errors
/// Of the connection when it cannot be kept up; whatever `store` answers. A check that cannot be made is no error: it
/// is its outcome.
pub async fn run_checks<S, F>(
    settings: &ConnectionSettings,
    checks: Vec<Check>,
    limits: Limits,
    store: S,
) -> Result<Progress>
where
    S: Fn(CheckResult) -> F,
    F: Future<Output = Result<()>>,
{
    let tasks = checks.into_iter().map(|check| CheckTask { check }).collect();
    pool::run(settings, tasks, limits, store).await
}

struct CheckTask {
    check: Check,
}

#[derive(Default)]
struct CheckState {
    outcomes: Vec<(CheckSubject, CheckOutcome)>,
    crashes: u32,
    spent: Duration,
}

impl Task for CheckTask {
    type Connection = Session;
    type Output = CheckResult;
    type State = CheckState;

    fn database(&self) -> &str {
        &self.check.database
    }

    fn access(&self) -> Access {
        Access::ReadWrite
    }

    fn estimate(&self) -> Duration {
        let bytes: u64 = self.check.subjects.iter().map(|subject| subject.bytes).sum();
        Duration::from_secs(bytes / SPEED)
    }

    async fn run(&self, session: &Session, state: &mut CheckState, crashed: bool) -> Result<CheckResult> {
        let begun = Instant::now();
        state.crashes += u32::from(crashed);
        let done = self.make(session, state).await;
        state.spent += begun.elapsed();
        done?;
        Ok(self.result(std::mem::take(&mut state.outcomes), state.spent))
    }

    fn expired(&self, after: Duration) -> Option<CheckResult> {
        let reason = format!("it did not finish within {} s", after.as_secs());
        let outcome = CheckOutcome::NotPossible { reason };
        let outcomes = self.check.subjects.iter().map(|subject| (subject.clone(), outcome.clone())).collect();
        Some(self.result(outcomes, after))
    }
}

impl CheckTask {
    fn result(&self, outcomes: Vec<(CheckSubject, CheckOutcome)>, took: Duration) -> CheckResult {
        CheckResult {
            check: self.check.id,
            kind: self.check.kind,
            outcomes,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }

    async fn make(&self, session: &Session, state: &mut CheckState) -> Result<()> {
        while let Some(subject) = self.check.subjects.get(state.outcomes.len()) {
            let database = self.check.database.as_str();
            let outcome = if state.crashes >= 2 {
                CheckOutcome::Faulty {
                    messages: vec!["the server crashed twice while it was checked".to_owned()],
                }
            } else {
                match self.check.kind {
                    CheckKind::Table => check_table(session, database, subject).await?,
                    CheckKind::ForeignKey => foreign_key(session, database, subject).await?,
                    CheckKind::Unique => unique(session, database, subject).await?,
                    CheckKind::Heap | CheckKind::BTree => {
                        CheckOutcome::NotPossible { reason: "MySQL has no such check".to_owned() }
                    }
                }
            };
            state.outcomes.push((subject.clone(), outcome));
            state.crashes = 0;
        }
        Ok(())
    }
}

async fn check_table(session: &Session, database: &str, subject: &CheckSubject) -> Result<CheckOutcome> {
    let sql = format!("CHECK TABLE {} EXTENDED", qualified(database, &subject.name));
    let rows = match session.try_rows(&sql).await {
        Ok(rows) => rows,
        Err(error) => return refused(session, subject, &error),
    };
    // Table, operation, kind (`status`, `error`, `warning`, `note`, `info`), text.
    let mut messages = Vec::new();
    let mut unsupported = None;
    for row in &rows {
        let (kind, text) = (row.optional(2).unwrap_or_default(), row.optional(3).unwrap_or_default());
        let said = || text.chars().take(300).collect::<String>();
        match kind.to_ascii_lowercase().as_str() {
            "status" if text == "OK" || text.starts_with("Table is already up to date") => {}
            "note" if text.contains("doesn't support check") => unsupported = Some(said()),
            "note" | "info" => {}
            _ => messages.push(format!("{kind}: {}", said())),
        }
    }
    messages.truncate(MESSAGES);
    Ok(match unsupported {
        _ if !messages.is_empty() => CheckOutcome::Faulty { messages },
        Some(reason) => CheckOutcome::NotPossible { reason },
        None if rows.is_empty() => CheckOutcome::NotPossible { reason: "the server said nothing".to_owned() },
        None => CheckOutcome::Sound,
    })
}

/// Every row that refers to something refers to something that is there.
async fn foreign_key(session: &Session, database: &str, subject: &CheckSubject) -> Result<CheckOutcome> {
    let sql = format!(
        "SELECT column_name, referenced_table_schema, referenced_table_name, referenced_column_name \
         FROM information_schema.key_column_usage WHERE constraint_schema = {} AND constraint_name = {} \
           AND table_name = {} AND referenced_table_name IS NOT NULL ORDER BY ordinal_position",
        literal(database),
        literal(&subject.name),
        literal(&subject.table)
    );
    let rows = session.rows("reading a foreign key", &sql).await?;
    let Some(first) = rows.first() else { return Ok(gone()) };
    let parent = qualified(first.text(1)?, first.text(2)?);
    let (mut set, mut equal) = (Vec::new(), Vec::new());
    for row in &rows {
        let own = identifier(row.text(0)?);
        set.push(format!("c.{own} IS NOT NULL"));
        equal.push(format!("p.{} = c.{own}", identifier(row.text(3)?)));
    }
    let sql = format!(
        "SELECT COUNT(*) FROM {} AS c USE INDEX () WHERE {} AND NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {})",
        qualified(database, &subject.table),
        set.join(" AND "),
        equal.join(" AND ")
    );
    violations(session, subject, &sql, "rows refer to a row that is not there").await
}

/// No key is there twice, by the rows and not by the index.
async fn unique(session: &Session, database: &str, subject: &CheckSubject) -> Result<CheckOutcome> {
    let sql = format!(
        "SELECT column_name, sub_part FROM information_schema.statistics WHERE table_schema = {} \
         AND table_name = {} AND index_name = {} ORDER BY seq_in_index",
        literal(database),
        literal(&subject.table),
        literal(&subject.name)
    );
    let rows = session.rows("reading a unique index", &sql).await?;
    if rows.is_empty() {
        return Ok(gone());
    }
    let mut keys = Vec::new();
    for row in &rows {
        // An index over an expression has no column.
        let Some(column) = row.optional(0) else {
            let reason = "an index over expressions is not proved again".to_owned();
            return Ok(CheckOutcome::NotPossible { reason });
        };
        let name = format!("t.{}", identifier(column));
        keys.push(match row.parse_optional::<u32>(1)? {
            Some(length) => format!("LEFT({name}, {length})"),
            None => name,
        });
    }
    let set: Vec<String> = keys.iter().map(|key| format!("{key} IS NOT NULL")).collect();
    let sql = format!(
        "SELECT COUNT(*) FROM (SELECT 1 FROM {} AS t USE INDEX () WHERE {} GROUP BY {} HAVING COUNT(*) > 1) AS d",
        qualified(database, &subject.table),
        set.join(" AND "),
        keys.join(", ")
    );
    violations(session, subject, &sql, "keys are there more than once").await
}

fn gone() -> CheckOutcome {
    CheckOutcome::NotPossible { reason: "it is gone".to_owned() }
}

async fn violations(
    session: &Session,
    subject: &CheckSubject,
    sql: &str,
    what: &str,
) -> Result<CheckOutcome> {
    match session.try_rows(sql).await {
        Ok(rows) => match rows.first().map(|row| row.parse::<u64>(0)).transpose()? {
            Some(0) => Ok(CheckOutcome::Sound),
            Some(count) => Ok(CheckOutcome::Faulty { messages: vec![format!("{count} {what}")] }),
            None => Err(unexpected("no count of violations")),
        },
        Err(error) => refused(session, subject, &error),
    }
}

/// What an error of a check means: a fault that it found, a check that cannot be made, or trouble of the connection.
fn refused(session: &Session, subject: &CheckSubject, error: &mysql_async::Error) -> Result<CheckOutcome> {
    let said = server_error(error).map(ServerSaid::of);
    let fault = session.fault(&format!("checking {}", subject.name), error);
    let Some(said) = said else { return Err(fault) };
    if is_passing(&fault) {
        return Err(fault);
    }
    // Files that are crashed, wrong or absent, and engines that failed.
    let damage = [126, 127, 144, 145, 1016, 1017, 1030, 1033, 1034, 1035, 1194, 1195, 1712, 1877, 1932];
    Ok(if damage.contains(&said.number) {
        CheckOutcome::Faulty { messages: vec![said.to_string()] }
    } else {
        CheckOutcome::NotPossible { reason: said.to_string() }
    })
}

//! Structural checks of a restore: amcheck over heaps and B-trees, and constraints proved again on request.
//!
//! System catalogues and TOAST tables are checked as well: a restore whose catalogue is damaged is no backup. What a
//! check found is reported in the server's words, which for these checks hold block numbers and transaction ids but
//! no values of rows. Index kinds other than B-tree have no checker in PostgreSQL 14 to 18.

use std::time::Duration;

use dr_core::Result;
use dr_core::proof::examination::{Check, CheckKind, CheckOutcome, CheckResult, CheckSubject};
use tokio::time::Instant;

use crate::catalogue::USER_SCHEMA;
use crate::error::{ServerSaid, is_passing, sqlstate};
use crate::session::Session;
use crate::text::{TextRow, identifier};
use dr_database::Wishes;
use dr_database::pool::{self, Task};
use dr_database::{Access, ConnectionSettings, Limits, Progress};

mod constraints;

/// Messages kept of one subject.
const MESSAGES: usize = 10;
/// Subjects in one check at most.
const SUBJECTS: usize = 256;
/// What one subject costs at least, in bytes that could be checked meanwhile.
const SUBJECT_COST: u64 = 64 << 10;
/// How fast a check is taken to be at least, in bytes a second, to tell whether it still fits.
const SPEED: u64 = 20 << 20;

/// Adds the checks of the session's database to `checks`, numbered on.
///
/// # Errors
/// Of the connection or the queries.
pub async fn plan(session: &Session, wishes: Wishes, checks: &mut Vec<Check>) -> Result<()> {
    let unit_bytes = wishes.unit_bytes;
    group(session, CheckKind::Heap, heaps(session, unit_bytes).await?, unit_bytes, checks);
    group(session, CheckKind::BTree, listed(session, B_TREES).await?, unit_bytes, checks);
    if wishes.foreign_keys {
        group(session, CheckKind::ForeignKey, listed(session, FOREIGN_KEYS).await?, unit_bytes, checks);
    }
    if wishes.unique_constraints {
        let sql = format!("{UNIQUE} AND {USER_SCHEMA} ORDER BY c.oid");
        group(session, CheckKind::Unique, listed(session, &sql).await?, unit_bytes, checks);
    }
    Ok(())
}

/// Owner of a TOAST table `c`, else `c` itself; as `schema.table`.
const OWNER: &str = "coalesce((SELECT format('%s.%s', k.nspname, o.relname) FROM pg_class o \
    JOIN pg_namespace k ON k.oid = o.relnamespace WHERE o.reltoastrelid = c.oid), format('%s.%s', n.nspname, c.relname))";

const B_TREES: &str = "SELECT x.oid, format('%s.%s', n.nspname, x.relname), \
      coalesce((SELECT format('%s.%s', k.nspname, o.relname) FROM pg_class o JOIN pg_namespace k \
        ON k.oid = o.relnamespace WHERE o.reltoastrelid = c.oid), format('%s.%s', n.nspname, c.relname)), \
      pg_relation_size(x.oid) + pg_relation_size(c.oid) \
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid \
    JOIN pg_namespace n ON n.oid = x.relnamespace JOIN pg_am m ON m.oid = x.relam \
    WHERE m.amname = 'btree' AND x.relkind = 'i' AND x.relpersistence = 'p' AND i.indisvalid AND i.indisready \
    ORDER BY x.oid";

const FOREIGN_KEYS: &str = "SELECT k.oid, format('%s.%s', n.nspname, k.conname), \
      format('%s.%s', cn.nspname, c.relname), pg_table_size(k.conrelid) + pg_table_size(k.confrelid) \
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace JOIN pg_class c ON c.oid = k.conrelid \
    JOIN pg_namespace cn ON cn.oid = c.relnamespace \
    WHERE k.contype = 'f' AND k.conparentid = 0 AND k.convalidated AND c.relpersistence = 'p' ORDER BY k.oid";

const UNIQUE: &str = "SELECT x.oid, format('%s.%s', n.nspname, x.relname), format('%s.%s', cn.nspname, c.relname), \
      pg_table_size(c.oid) \
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid \
    JOIN pg_namespace cn ON cn.oid = c.relnamespace JOIN pg_namespace n ON n.oid = x.relnamespace \
    WHERE i.indisunique AND i.indisvalid AND x.relkind = 'i' AND x.relpersistence = 'p'";

async fn listed(session: &Session, sql: &str) -> Result<Vec<CheckSubject>> {
    let rows = session.catalogue_rows("listing what to check", sql).await?;
    rows.iter().map(|row| subject(row, None)).collect()
}

fn subject(row: &TextRow, blocks: Option<(u32, Option<u32>)>) -> Result<CheckSubject> {
    Ok(CheckSubject {
        oid: row.parse(0)?,
        name: row.text(1)?.to_owned(),
        table: row.text(2)?.to_owned(),
        bytes: row.parse_optional(3)?.unwrap_or(0),
        blocks,
    })
}

/// Heaps with their TOAST tables as subjects of their own; large ones in ranges of blocks.
async fn heaps(session: &Session, unit_bytes: u64) -> Result<Vec<CheckSubject>> {
    let sql = format!(
        "SELECT c.oid, format('%s.%s', n.nspname, c.relname), {OWNER}, pg_relation_size(c.oid) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am m ON m.oid = c.relam \
         WHERE m.amname = 'heap' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' ORDER BY c.oid"
    );
    let mut subjects = Vec::new();
    for row in session.catalogue_rows("listing what to check", &sql).await? {
        let whole = subject(&row, None)?;
        let step = u32::try_from((unit_bytes / 8192).max(1)).unwrap_or(u32::MAX);
        let blocks = u32::try_from(whole.bytes / 8192).unwrap_or(u32::MAX);
        if blocks <= step {
            subjects.push(whole);
            continue;
        }
        let mut first = 0;
        while first < blocks {
            let end = (blocks - first > step).then(|| first + step);
            let bytes = u64::from(end.unwrap_or(blocks) - first) * 8192;
            subjects.push(CheckSubject { bytes, blocks: Some((first, end)), ..whole.clone() });
            first = end.unwrap_or(blocks);
        }
    }
    Ok(subjects)
}

fn group(
    session: &Session,
    kind: CheckKind,
    subjects: Vec<CheckSubject>,
    unit_bytes: u64,
    checks: &mut Vec<Check>,
) {
    let mut room = 0;
    let mut open = false;
    for subject in subjects {
        let cost = subject.bytes + SUBJECT_COST;
        match checks.last_mut() {
            Some(check) if open && cost <= room && check.subjects.len() < SUBJECTS => {
                check.subjects.push(subject);
            }
            _ => {
                let id = u32::try_from(checks.len()).unwrap_or(u32::MAX);
                let database = session.settings().database.clone();
                checks.push(Check { id, database, kind, subjects: vec![subject] });
                room = unit_bytes;
                open = true;
            }
        }
        room = room.saturating_sub(cost);
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
        if crashed {
            state.crashes += 1;
        }
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
        let amcheck = match self.check.kind {
            CheckKind::Heap | CheckKind::BTree => Some(amcheck_schema(session).await?),
            CheckKind::ForeignKey | CheckKind::Unique | CheckKind::Table => None,
        };
        let depth = match self.check.kind {
            CheckKind::BTree => Depth::allowed_in(session).await?,
            _ => Depth::WithParents,
        };
        while let Some(subject) = self.check.subjects.get(state.outcomes.len()) {
            let outcome = if state.crashes >= 2 {
                CheckOutcome::Faulty {
                    messages: vec!["the server crashed twice while it was checked".to_owned()],
                }
            } else {
                match (&amcheck, self.check.kind) {
                    (Some(Err(reason)), _) => CheckOutcome::NotPossible { reason: reason.clone() },
                    (Some(Ok(schema)), CheckKind::Heap) => heap(session, schema, subject).await?,
                    (Some(Ok(schema)), _) => b_tree(session, schema, subject, depth).await?,
                    (None, CheckKind::Table) => {
                        CheckOutcome::NotPossible { reason: "PostgreSQL has no CHECK TABLE".to_owned() }
                    }
                    (None, CheckKind::ForeignKey) => constraints::foreign_key(session, subject).await?,
                    (None, _) => constraints::unique(session, subject).await?,
                }
            };
            state.outcomes.push((subject.clone(), outcome));
            state.crashes = 0;
        }
        Ok(())
    }
}

/// The schema that amcheck is installed in, quoted, after installing it if need be; or why there is none.
async fn amcheck_schema(session: &Session) -> Result<std::result::Result<String, String>> {
    let doing = "looking for amcheck";
    let sql = "SELECT n.nspname FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace \
               WHERE x.extname = 'amcheck'";
    if let Some(row) = session.rows(doing, sql).await?.first() {
        return Ok(Ok(identifier(row.text(0)?)));
    }
    // `public` may be absent or closed; a schema of its own is neither.
    let create =
        "CREATE SCHEMA IF NOT EXISTS lifeboat; CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA lifeboat";
    let failed = session.try_rows(create).await.err();
    // Another connection may have been quicker.
    if let Some(row) = session.rows(doing, sql).await?.first() {
        return Ok(Ok(identifier(row.text(0)?)));
    }
    match failed {
        Some(error) => {
            let reason = match sqlstate(&error) {
                Some(code) => format!("the extension amcheck cannot be created (SQLSTATE {code})"),
                None => return Err(session.fault("creating amcheck", error)),
            };
            Ok(Err(reason))
        }
        None => Ok(Err("the extension amcheck is absent after it was created".to_owned())),
    }
}

async fn heap(session: &Session, amcheck: &str, subject: &CheckSubject) -> Result<CheckOutcome> {
    let mut blocks = subject.blocks;
    loop {
        match session.try_rows(&verify_heap(amcheck, subject.oid, blocks)).await {
            Ok(rows) => return Ok(found_in_heap(&rows)),
            Err(error) if sqlstate(&error) == Some("22023") && blocks.is_some() => {
                // Autovacuum cuts empty blocks off the end of a table, also on a restore: what is out of range now
                // holds nothing any more.
                let now = blocks_now(session, subject.oid).await?;
                let cut = match (blocks, now) {
                    (Some((first, _)), Some(now)) if first >= now => return Ok(CheckOutcome::Sound),
                    (Some((first, Some(end))), Some(now)) if end > now => Some((first, None)),
                    _ => return refused(session, subject, error),
                };
                blocks = cut;
            }
            Err(error) => return refused(session, subject, error),
        }
    }
}

/// How many blocks a relation has now; `None` when it is gone.
async fn blocks_now(session: &Session, oid: u32) -> Result<Option<u32>> {
    let sql = format!("SELECT pg_relation_size({oid}) / current_setting('block_size')::bigint");
    session.row("looking at a table's size", &sql).await?.parse_optional(0)
}

/// SQL: the heap verified, in a range of blocks or whole.
fn verify_heap(amcheck: &str, oid: u32, blocks: Option<(u32, Option<u32>)>) -> String {
    let bounds = match blocks {
        None => String::new(),
        Some((first, end)) => {
            let last =
                end.map_or_else(|| "NULL".to_owned(), |end| (u64::from(end).saturating_sub(1)).to_string());
            format!(", startblock => {first}, endblock => {last}")
        }
    };
    format!(
        "SELECT v.blkno, v.offnum, v.attnum, v.msg FROM {amcheck}.verify_heapam({oid}::oid::regclass, \
         on_error_stop => false, check_toast => true, skip => 'none'{bounds}) v LIMIT {MESSAGES}"
    )
}

fn found_in_heap(rows: &[TextRow]) -> CheckOutcome {
    let messages: Vec<String> = rows
        .iter()
        .map(|row| {
            let place = [("block", 0), ("item", 1), ("column", 2)]
                .into_iter()
                .filter_map(|(what, column)| Some(format!("{what} {}", row.optional(column)?)))
                .collect::<Vec<_>>()
                .join(", ");
            format!("{place}: {}", row.optional(3).unwrap_or_default())
        })
        .collect();
    if messages.is_empty() { CheckOutcome::Sound } else { CheckOutcome::Faulty { messages } }
}

/// How deep B-trees are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// With the order between pages and their parents, which needs the table locked against writing.
    WithParents,
    /// Page by page and against the heap: all that a reader's lock allows.
    PageByPage,
}

impl Depth {
    /// A transaction that was prepared at the snapshot is prepared on the restore too, and keeps its locks on what it
    /// wrote until somebody ends it.
    async fn allowed_in(session: &Session) -> Result<Self> {
        let sql = "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())";
        let prepared = session.row("looking for prepared transactions", sql).await?.flag(0)?;
        Ok(if prepared { Self::PageByPage } else { Self::WithParents })
    }
}

async fn b_tree(
    session: &Session,
    amcheck: &str,
    subject: &CheckSubject,
    depth: Depth,
) -> Result<CheckOutcome> {
    let (function, descend) = match depth {
        Depth::WithParents => ("bt_index_parent_check", ", rootdescend => false"),
        Depth::PageByPage => ("bt_index_check", ""),
    };
    let unique = if session.major() >= 17 { ", checkunique => true" } else { "" };
    let sql = format!(
        "SELECT {amcheck}.{function}({}::oid::regclass, heapallindexed => true{descend}{unique})",
        subject.oid
    );
    match session.try_rows(&sql).await {
        Ok(_) => Ok(CheckOutcome::Sound),
        Err(error) => refused(session, subject, error),
    }
}

/// What an error of a check means: a fault that it found, a check that cannot be made, or trouble of the connection.
fn refused(session: &Session, subject: &CheckSubject, error: tokio_postgres::Error) -> Result<CheckOutcome> {
    let said = error.as_db_error().map(ServerSaid::of);
    let fault = session.fault(&format!("checking {}", subject.name), error);
    let Some(said) = said else { return Err(fault) };
    if is_passing(&fault) {
        return Err(fault);
    }
    let damage = ["XX", "58", "54", "22"].iter().any(|class| said.sqlstate.starts_with(class));
    Ok(if damage {
        CheckOutcome::Faulty { messages: vec![said.to_string()] }
    } else {
        CheckOutcome::NotPossible { reason: said.to_string() }
    })
}

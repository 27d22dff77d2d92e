//! Reading units: the digests of their slices, each by a statement of its own.

use std::time::Duration;

use dr_core::proof::Digest;
use dr_core::proof::cut::cost;
use dr_core::proof::frame::{Slice, SliceOutcome, SliceResult, TableFacts, Unit, UnitResult, Visibility};
use dr_core::{DrError, ErrorName, Result};
use dr_database::pool::{self, Task, is_passing};
use dr_database::{Access, ConnectionSettings, Limits, Pace, Progress};
use tokio::time::Instant;

use crate::catalogue::server::moment;
use crate::digest::{digest_of, query};
use crate::error::{ServerSaid, server_error};
use crate::session::Session;

/// What every digest speaks of: all rows that are there when it is taken.
pub fn visibility() -> Visibility {
    Visibility { snapshot: String::new(), below_xmin_only: false }
}

/// Reads units over several connections until all are read or time is up; each result goes to `store` at once.
/// Slices refer to `tables`.
///
/// # Errors
/// Of the connection when it cannot be kept up; `PermissionMissing`; whatever `store` answers. A slice that the server
/// cannot read is no error: it is the slice's outcome.
pub async fn read_units<S, F>(
    settings: &ConnectionSettings,
    tables: &[TableFacts],
    units: Vec<Unit>,
    limits: Limits,
    pace: Option<&Pace>,
    store: S,
) -> Result<Progress>
where
    S: Fn(UnitResult) -> F,
    F: Future<Output = Result<()>>,
{
    let tasks = units.into_iter().map(|unit| UnitTask { unit, tables, pace }).collect();
    pool::run(settings, tasks, limits, store).await
}

struct UnitTask<'u> {
    unit: Unit,
    tables: &'u [TableFacts],
    pace: Option<&'u Pace>,
}

#[derive(Default)]
struct UnitState {
    slices: Vec<SliceResult>,
    crashes: u32,
    spent: Duration,
}

impl Task for UnitTask<'_> {
    type Connection = Session;
    type Output = UnitResult;
    type State = UnitState;

    fn database(&self) -> &str {
        &self.unit.database
    }

    fn access(&self) -> Access {
        Access::ReadOnly
    }

    async fn run(&self, session: &Session, state: &mut UnitState, crashed: bool) -> Result<UnitResult> {
        let begun = Instant::now();
        state.crashes += u32::from(crashed);
        let done = self.read(session, state).await;
        state.spent += begun.elapsed();
        let finished_at = done?;
        Ok(UnitResult {
            unit: self.unit.id,
            visibility: visibility(),
            slices: std::mem::take(&mut state.slices),
            finished_at,
            took_ms: u64::try_from(state.spent.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl UnitTask<'_> {
    async fn read(&self, session: &Session, state: &mut UnitState) -> Result<jiff::Timestamp> {
        while let Some(slice) = self.unit.slices.get(state.slices.len()) {
            let outcome = if state.crashes >= 2 {
                SliceOutcome::Unreadable {
                    sqlstate: "HY000".to_owned(),
                    message: "the server crashed twice while it was read".to_owned(),
                }
            } else {
                self.slice(session, *slice).await?
            };
            let newer_rows = matches!(outcome, SliceOutcome::Digested(_)).then_some(0);
            state.slices.push(SliceResult { slice: *slice, outcome, newer_rows });
            state.crashes = 0;
        }
        let clock = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";
        moment(session.row("reading the clock", clock).await?.parse(0)?)
    }

    async fn slice(&self, session: &Session, slice: Slice) -> Result<SliceOutcome> {
        let found = self.tables.get(slice.table).and_then(|table| Some((table, table.keyed.as_ref()?)));
        let (table, facts) = found.ok_or_else(|| {
            DrError::new(ErrorName::MetadataDamaged, format!("reading unit {}: no such table", self.unit.id))
        })?;
        if let Some(pace) = self.pace {
            pace.wait_for(cost(table, 1)).await;
        }
        // About: a row has some 100 bytes.
        let sql = query(table, facts, slice, table.bytes / 100);
        let mut attempt = 0;
        loop {
            let error = match session.try_rows(&sql).await {
                Ok(rows) => return answer(table, rows.first()),
                Err(error) => error,
            };
            let said = server_error(&error).map(ServerSaid::of);
            let fault = session.fault(&format!("reading {}", table.name), &error);
            let Some(said) = said else { return Err(fault) };
            match said.number {
                // No such database, table or column any more.
                1049 | 1051 | 1054 | 1146 => return Ok(SliceOutcome::Gone),
                _ if is_passing(&fault) || fault.name() == ErrorName::PermissionMissing => return Err(fault),
                _ if attempt < 1 => attempt += 1,
                _ => {
                    return Ok(SliceOutcome::Unreadable {
                        sqlstate: said.number.to_string(),
                        message: said.message,
                    });
                }
            }
        }
    }
}

fn answer(table: &TableFacts, row: Option<&crate::text::TextRow>) -> Result<SliceOutcome> {
    let row = row.ok_or_else(|| crate::text::unexpected("no digest"))?;
    let (digest, unhashed): (Digest, u64) = digest_of(row)?;
    if unhashed == 0 {
        return Ok(SliceOutcome::Digested(digest));
    }
    let what = format!("reading {}: {unhashed} rows cannot be hashed", table.name);
    Err(DrError::new(ErrorName::QueryFailed, what).with_remedy(
        "Their values together are longer than `max_allowed_packet`: raise it in the parameter group.",
    ))
}

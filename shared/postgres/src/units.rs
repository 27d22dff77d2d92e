//! Reading units: the digests of their slices.
//!
//! Every slice is a statement of its own, in no longer transaction, although a unit speaks of one moment. That is
//! sound because of the horizon (see [`dr_core::proof::visibility`]): a row below it that is still there later was
//! there all the time. So a frame holds no snapshot, no lock and no horizon of vacuum for longer than a slice takes.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_core::proof::Digest;
use dr_core::proof::cut::{UNIT_BYTES, blocks_within, cost};
use dr_core::proof::frame::{Slice, SliceOutcome, SliceResult, TableFacts, Unit, UnitResult, Visibility};
use dr_core::proof::visibility::Horizon;
use dr_core::{DrError, ErrorName, Result};
use tokio::time::Instant;

use crate::catalogue::server::moment;
use crate::digest::{LiveTable, digest_at, live_tables, query};
use crate::error::{ServerSaid, is_passing};
use crate::session::{AFTER_A_RACE, MOST_RACES, Session, lost_a_race};
use dr_database::pool::{self, Task};
use dr_database::{Access, ConnectionSettings, Limits, Pace, Progress};

/// Columns of tables that are looked up together: a unit may hold 256 tables, each of up to 1,600 columns, and what is
/// known of so many would take hundreds of megabytes.
const COLUMNS_AT_ONCE: usize = 8_000;

/// A unit to read, and the rows to speak of: all of them when absent.
#[derive(Debug, Clone)]
pub struct UnitWork {
    /// The unit.
    pub unit: Unit,
    /// Its visibility.
    pub visibility: Option<Visibility>,
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
    work: Vec<UnitWork>,
    limits: Limits,
    pace: Option<&Pace>,
    store: S,
) -> Result<Progress>
where
    S: Fn(UnitResult) -> F,
    F: Future<Output = Result<()>>,
{
    let tasks = work.into_iter().map(|work| UnitTask { work, tables, pace }).collect();
    pool::run(settings, tasks, limits, store).await
}

struct UnitTask<'u> {
    work: UnitWork,
    tables: &'u [TableFacts],
    pace: Option<&'u Pace>,
}

#[derive(Default)]
struct UnitState {
    visibility: Option<Visibility>,
    slices: Vec<SliceResult>,
    crashes: u32,
    spent: Duration,
}

impl Task for UnitTask<'_> {
    type Connection = Session;
    type Output = UnitResult;
    type State = UnitState;

    fn database(&self) -> &str {
        &self.work.unit.database
    }

    fn access(&self) -> Access {
        Access::ReadOnly
    }

    async fn run(&self, session: &Session, state: &mut UnitState, crashed: bool) -> Result<UnitResult> {
        let begun = Instant::now();
        if crashed {
            state.crashes += 1;
        }
        let done = self.read(session, state).await;
        state.spent += begun.elapsed();
        let finished_at = done?;
        Ok(UnitResult {
            unit: self.work.unit.id,
            visibility: state.visibility.clone().unwrap_or_else(|| Visibility::below_xmin_of("")),
            slices: std::mem::take(&mut state.slices),
            finished_at,
            took_ms: u64::try_from(state.spent.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl UnitTask<'_> {
    async fn read(&self, session: &Session, state: &mut UnitState) -> Result<jiff::Timestamp> {
        let horizon = self.horizon(session, state).await?;
        let slices = &self.work.unit.slices;
        let facts = |slice: &Slice| {
            self.tables.get(slice.table).ok_or_else(|| {
                DrError::new(
                    ErrorName::MetadataDamaged,
                    format!("reading unit {}: no such table", self.work.unit.id),
                )
            })
        };
        let oids =
            slices.iter().map(|slice| facts(slice).map(|table| table.oid)).collect::<Result<Vec<_>>>()?;
        let columns = slices
            .iter()
            .map(|slice| facts(slice).map(|table| table.columns.len() + 1))
            .collect::<Result<Vec<_>>>()?;
        let (mut live, mut known) = (BTreeMap::new(), 0);
        while let Some(slice) = slices.get(state.slices.len()) {
            let next = state.slices.len();
            if next >= known {
                let rest = columns.get(next..).unwrap_or_default();
                known = next + batch(rest, COLUMNS_AT_ONCE);
                live = live_tables(session, oids.get(next..known).unwrap_or_default()).await?;
            }
            let result = if state.crashes >= 2 {
                SliceResult { slice: *slice, outcome: crashed_twice(), newer_rows: None }
            } else {
                let reader = SliceReader { session, facts: facts(slice)?, horizon, pace: self.pace };
                reader.read(*slice, &mut live).await?
            };
            state.slices.push(result);
            state.crashes = 0;
        }
        let clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        moment(session.row("reading the clock", clock).await?.parse(0)?)
    }

    /// The horizon to read under, and the visibility to record.
    async fn horizon(&self, session: &Session, state: &mut UnitState) -> Result<Option<Horizon>> {
        let sql = "SELECT s, pg_snapshot_xmax(s) FROM pg_current_snapshot() AS s";
        let row = session.row("reading the current snapshot", sql).await?;
        let Some(visibility) = &self.work.visibility else {
            let everything = Visibility { snapshot: row.text(0)?.to_owned(), below_xmin_only: false };
            state.visibility.get_or_insert(everything);
            return Ok(None);
        };
        let unit = self.work.unit.id;
        let horizon = visibility.horizon().ok_or_else(|| {
            DrError::new(
                ErrorName::MetadataDamaged,
                format!("reading unit {unit}: its visibility is malformed"),
            )
        })?;
        if !horizon.reaches(row.parse(1)?) {
            let what = format!("reading unit {unit}: too many transactions have passed since the frame");
            return Err(DrError::new(ErrorName::FrameMissing, what));
        }
        state.visibility = Some(visibility.clone());
        Ok(Some(horizon))
    }
}

/// How many of the next tables, by their numbers of columns, are looked up together: one at least.
fn batch(columns: &[usize], most: usize) -> usize {
    let fitting = columns.iter().scan(0, |sum, columns| {
        *sum += columns;
        (*sum <= most).then_some(())
    });
    fitting.count().max(1)
}

fn crashed_twice() -> SliceOutcome {
    SliceOutcome::Unreadable {
        sqlstate: "57P02".to_owned(),
        message: "the server crashed twice while it was read".to_owned(),
    }
}

struct SliceReader<'r> {
    session: &'r Session,
    facts: &'r TableFacts,
    horizon: Option<Horizon>,
    pace: Option<&'r Pace>,
}

impl SliceReader<'_> {
    async fn read(&self, slice: Slice, live: &mut BTreeMap<u32, LiveTable>) -> Result<SliceResult> {
        let result = |outcome, newer_rows| SliceResult { slice, outcome, newer_rows };
        let oid = self.facts.oid;
        let mut attempt = 0;
        loop {
            let Some(table) = live.get(&oid) else { return Ok(result(SliceOutcome::Gone, None)) };
            let error = match self.digests(table, slice).await {
                Ok(digests) => {
                    let (framed, newer) = digests?;
                    return Ok(result(SliceOutcome::Digested(framed), Some(newer)));
                }
                Err(error) => error,
            };
            let said = error.as_db_error().map(ServerSaid::of);
            let doing = format!("reading {}", self.facts.name);
            let fault = self.session.fault(&doing, error);
            let Some(said) = said else { return Err(fault) };
            if is_passing(&fault) || fault.name() == ErrorName::PermissionMissing {
                return Err(fault);
            }
            if said.sqlstate == "55000" {
                // A materialised view that was emptied since.
                return Ok(result(SliceOutcome::Gone, None));
            }
            // A table that was renamed, altered or dropped since it was looked up fails in many ways.
            attempt += 1;
            let columns = &self.facts.columns;
            let old = (table.qualified(), table.filenode, table.row(columns));
            live.remove(&oid);
            live.extend(live_tables(self.session, &[oid]).await?);
            let changed =
                live.get(&oid).is_none_or(|new| old != (new.qualified(), new.filenode, new.row(columns)));
            let raced = changed || lost_a_race(&said.sqlstate);
            if attempt >= MOST_RACES || !(raced || attempt < 3 && said.sqlstate.starts_with("42")) {
                let outcome = SliceOutcome::Unreadable { sqlstate: said.sqlstate, message: said.message };
                return Ok(result(outcome, None));
            }
            tokio::time::sleep(AFTER_A_RACE).await;
        }
    }

    /// The digest below the horizon and the number of rows above it. A slice that is much larger than planned (the open end of a table
    /// that grew) or that has to be read slowly is read in pieces.
    async fn digests(
        &self,
        table: &LiveTable,
        slice: Slice,
    ) -> std::result::Result<Result<(Digest, u64)>, tokio_postgres::Error> {
        let bytes =
            self.pace.map_or(2 * UNIT_BYTES, |pace| pace.bytes_per_second().clamp(1 << 18, UNIT_BYTES));
        let step = blocks_within(self.facts, bytes);
        let beyond = slice.end_block.unwrap_or(table.blocks);
        let (mut framed, mut newer) = (Digest::EMPTY, 0);
        let mut first = slice.first_block;
        loop {
            let last = beyond.saturating_sub(first) <= step;
            let end = if last { slice.end_block } else { Some(first + step) };
            if let Some(pace) = self.pace {
                pace.wait_for(cost(self.facts, end.unwrap_or(beyond).saturating_sub(first))).await;
            }
            let sql = query(table, &self.facts.columns, self.horizon, first, end);
            for row in self.session.try_rows(&sql).await? {
                match digest_at(&row, 0).and_then(|digest| Ok((digest, row.parse::<u64>(3)?))) {
                    Ok((digest, above)) => {
                        framed += digest;
                        newer += above;
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
            if last {
                return Ok(Ok((framed, newer)));
            }
            first += step;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use dr_core::proof::cut::cut;
    use rds_local::postgres::{Cluster, ClusterOptions, Running, StartOptions, Toolchain};

    use super::*;
    use crate::catalogue::tables::tables;
    use dr_database::Security;

    #[test]
    fn tables_are_looked_up_in_batches_of_so_many_columns_and_at_least_one() {
        let cases: [(&[usize], usize); 6] =
            [(&[], 1), (&[5, 5, 5], 2), (&[10, 1], 1), (&[11, 1], 1), (&[1; 30], 10), (&[3], 1)];
        for (columns, expected) in cases {
            assert_eq!(batch(columns, 10), expected, "{columns:?}");
        }
    }

    fn server(directory: &std::path::Path) -> (Running, ConnectionSettings) {
        let cluster =
            Cluster::create(&Toolchain::find(17).unwrap(), directory, &ClusterOptions::default()).unwrap();
        let server = cluster.start(&StartOptions::default()).unwrap();
        let security = Security::LocalSocket(server.socket_dir().to_owned());
        let settings =
            ConnectionSettings::new("localhost", server.port(), "rdsadmin", None, "postgres", security);
        (server, settings)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slice_that_crashes_the_server_twice_is_unreadable_and_the_others_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let (server, settings) = server(&directory.path().join("one"));
        server.sql("postgres", "CREATE TABLE a AS SELECT 1; CREATE TABLE b AS SELECT 2").unwrap();
        let session = Session::open(&settings, Access::ReadOnly).await.unwrap();
        let tables = tables(&session).await.unwrap();
        let unit = cut(&tables, UNIT_BYTES, 0).remove(0);
        let task = UnitTask { work: UnitWork { unit, visibility: None }, tables: &tables, pace: None };
        let mut state = UnitState { crashes: 1, ..UnitState::default() };
        let result = task.run(&session, &mut state, true).await.unwrap();
        let outcomes: Vec<&SliceOutcome> = result.slices.iter().map(|slice| &slice.outcome).collect();
        let [SliceOutcome::Unreadable { sqlstate, .. }, SliceOutcome::Digested(digest)] = outcomes[..] else {
            panic!("{outcomes:?}")
        };
        assert_eq!((sqlstate.as_str(), digest.rows), ("57P02", 1));
    }

    /// Takes the server down the first two times.
    struct Suicide;

    impl Task for Suicide {
        type Connection = Session;
        type Output = u32;
        type State = u32;

        fn database(&self) -> &'static str {
            "postgres"
        }

        fn access(&self) -> Access {
            Access::ReadOnly
        }

        async fn run(&self, session: &Session, seen: &mut u32, crashed: bool) -> Result<u32> {
            *seen += u32::from(crashed);
            if *seen == 2 {
                return Ok(*seen);
            }
            let pid = session.row("looking", "SELECT pg_backend_pid()").await?.text(0)?.to_owned();
            let killed = std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap();
            assert!(killed.success());
            session.row("waiting to be killed", "SELECT pg_sleep(60)").await.map(|_| *seen)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn crashes_of_the_server_are_told_from_cut_connections() {
        let directory = tempfile::tempdir().unwrap();
        let (server, settings) = server(&directory.path().join("one"));
        let limits = Limits::lasting(1, Duration::from_mins(1), Duration::from_secs(1));
        let progress = pool::run(&settings, vec![Suicide], limits, async |crashes| {
            assert_eq!(crashes, 2);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((progress.done, progress.left), (1, 0));
        drop(server);
    }
}

//! A source, its crash-consistent copy, and what comes of framing the one and examining the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use dr_core::DrError;
use dr_core::proof::Digest;
use dr_core::proof::examination::{CheckOutcome, CheckResult, ExaminationPlan, Narrowing};
use dr_core::proof::frame::{FramePlan, Heartbeat, SliceOutcome, TableFacts, UnitResult};
use dr_postgres::examine::{self, Wishes};
use dr_postgres::narrow::{Difference, narrow};
use dr_postgres::{
    ConnectionSettings, Limits, Security, Source, UnitWork, checks, frame, heartbeat, read_units,
};
use rds_local::postgres::{Cluster, ClusterOptions, Running, StartOptions, Toolchain};
use tempfile::TempDir;

/// Small units, so that small tables have several slices.
pub(crate) const UNIT_BYTES: u64 = 256 << 10;
pub(crate) const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];

pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) major: u32,
}

impl Lab {
    pub(crate) fn new(major: u32) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), major }
    }

    pub(crate) fn cluster(&self, checksums: bool) -> Cluster {
        let toolchain = Toolchain::find(self.major).unwrap();
        let options = ClusterOptions { checksums, ..ClusterOptions::default() };
        Cluster::create(&toolchain, &self.dir.path().join("source"), &options).unwrap()
    }

    pub(crate) fn source(&self) -> Running {
        self.start(&self.cluster(true))
    }

    #[expect(clippy::unused_self, reason = "a server belongs to a lab, whose directory it lives in")]
    pub(crate) fn start(&self, cluster: &Cluster) -> Running {
        let settings =
            [("max_prepared_transactions", "5"), ("autovacuum", "off"), ("shared_buffers", "32MB")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        cluster.start(&StartOptions { settings: settings.into(), ..StartOptions::default() }).unwrap()
    }

    /// A crash-consistent copy, not started.
    pub(crate) fn copy(&self, server: &Running, name: &str) -> Cluster {
        server.freeze_and_copy(&self.dir.path().join(name)).unwrap()
    }

    /// A crash-consistent copy, started.
    pub(crate) fn restore(&self, server: &Running) -> Running {
        self.start(&self.copy(server, "restore"))
    }
}

pub(crate) fn settings(server: &Running, database: &str) -> ConnectionSettings {
    settings_as(server, "rdsadmin", database)
}

pub(crate) fn settings_as(server: &Running, user: &str, database: &str) -> ConnectionSettings {
    let security = Security::LocalSocket(server.socket_dir().to_owned());
    ConnectionSettings::new("localhost", server.port(), user, None, database, security)
}

pub(crate) fn sql(server: &Running, statements: &str) -> Vec<Vec<Option<String>>> {
    server.sql("postgres", statements).unwrap()
}

pub(crate) fn limits() -> Limits {
    Limits::lasting(2, Duration::from_secs(100), Duration::from_secs(10))
}

pub(crate) struct Framed {
    pub(crate) plan: FramePlan,
    pub(crate) units: BTreeMap<u32, UnitResult>,
    pub(crate) beat: Heartbeat,
}

pub(crate) async fn collect(
    settings: &ConnectionSettings,
    tables: &[TableFacts],
    work: Vec<UnitWork>,
) -> Vec<UnitResult> {
    let results = Mutex::new(Vec::new());
    let total = work.len();
    let progress = read_units(settings, tables, work, limits(), None, async |result| {
        results.lock().unwrap().push(result);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!((progress.done, progress.left), (total, 0));
    results.into_inner().unwrap()
}

pub(crate) async fn plan_frame(reader: &ConnectionSettings) -> FramePlan {
    plan_frame_in(reader, UNIT_BYTES).await
}

async fn plan_frame_in(reader: &ConnectionSettings, unit_bytes: u64) -> FramePlan {
    let source = Source { reader, writer: None, instance: "db" };
    frame::plan(&source, "backup-1", unit_bytes).await.unwrap()
}

pub(crate) async fn read_frame(reader: &ConnectionSettings, plan: &FramePlan) -> BTreeMap<u32, UnitResult> {
    let visibility = frame::horizon(reader).await.unwrap();
    let work = plan
        .units
        .iter()
        .map(|unit| UnitWork { unit: unit.clone(), visibility: Some(visibility.clone()) })
        .collect();
    collect(reader, &plan.tables, work).await.into_iter().map(|result| (result.unit, result)).collect()
}

pub(crate) async fn take_frame(server: &Running) -> Framed {
    take_frame_in(server, UNIT_BYTES).await
}

pub(crate) async fn take_frame_in(server: &Running, unit_bytes: u64) -> Framed {
    let reader = settings(server, "postgres");
    let plan = plan_frame_in(&reader, unit_bytes).await;
    let units = read_frame(&reader, &plan).await;
    let beat = heartbeat::beat(&reader, "backup-1").await.unwrap();
    Framed { plan, units, beat }
}

pub(crate) struct Examined {
    pub(crate) plan: ExaminationPlan,
    pub(crate) units: Vec<UnitResult>,
}

pub(crate) async fn examine(server: &Running, framed: &Framed) -> Examined {
    examine_in(server, framed, UNIT_BYTES).await
}

pub(crate) async fn examine_in(server: &Running, framed: &Framed, unit_bytes: u64) -> Examined {
    let reader = settings(server, "postgres");
    let wishes = Wishes { foreign_keys: true, unique_constraints: true, unit_bytes };
    let plan = examine::plan(&reader, "proof-1", Some(&framed.plan), wishes).await.unwrap();
    let visibilities =
        framed.units.iter().map(|(id, result)| (*id, result.visibility.clone())).collect::<BTreeMap<_, _>>();
    let work = examine::unit_work(&plan, &visibilities, &BTreeSet::new()).unwrap();
    let units = collect(&reader, &plan.tables, work).await;
    Examined { plan, units }
}

pub(crate) async fn check(server: &Running, examined: &Examined) -> Vec<CheckResult> {
    let results = Mutex::new(Vec::new());
    let reader = settings(server, "postgres");
    let progress = checks::run_checks(&reader, examined.plan.checks.clone(), limits(), async |result| {
        results.lock().unwrap().push(result);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(progress.left, 0);
    results.into_inner().unwrap()
}

/// What making the checks fails with.
pub(crate) async fn check_error(server: &Running, examined: &Examined) -> DrError {
    let reader = settings(server, "postgres");
    checks::run_checks(&reader, examined.plan.checks.clone(), limits(), async |_| Ok(())).await.unwrap_err()
}

/// What was not sound: the subject's name and what was said.
pub(crate) fn faults(checks: &[CheckResult]) -> Vec<(String, String)> {
    checks
        .iter()
        .flat_map(|check| &check.outcomes)
        .filter_map(|(subject, outcome)| match outcome {
            CheckOutcome::Sound => None,
            CheckOutcome::Faulty { messages } => Some((subject.name.clone(), messages.join("; "))),
            CheckOutcome::NotPossible { reason } => {
                Some((subject.name.clone(), format!("not possible: {reason}")))
            }
        })
        .collect()
}

/// How a slice of the restore differs from the frame's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deviation {
    pub(crate) table: String,
    pub(crate) first_block: u32,
    /// Rows of the frame and of the restore; `None` for a slice that could not be read.
    pub(crate) rows: (u64, Option<u64>),
    pub(crate) sqlstate: Option<String>,
}

/// The slices of framed tables that are not exactly what they were.
pub(crate) fn deviations(framed: &Framed, examined: &Examined) -> Vec<Deviation> {
    let mut found = Vec::new();
    let frame: BTreeMap<(usize, u32), &SliceOutcome> = framed
        .units
        .values()
        .flat_map(|unit| &unit.slices)
        .map(|result| ((result.slice.table, result.slice.first_block), &result.outcome))
        .collect();
    for result in examined.units.iter().flat_map(|unit| &unit.slices) {
        let Some(at) = examined.plan.framed[result.slice.table] else { continue };
        let Some(SliceOutcome::Digested(expected)) = frame.get(&(at, result.slice.first_block)) else {
            continue;
        };
        let table = &examined.plan.tables[result.slice.table].name;
        let deviation = |rows, sqlstate: Option<&String>| Deviation {
            table: table.table.clone(),
            first_block: result.slice.first_block,
            rows: (expected.rows, rows),
            sqlstate: sqlstate.cloned(),
        };
        match &result.outcome {
            SliceOutcome::Digested(found) if found == expected => {}
            SliceOutcome::Digested(digest) => found.push(deviation(Some(digest.rows), None)),
            SliceOutcome::Unreadable { sqlstate, .. } => found.push(deviation(None, Some(sqlstate))),
            SliceOutcome::Gone => found.push(deviation(None, Some(&"gone".to_owned()))),
        }
    }
    found.sort_by(|a, b| (&a.table, a.first_block).cmp(&(&b.table, b.first_block)));
    found
}

/// Follows every deviation down.
pub(crate) async fn narrow_all(
    source: &Running,
    restore: &Running,
    framed: &Framed,
    examined: &Examined,
) -> Vec<Narrowing> {
    let mut narrowings = Vec::new();
    for deviation in deviations(framed, examined) {
        let table =
            examined.plan.tables.iter().position(|table| table.name.table == deviation.table).unwrap();
        let at = examined.plan.framed[table].unwrap();
        let (unit, result) = framed
            .units
            .values()
            .flat_map(|unit| unit.slices.iter().map(move |result| (unit, result)))
            .find(|(_, result)| result.slice.table == at && result.slice.first_block == deviation.first_block)
            .unwrap();
        let SliceOutcome::Digested(frame_digest) = result.outcome else { panic!("not framed") };
        let difference = Difference {
            table,
            framed: &framed.plan.tables[at],
            restored: &examined.plan.tables[table],
            slice: result.slice,
            visibility: &unit.visibility,
            frame_digest,
            budget: 1_600,
        };
        let found =
            narrow(&settings(source, "postgres"), &settings(restore, "postgres"), &difference).await.unwrap();
        narrowings.push(found);
    }
    narrowings
}

/// Rows below the frame's horizon, over all tables of this name.
pub(crate) fn framed_rows(framed: &Framed, table: &str) -> u64 {
    digest_of(framed, table).rows
}

pub(crate) fn digest_of(framed: &Framed, table: &str) -> Digest {
    framed
        .units
        .values()
        .flat_map(|unit| &unit.slices)
        .filter(|result| framed.plan.tables[result.slice.table].name.table == table)
        .map(|result| match result.outcome {
            SliceOutcome::Digested(digest) => digest,
            ref other => panic!("{table}: {other:?}"),
        })
        .sum()
}

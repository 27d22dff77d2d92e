//! Cases and properties of the judge: what the source does on its own is never damage, damage is never excused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod earlier;
mod keyed;
mod live;
mod properties;
mod tables;
mod whole;

use std::collections::BTreeMap;

use super::*;
use crate::proof::digest::Digest;
use crate::proof::examination::*;
use crate::proof::frame::*;
use crate::proof::judgement::BlockRange;

const SNAPSHOT: &str = "100:100:";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A source and a restore of it, with one table unless more are added, in slices of 10 blocks.
#[derive(Clone)]
struct World {
    frame: Frame,
    observation: Option<Observation>,
    examination: Examination,
    max_rpo: Option<u32>,
    without_frame: bool,
}

fn row(value: u64) -> Digest {
    let hash = |seed: u64| {
        (value ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    };
    Digest { rows: 1, s0: hash(1), s1: hash(0x5555_5555) }
}

fn rows(values: impl IntoIterator<Item = u64>) -> Digest {
    values.into_iter().map(row).sum()
}

fn name(table: &str) -> TableName {
    TableName { database: "shop".to_owned(), schema: "public".to_owned(), table: table.to_owned() }
}

fn facts(table: &str, oid: u32) -> TableFacts {
    TableFacts {
        name: name(table),
        oid,
        filenode: oid,
        persistence: Persistence::Permanent,
        blocks: 20,
        bytes: 163_840,
        primary_key: vec!["id".to_owned()],
        structure: "s1".to_owned(),
        columns: Vec::new(),
        keyed: None,
    }
}

fn activity(oids: &[(u32, &str)]) -> DatabaseActivity {
    DatabaseActivity {
        database: "shop".to_owned(),
        stats_reset: None,
        taken_at: at(0),
        tables: oids
            .iter()
            .map(|(oid, table)| TableActivity {
                name: name(table),
                oid: *oid,
                filenode: *oid,
                structure: "s1".to_owned(),
                inserted: 100,
                updated: 10,
                deleted: 10,
            })
            .collect(),
        catalogue_changes: BTreeMap::from([("pg_attribute".to_owned(), 5)]),
    }
}

fn server() -> ServerFacts {
    ServerFacts {
        version: 170_011,
        system_identifier: Some("7".to_owned()),
        data_checksums: true,
        in_recovery: false,
        clock: at(0),
    }
}

fn schema() -> BTreeMap<String, SchemaFingerprint> {
    let classes = ["columns", "constraints", "tables", "types"];
    BTreeMap::from([(
        "shop".to_owned(),
        classes.iter().map(|class| ((*class).to_owned(), format!("{class}-1"))).collect(),
    )])
}

fn result(unit: u32, table: usize, digests: &[Digest]) -> UnitResult {
    UnitResult {
        unit,
        visibility: Visibility { snapshot: SNAPSHOT.to_owned(), below_xmin_only: false },
        slices: digests
            .iter()
            .enumerate()
            .map(|(index, digest)| SliceResult {
                slice: slice(table, index, digests.len()),
                outcome: SliceOutcome::Digested(*digest),
                newer_rows: Some(0),
            })
            .collect(),
        finished_at: at(0),
        took_ms: 1,
    }
}

fn slice(table: usize, index: usize, of: usize) -> Slice {
    let first = u32::try_from(index).unwrap() * 10;
    Slice { table, first_block: first, end_block: (index + 1 < of).then_some(first + 10) }
}

impl World {
    fn new(digests: &[Digest]) -> Self {
        let tables = vec![facts("orders", 1000)];
        let framed = result(1, 0, digests);
        let units = vec![Unit {
            id: 1,
            database: "shop".to_owned(),
            slices: framed.slices.iter().map(|s| s.slice).collect(),
        }];
        let heartbeat = Heartbeat {
            database: "shop".to_owned(),
            operation_id: "backup-1".to_owned(),
            beat: 3,
            written_at: at(60),
        };
        let plan = FramePlan {
            format: 1,
            operation_id: "backup-1".to_owned(),
            instance: "orders".to_owned(),
            server: server(),
            schema: schema(),
            sequences: Vec::new(),
            activity: vec![activity(&[(1000, "orders")])],
            tables: tables.clone(),
            units: units.clone(),
            large_objects: BTreeMap::new(),
            state: None,
        };
        Self {
            observation: Some(Observation {
                format: 1,
                operation_id: "backup-1".to_owned(),
                activity: plan.activity.clone(),
                schema: schema(),
                sequences: Vec::new(),
                pending_counters: false,
                state: None,
            }),
            examination: Examination {
                plan: ExaminationPlan {
                    format: 1,
                    operation_id: "proof-1".to_owned(),
                    frame_operation_id: Some("backup-1".to_owned()),
                    server: server(),
                    tables,
                    framed: vec![Some(0)],
                    units,
                    frame_units: vec![Some(1)],
                    checks: Vec::new(),
                },
                units: vec![framed.clone()],
                checks: Vec::new(),
                catalogue: CatalogueFindings {
                    schema: schema(),
                    sequences: Vec::new(),
                    collation_drift: Vec::new(),
                    invalid_indexes: Vec::new(),
                    unvalidated_constraints: Vec::new(),
                    unlogged_tables: Vec::new(),
                    heartbeat: Some(heartbeat.clone()),
                    newest_known_moment: None,
                },
                narrowings: Vec::new(),
            },
            frame: Frame { plan, heartbeat, units: vec![framed] },
            max_rpo: None,
            without_frame: false,
        }
    }

    fn here(&mut self, slice: usize) -> &mut SliceResult {
        &mut self.examination.units[0].slices[slice]
    }

    fn there(&mut self, slice: usize) -> &mut SliceResult {
        &mut self.frame.units[0].slices[slice]
    }

    fn after(&mut self) -> &mut TableActivity {
        &mut self.observation.as_mut().unwrap().activity[0].tables[0]
    }

    fn narrow(&mut self, index: usize, outcome: NarrowingOutcome) {
        let slice = self.examination.units[0].slices[index].slice;
        self.examination.narrowings.push(Narrowing { table: 0, slice, outcome });
    }

    fn judge(&self) -> Result<Report> {
        self.judge_with(&[])
    }

    fn judge_with(&self, again: &[UnitResult]) -> Result<Report> {
        self.judge_beside(again, Earlier::None)
    }

    fn judge_beside(&self, again: &[UnitResult], earlier: Earlier<'_>) -> Result<Report> {
        judge(&Input {
            operation_id: "proof-1",
            snapshot_id: "s",
            database: Some("orders"),
            frame: (!self.without_frame).then_some(&self.frame),
            observation: self.observation.as_ref(),
            again,
            earlier,
            examination: &self.examination,
            snapshot_taken_at: Some(at(65)),
            max_rpo_seconds: self.max_rpo,
            restore: &RestoreFacts::default(),
            now: at(1000),
            report_key: "operations/proof-1/report.json",
        })
    }
}

fn followed() -> NarrowingOutcome {
    NarrowingOutcome::Accounted { compared: 9 }
}

fn found(keys: &[&str]) -> NarrowingOutcome {
    NarrowingOutcome::Rows {
        count: keys.len() as u64,
        keys: keys
            .iter()
            .map(|key| RowDifference { key: (*key).to_owned(), kind: RowDifferenceKind::Changed })
            .collect(),
        blocks: Vec::new(),
    }
}

fn unavailable() -> NarrowingOutcome {
    NarrowingOutcome::SourceUnavailable { reason: "gone".to_owned() }
}

fn digested(digest: Digest) -> SliceOutcome {
    SliceOutcome::Digested(digest)
}

fn broken() -> SliceOutcome {
    SliceOutcome::Unreadable { sqlstate: "XX001".to_owned(), message: "invalid page in block 12".to_owned() }
}

fn class(schema: &mut BTreeMap<String, SchemaFingerprint>, class: &str, value: &str) {
    schema.get_mut("shop").unwrap().insert(class.to_owned(), value.to_owned());
}

fn check(world: &mut World, outcome: CheckOutcome) {
    let subject = CheckSubject {
        oid: 7,
        name: "public.orders_pkey".to_owned(),
        table: "public.orders".to_owned(),
        bytes: 1,
        blocks: None,
    };
    world.examination.plan.checks.push(Check {
        id: 0,
        database: "shop".to_owned(),
        kind: CheckKind::BTree,
        subjects: vec![subject.clone()],
    });
    world.examination.checks.push(CheckResult {
        check: 0,
        kind: CheckKind::BTree,
        outcomes: vec![(subject, outcome)],
        took_ms: 1,
    });
}

fn sequences(
    world: &mut World,
    before: (Option<i64>, Option<i64>),
    here: (Option<i64>, Option<i64>),
    after: (Option<i64>, Option<i64>),
) {
    let facts = |(last_value, farthest_fed)| SequenceFacts {
        name: name("orders_id_seq"),
        last_value,
        increment: 1,
        feeds: Some("public.orders.id".to_owned()),
        farthest_fed,
    };
    world.frame.plan.sequences = vec![facts(before)];
    world.examination.catalogue.sequences = vec![facts(here)];
    world.observation.as_mut().unwrap().sequences = vec![facts(after)];
}

/// A second table of the frame that is not on the restore.
fn absent(world: &mut World, still_there: bool) {
    world.frame.plan.tables.push(facts("items", 1001));
    let framed = result(2, 1, &[rows(0..5)]);
    world.frame.plan.units.push(Unit {
        id: 2,
        database: "shop".to_owned(),
        slices: framed.slices.iter().map(|slice| slice.slice).collect(),
    });
    world.frame.units.push(framed);
    if still_there {
        world.observation.as_mut().unwrap().activity = vec![activity(&[(1000, "orders"), (1001, "items")])];
    }
}

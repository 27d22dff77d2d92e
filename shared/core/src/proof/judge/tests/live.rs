//! A source beside its own frame.

use super::super::live::{Comparison, Input as Live, compare};
use super::*;
use crate::error::ErrorName;

impl World {
    pub(super) fn compare(&self) -> Result<Comparison> {
        compare(Live {
            frame: &self.frame,
            examination: self.examination.clone(),
            observation: self.observation.as_ref().unwrap(),
            now: at(1000),
        })
    }
}

/// In which list a table of two slices (rows 0..10 and 10..20) is put.
#[derive(Debug, PartialEq, Eq)]
enum Put {
    Same,
    Changed,
    Untold(Reason, Vec<u32>),
    Different(Reason, Vec<u32>),
}

fn put(comparison: &Comparison) -> Put {
    let counts = (comparison.same, comparison.changed, comparison.untold.len(), comparison.different.len());
    let firsts =
        |unlike: &super::super::live::Unlike| unlike.slices.iter().map(|range| range.first).collect();
    match counts {
        (1, 0, 0, 0) => Put::Same,
        (0, 1, 0, 0) => Put::Changed,
        (0, 0, 1, 0) => Put::Untold(comparison.untold[0].why, firsts(&comparison.untold[0])),
        (0, 0, 0, 1) => Put::Different(comparison.different[0].why, firsts(&comparison.different[0])),
        _ => panic!("{comparison:?}"),
    }
}

fn restarted(world: &mut World) {
    world.observation.as_mut().unwrap().activity[0].stats_reset = Some("later".to_owned());
    let after = world.after();
    (after.inserted, after.updated, after.deleted) = (0, 0, 0);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn a_table_is_put_where_the_evidence_allows() {
    type Change = fn(&mut World);
    let cases: &[(&str, Change, Put)] = &[
        ("untouched", |_| {}, Put::Same),
        ("untouched, and restarted", restarted, Put::Same),
        (
            "rows that were updated",
            |w| {
                w.here(0).outcome = digested(rows(0..8));
                w.after().updated += 2;
            },
            Put::Changed,
        ),
        (
            "one row more gone than was changed",
            |w| {
                w.here(1).outcome = digested(rows(10..17));
                w.after().updated += 2;
            },
            Put::Different(Reason::RowsMissing, vec![10]),
        ),
        (
            "rows gone, restarted, and as many newer ones",
            |w| {
                restarted(w);
                w.here(0).outcome = digested(rows(0..8));
                w.here(1).newer_rows = Some(2);
            },
            Put::Changed,
        ),
        (
            "rows gone, restarted, and one too few newer ones",
            |w| {
                restarted(w);
                w.here(0).outcome = digested(rows(0..8));
                w.here(1).newer_rows = Some(1);
            },
            Put::Untold(Reason::CountersUnusable, vec![0]),
        ),
        (
            "counts that may be missing accuse nobody",
            |w| {
                w.here(0).outcome = digested(rows(0..9));
                w.observation.as_mut().unwrap().pending_counters = true;
            },
            Put::Untold(Reason::CountersUnusable, vec![0]),
        ),
        (
            "other content, whatever went on",
            |w| {
                restarted(w);
                w.here(0).outcome = digested(rows(1..11));
                w.here(0).newer_rows = Some(500);
            },
            Put::Different(Reason::ContentDiffers, vec![0]),
        ),
        (
            "rows that were not there",
            |w| {
                restarted(w);
                w.here(0).outcome = digested(rows(0..11));
            },
            Put::Different(Reason::MoreRows, vec![0]),
        ),
        (
            "a page that cannot be read",
            |w| w.here(1).outcome = broken(),
            Put::Different(Reason::UnreadableHere, vec![10]),
        ),
        (
            "a table that is gone",
            |w| {
                w.examination.plan.tables.clear();
                w.examination.plan.framed.clear();
                w.examination.plan.units.clear();
                w.examination.plan.frame_units.clear();
                w.examination.units.clear();
                w.observation.as_mut().unwrap().activity[0].tables.clear();
            },
            Put::Untold(Reason::DroppedSince, Vec::new()),
        ),
        (
            "a table that was rewritten",
            |w| {
                w.examination.plan.tables[0].filenode = 2000;
                w.after().filenode = 2000;
                w.here(0).outcome = digested(rows(0..3));
            },
            Put::Untold(Reason::Rewritten, vec![0]),
        ),
        (
            "a table that was rewritten while it was read",
            |w| {
                w.after().filenode = 2000;
                w.here(0).outcome = digested(rows(10..20));
                w.here(1).outcome = digested(rows(0..10));
                w.here(1).newer_rows = Some(3);
            },
            Put::Same,
        ),
        (
            "rows that moved while it was rewritten",
            |w| {
                w.after().filenode = 2000;
                w.here(0).outcome = digested(rows(0..13));
            },
            Put::Untold(Reason::Rewritten, vec![0]),
        ),
        (
            "a column that came while it was read",
            |w| {
                w.after().structure = "s2".to_owned();
                w.here(0).outcome = digested(rows(100..110));
            },
            Put::Untold(Reason::Redefined, vec![0]),
        ),
        (
            "a column that came and went again, and a restart",
            |w| {
                restarted(w);
                w.examination.plan.tables[0].structure = "s2".to_owned();
                w.here(0).outcome = digested(rows(100..110));
            },
            Put::Untold(Reason::Redefined, vec![0]),
        ),
        (
            "a type that was changed while it was read",
            |w| {
                class(&mut w.observation.as_mut().unwrap().schema, "types", "types-2");
                w.here(0).outcome = digested(rows(100..110));
            },
            Put::Untold(Reason::Redefined, vec![0]),
        ),
        (
            "a table that was dropped while it was read",
            |w| {
                w.here(0).outcome = SliceOutcome::Gone;
                w.here(1).outcome = SliceOutcome::Gone;
                w.observation.as_mut().unwrap().activity[0].tables.clear();
            },
            Put::Untold(Reason::DroppedSince, vec![0]),
        ),
        (
            "a view that was empty for a while, then and now",
            |w| {
                w.here(1).outcome = SliceOutcome::Gone;
                w.after().filenode = 2000;
            },
            Put::Untold(Reason::Rewritten, vec![10]),
        ),
        (
            "a view that was empty when it was framed",
            |w| {
                w.there(0).outcome = SliceOutcome::Gone;
                w.after().filenode = 2000;
            },
            Put::Untold(Reason::Rewritten, vec![0]),
        ),
        (
            "a table that is there, and cannot be found",
            |w| w.here(1).outcome = SliceOutcome::Gone,
            Put::Different(Reason::TableMissing, vec![10]),
        ),
    ];
    for (case, change, expected) in cases {
        let mut world = World::new(&[rows(0..10), rows(10..20)]);
        change(&mut world);
        let comparison = world.compare().unwrap();
        assert_eq!(put(&comparison), *expected, "{case}");
        assert!(comparison.faults.is_empty(), "{case}: {comparison:?}");
        assert_eq!(comparison.covered > 99.9, *expected == Put::Same, "{case}: {comparison:?}");
    }
}

#[test]
fn another_server_and_a_lost_beat_are_faults_of_the_whole() {
    let mut world = World::new(&[rows(0..10)]);
    world.examination.catalogue.heartbeat.as_mut().unwrap().beat = 4;
    assert!(world.compare().unwrap().faults.is_empty(), "later beats are no fault");
    world.examination.catalogue.heartbeat.as_mut().unwrap().beat = 2;
    assert!(world.compare().unwrap().faults[0].contains("beat 3"));
    world.examination.catalogue.heartbeat = None;
    world.examination.plan.server.system_identifier = Some("8".to_owned());
    assert_eq!(world.compare().unwrap().faults.len(), 2);
}

#[test]
fn counters_count_only_where_they_were_not_begun_anew() {
    let mut world = World::new(&[rows(0..10)]);
    assert!(world.compare().unwrap().counted);
    restarted(&mut world);
    assert!(!world.compare().unwrap().counted);
    // A slice that nobody looked at is never the same.
    world.examination.units.clear();
    assert_eq!(world.compare().unwrap_err().name(), ErrorName::MetadataDamaged);
}

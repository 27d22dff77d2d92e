//! Findings beside the tables, and the quick look.

use super::*;

/// What the restore as a whole is judged to be: the kind and severity of the first finding.
#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn findings_beside_the_tables_have_the_right_weight() {
    type Change = fn(&mut World);
    type First = Option<(Severity, FindingKind)>;
    let cases: &[(&str, Change, First)] = &[
        ("nothing", |_| {}, None),
        (
            "another server",
            |w| w.examination.plan.server.system_identifier = Some("8".to_owned()),
            Some((Severity::Error, FindingKind::OtherServer)),
        ),
        (
            "no beat",
            |w| w.examination.catalogue.heartbeat = None,
            Some((Severity::Error, FindingKind::HeartbeatMissing)),
        ),
        (
            "an older beat",
            |w| w.examination.catalogue.heartbeat.as_mut().unwrap().beat = 2,
            Some((Severity::Error, FindingKind::HeartbeatMissing)),
        ),
        (
            "another operation's beat",
            |w| w.examination.catalogue.heartbeat.as_mut().unwrap().operation_id = "backup-0".to_owned(),
            Some((Severity::Error, FindingKind::HeartbeatMissing)),
        ),
        ("an RPO of 5 s, good enough", |w| w.max_rpo = Some(5), None),
        (
            "an RPO of 5 s, not good enough",
            |w| w.max_rpo = Some(4),
            Some((Severity::Error, FindingKind::RpoExceeded)),
        ),
        (
            "an RPO asked for and nothing to measure it by",
            |w| {
                w.max_rpo = Some(4);
                w.without_frame = true;
                w.examination.plan.framed[0] = None;
                w.examination.catalogue.heartbeat = None;
            },
            Some((Severity::Error, FindingKind::RpoExceeded)),
        ),
        (
            "no database",
            |w| w.examination.catalogue.schema.clear(),
            Some((Severity::Error, FindingKind::DatabaseMissing)),
        ),
        (
            "a database dropped since",
            |w| {
                w.examination.catalogue.schema.clear();
                w.observation.as_mut().unwrap().schema.clear();
            },
            Some((Severity::Info, FindingKind::SchemaChanged)),
        ),
        (
            "a constraint lost",
            |w| {
                class(&mut w.examination.catalogue.schema, "constraints", "x");
            },
            Some((Severity::Error, FindingKind::SchemaDifferent)),
        ),
        (
            "a class lost",
            |w| {
                w.examination.catalogue.schema.get_mut("shop").unwrap().remove("constraints");
            },
            Some((Severity::Error, FindingKind::SchemaDifferent)),
        ),
        (
            "a constraint added since",
            |w| {
                class(&mut w.examination.catalogue.schema, "constraints", "x");
                class(&mut w.observation.as_mut().unwrap().schema, "constraints", "x");
            },
            Some((Severity::Info, FindingKind::SchemaChanged)),
        ),
        (
            "two constraints added, one before the snapshot",
            |w| {
                class(&mut w.examination.catalogue.schema, "constraints", "x");
                class(&mut w.observation.as_mut().unwrap().schema, "constraints", "y");
            },
            Some((Severity::Warning, FindingKind::SchemaChanged)),
        ),
        (
            "a constraint added after the snapshot",
            |w| {
                class(&mut w.observation.as_mut().unwrap().schema, "constraints", "x");
            },
            None,
        ),
        (
            "a constraint added and dropped again",
            |w| {
                class(&mut w.examination.catalogue.schema, "constraints", "x");
                w.observation.as_mut().unwrap().activity[0]
                    .catalogue_changes
                    .insert("pg_constraint".to_owned(), 2);
            },
            Some((Severity::Warning, FindingKind::SchemaChanged)),
        ),
        (
            "no observation",
            |w| w.observation = None,
            Some((Severity::Warning, FindingKind::ObservationMissing)),
        ),
        (
            "large objects",
            |w| {
                w.frame.plan.large_objects.insert("shop".to_owned(), 2);
            },
            Some((Severity::Warning, FindingKind::LargeObjects)),
        ),
        (
            "a faulty index",
            |w| check(w, CheckOutcome::Faulty { messages: vec!["item order invariant violated".to_owned()] }),
            Some((Severity::Error, FindingKind::CheckFaulty)),
        ),
        (
            "no amcheck",
            |w| check(w, CheckOutcome::NotPossible { reason: "amcheck is not installed".to_owned() }),
            Some((Severity::Warning, FindingKind::CheckNotPossible)),
        ),
        ("a sound index", |w| check(w, CheckOutcome::Sound), None),
        (
            "collation drift",
            |w| w.examination.catalogue.collation_drift.push("de_DE".to_owned()),
            Some((Severity::Warning, FindingKind::CollationDrift)),
        ),
        (
            "an invalid index",
            |w| w.examination.catalogue.invalid_indexes.push("public.i".to_owned()),
            Some((Severity::Warning, FindingKind::IndexInvalid)),
        ),
        (
            "an unlogged table",
            |w| w.examination.catalogue.unlogged_tables.push(name("u")),
            Some((Severity::Warning, FindingKind::TableUnlogged)),
        ),
        (
            "a constraint never validated",
            |w| w.examination.catalogue.unvalidated_constraints.push("c".to_owned()),
            Some((Severity::Info, FindingKind::ConstraintUnvalidated)),
        ),
        (
            "a sequence in front",
            |w| sequences(w, (Some(20), Some(20)), (Some(25), Some(25)), (Some(30), Some(30))),
            None,
        ),
        (
            "a sequence behind",
            |w| sequences(w, (Some(20), Some(20)), (Some(10), Some(20)), (Some(30), Some(30))),
            Some((Severity::Error, FindingKind::SequenceBehind)),
        ),
        (
            "a sequence never used",
            |w| sequences(w, (Some(20), Some(20)), (None, Some(20)), (Some(30), Some(30))),
            Some((Severity::Error, FindingKind::SequenceBehind)),
        ),
        (
            "a sequence behind, as on the source",
            |w| sequences(w, (Some(10), Some(20)), (Some(10), Some(20)), (Some(10), Some(20))),
            Some((Severity::Warning, FindingKind::SequenceNote)),
        ),
        (
            "a sequence that went back",
            |w| sequences(w, (Some(20), None), (Some(10), None), (Some(30), None)),
            Some((Severity::Warning, FindingKind::SequenceNote)),
        ),
        (
            "a sequence that was reset",
            |w| sequences(w, (Some(20), None), (Some(10), None), (Some(11), None)),
            None,
        ),
        (
            "a table that the source still has",
            |w| absent(w, true),
            Some((Severity::Error, FindingKind::TableDifferent)),
        ),
        ("a table dropped since", |w| absent(w, false), None),
    ];
    for (what, change, expected) in cases {
        let mut world = World::new(&[rows(0..10), rows(10..20)]);
        change(&mut world);
        let report = world.judge().unwrap();
        let first = report.findings.first().map(|finding| (finding.severity, finding.kind));
        assert_eq!(first, *expected, "{what}: {:?}", report.findings);
        let unproven = expected.is_some_and(|(severity, _)| severity == Severity::Error);
        assert_eq!(report.judgement.verdict == Verdict::Unproven, unproven, "{what}");
    }
}

#[test]
fn a_quick_look_judges_the_snapshot_from_outside() {
    use super::quick::{QuickInput, SnapshotView};
    type Change = fn(&mut SnapshotView);
    let cases: &[(&str, Change, Verdict, u64)] = &[
        ("sound", |_| {}, Verdict::Proven, 0),
        ("creating", |s| s.status = "creating".to_owned(), Verdict::Unproven, 1),
        ("empty", |s| s.size_gb = 0, Verdict::Unproven, 1),
        ("of another database", |s| s.database = "other".to_owned(), Verdict::Unproven, 1),
        (
            "known to be bad",
            |s| {
                s.tags.insert("lifeboat:proof".to_owned(), "unproven".to_owned());
            },
            Verdict::Unproven,
            1,
        ),
        ("incomplete", |s| s.taken_at = None, Verdict::Unproven, 1),
        ("from the future", |s| s.taken_at = Some(at(2000)), Verdict::Unproven, 1),
        ("a little from the future", |s| s.taken_at = Some(at(1100)), Verdict::Proven, 0),
        ("just young enough", |s| s.taken_at = Some(at(400)), Verdict::Proven, 0),
        ("too old", |s| s.taken_at = Some(at(399)), Verdict::Unproven, 1),
        ("not encrypted", |s| s.encrypted = false, Verdict::Proven, 0),
        ("another engine", |s| s.engine = "oracle-ee".to_owned(), Verdict::Proven, 0),
        ("not ours", |s| s.tags.clear(), Verdict::Proven, 0),
    ];
    for (what, change, verdict, errors) in cases {
        let mut snapshot = SnapshotView {
            database_kind: crate::observed::DatabaseKind::Instance,
            database: "orders".to_owned(),
            status: "available".to_owned(),
            engine: "postgres".to_owned(),
            engine_version: "17.5".to_owned(),
            size_gb: 20,
            encrypted: true,
            taken_at: Some(at(900)),
            tags: BTreeMap::from([("lifeboat:operation-id".to_owned(), "backup-1".to_owned())]),
        };
        change(&mut snapshot);
        let report = quick::judge(&QuickInput {
            operation_id: "proof-1",
            snapshot_id: "s",
            database: Some("orders"),
            snapshot: &snapshot,
            max_age_seconds: Some(600),
            now: at(1000),
            report_key: "k",
        });
        assert_eq!(report.judgement.verdict, *verdict, "{what}: {:?}", report.findings);
        assert_eq!(report.judgement.error_count, *errors, "{what}");
        assert_eq!(report.judgement.level, Level::Quick);
    }
}

//! Findings about the server, the schema, sequences and checks.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Input;
use super::evidence::{TYPE_CATALOGUES, TYPE_CLASS, in_motion};
use crate::proof::examination::{CatalogueFindings, CheckKind, CheckOutcome, Examination};
use crate::proof::frame::{DatabaseActivity, Frame, Observation, SchemaFingerprint, SequenceFacts};
use crate::proof::judgement::{CheckCounts, Finding, FindingKind, Severity};

/// Longest message of a finding, in characters.
const MAX_MESSAGE: usize = 600;

pub(super) fn finding(
    severity: Severity,
    kind: FindingKind,
    subject: impl Into<String>,
    message: impl Into<String>,
) -> Finding {
    let mut message: String = message.into();
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE - 1) {
        message.truncate(end);
        message.push('…');
    }
    Finding { severity, kind, subject: subject.into(), message, blocks: Vec::new() }
}

/// Everything but the tables.
pub(super) fn findings(input: &Input<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(frame) = input.frame {
        server(frame, input.examination, &mut found);
        heartbeat(frame, &input.examination.catalogue, &mut found);
        schema(frame, input.observation, &input.examination.catalogue, &mut found);
        if input.observation.is_none() {
            found.push(finding(
                Severity::Warning,
                FindingKind::ObservationMissing,
                frame.plan.operation_id.clone(),
                "The source was not looked at after the snapshot, so changes in between cannot be told from damage.",
            ));
        }
        for (database, count) in frame.plan.large_objects.iter().filter(|(_, count)| **count > 0) {
            found.push(finding(
                Severity::Warning,
                FindingKind::LargeObjects,
                database.clone(),
                format!("{count} large objects are not compared: only a superuser can read their content."),
            ));
        }
    }
    for table in &input.examination.plan.tables {
        if table.keyed.as_ref().is_some_and(|keyed| !keyed.transactional) {
            found.push(finding(
                Severity::Warning,
                FindingKind::TableNotTransactional,
                table.name.to_string(),
                "Its storage engine is not InnoDB: a snapshot may hold it in the middle of a statement, and RDS does \
                 not promise that a restore of it is readable.",
            ));
        }
    }
    rpo(input, &mut found);
    sequences(input, &mut found);
    catalogue(&input.examination.catalogue, &mut found);
    checks(input.examination, &mut found);
    found
}

fn server(frame: &Frame, examination: &Examination, found: &mut Vec<Finding>) {
    let (source, restored) = (&frame.plan.server, &examination.plan.server);
    if let (Some(there), Some(here)) = (&source.system_identifier, &restored.system_identifier)
        && there != here
    {
        found.push(finding(
            Severity::Error,
            FindingKind::OtherServer,
            frame.plan.instance.clone(),
            format!(
                "The restore's system identifier is {here}, the source's {there}: it is not a restore of it."
            ),
        ));
    }
}

fn heartbeat(frame: &Frame, catalogue: &CatalogueFindings, found: &mut Vec<Finding>) {
    let written = &frame.heartbeat;
    // In MySQL's words the schema is the database.
    let subject = match written.database.as_str() {
        "lifeboat" => "lifeboat.heartbeat".to_owned(),
        database => format!("{database}.lifeboat.heartbeat"),
    };
    match &catalogue.heartbeat {
        Some(beat) if beat.operation_id == written.operation_id && beat.beat >= written.beat => {}
        Some(beat) if beat.operation_id == written.operation_id => found.push(finding(
            Severity::Error,
            FindingKind::HeartbeatMissing,
            subject,
            format!(
                "Beat {} of {} was committed before the snapshot, and the restore ends at beat {}: its recovery \
                 stopped early, and committed rows are lost.",
                written.beat, written.written_at, beat.beat
            ),
        )),
        _ => found.push(finding(
            Severity::Error,
            FindingKind::HeartbeatMissing,
            subject,
            format!(
                "The beat of {} was committed before the snapshot and is not on the restore: its recovery stopped \
                 early, and committed rows are lost.",
                written.written_at
            ),
        )),
    }
}

/// The newest moment that the restore is known to reach.
pub(super) fn newest_moment(catalogue: &CatalogueFindings) -> Option<Timestamp> {
    let beat = catalogue.heartbeat.as_ref().map(|beat| beat.written_at);
    beat.max(catalogue.newest_known_moment)
}

/// The measured RPO in whole seconds, rounded up: from the newest moment on the restore to the snapshot. A moment
/// after the snapshot (RDS's clock and the server's differ by a little) counts as 0.
pub(super) fn measured_rpo(input: &Input<'_>) -> Option<u64> {
    let newest = newest_moment(&input.examination.catalogue)?;
    let milliseconds = newest.until(input.snapshot_taken_at?).ok()?.total(jiff::Unit::Millisecond).ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a span of timestamps is far below 2^53 milliseconds"
    )]
    let seconds = (milliseconds.max(0.0) / 1000.0).ceil() as u64;
    Some(seconds)
}

fn rpo(input: &Input<'_>, found: &mut Vec<Finding>) {
    let Some(limit) = input.max_rpo_seconds else { return };
    match measured_rpo(input) {
        Some(seconds) if seconds <= u64::from(limit) => {}
        Some(seconds) => found.push(finding(
            Severity::Error,
            FindingKind::RpoExceeded,
            input.snapshot_id,
            format!("The newest moment on the restore is {seconds} s before the snapshot; at most {limit} s were asked for."),
        )),
        None => found.push(finding(
            Severity::Error,
            FindingKind::RpoExceeded,
            input.snapshot_id,
            format!("An RPO of at most {limit} s was asked for, and the restore shows no moment to measure it by."),
        )),
    }
}

/// The catalogues behind a class of the fingerprint. A class that is not known here is never excused.
fn catalogues(class: &str) -> &'static [&'static str] {
    match class {
        "schemas" => &["pg_namespace"],
        "extensions" => &["pg_extension"],
        "tables" => &["pg_class", "pg_inherits", "pg_partitioned_table"],
        "columns" => &["pg_attribute"],
        "defaults" => &["pg_attrdef"],
        "constraints" => &["pg_constraint"],
        "indexes" => &["pg_index", "pg_class"],
        "views" => &["pg_rewrite", "pg_class"],
        "sequences" => &["pg_sequence", "pg_class"],
        "functions" => &["pg_proc", "pg_aggregate"],
        "triggers" => &["pg_trigger"],
        "rules" => &["pg_rewrite"],
        "policies" => &["pg_policy", "pg_class"],
        "grants" => &["pg_class", "pg_namespace", "pg_proc", "pg_attribute", "pg_default_acl"],
        "comments" => &["pg_description"],
        "publications" => &["pg_publication", "pg_publication_rel"],
        TYPE_CLASS => TYPE_CATALOGUES,
        _ => &[],
    }
}

/// The statements of MySQL that change a class of the fingerprint.
fn statements(class: &str) -> &'static [&'static str] {
    match class {
        "tables" | "columns" | "indexes" | "constraints" => &[
            "Com_create_table",
            "Com_drop_table",
            "Com_alter_table",
            "Com_rename_table",
            "Com_create_index",
            "Com_drop_index",
            "Com_create_db",
            "Com_drop_db",
        ],
        "views" => &["Com_create_view", "Com_drop_view", "Com_rename_table"],
        "triggers" => &["Com_create_trigger", "Com_drop_trigger"],
        "events" => &["Com_create_event", "Com_drop_event", "Com_alter_event"],
        "routines" => &[
            "Com_create_function",
            "Com_create_procedure",
            "Com_alter_function",
            "Com_alter_procedure",
            "Com_drop_function",
            "Com_drop_procedure",
        ],
        _ => &[],
    }
}

fn schema(
    frame: &Frame,
    observation: Option<&Observation>,
    catalogue: &CatalogueFindings,
    found: &mut Vec<Finding>,
) {
    for (database, before) in &frame.plan.schema {
        let after = observation.map(|observation| observation.schema.get(database));
        let Some(here) = catalogue.schema.get(database) else {
            if matches!(after, Some(None)) {
                found.push(finding(
                    Severity::Info,
                    FindingKind::SchemaChanged,
                    database.clone(),
                    "The database was dropped on the source between frame and observation.",
                ));
            } else {
                found.push(finding(
                    Severity::Error,
                    FindingKind::DatabaseMissing,
                    database.clone(),
                    "The database is on the source and not on the restore.",
                ));
            }
            continue;
        };
        let activity =
            |all: &'_ [DatabaseActivity]| all.iter().find(|activity| activity.database == *database).cloned();
        let (then, now) = (
            activity(&frame.plan.activity),
            observation.and_then(|observation| activity(&observation.activity)),
        );
        let mut classes: Vec<&String> = before.keys().chain(here.keys()).collect();
        classes.sort_unstable();
        classes.dedup();
        for class in classes {
            let moving = in_motion(then.as_ref(), now.as_ref(), catalogues(class))
                || frame
                    .plan
                    .state
                    .as_ref()
                    .zip(observation.and_then(|observation| observation.state.as_ref()))
                    .is_some_and(|(then, now)| now.ran_since(then, statements(class)));
            if let Some((severity, kind, message)) =
                class_verdict(class, before, after.flatten(), after.is_some(), here, moving)
            {
                found.push(finding(severity, kind, format!("{database} ({class})"), message));
            }
        }
    }
}

fn class_verdict(
    class: &str,
    before: &SchemaFingerprint,
    after: Option<&SchemaFingerprint>,
    observed: bool,
    here: &SchemaFingerprint,
    moving: bool,
) -> Option<(Severity, FindingKind, &'static str)> {
    let (then, here) = (before.get(class), here.get(class));
    let now = after.and_then(|after| after.get(class));
    if here == then {
        None
    } else if observed && here == now {
        Some((
            Severity::Info,
            FindingKind::SchemaChanged,
            "Changed on the source between frame and snapshot; the restore is as the source was afterwards.",
        ))
    } else if observed && now != then {
        Some((
            Severity::Warning,
            FindingKind::SchemaChanged,
            "Changed on the source between frame and observation; the restore is neither as before nor as after, \
             which a state in between explains.",
        ))
    } else if observed && moving {
        Some((
            Severity::Warning,
            FindingKind::SchemaChanged,
            "The same on the source before and after, and not on the restore; the catalogue was written to in \
             between, so something may have been created and dropped again.",
        ))
    } else {
        Some((
            Severity::Error,
            FindingKind::SchemaDifferent,
            "The restore's catalogue is not what the source's was, and the source did not change it.",
        ))
    }
}

fn behind(sequence: &SequenceFacts) -> bool {
    match (sequence.farthest_fed, sequence.last_value) {
        (Some(fed), Some(last)) if sequence.increment < 0 => last > fed,
        (Some(fed), Some(last)) => last < fed,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

fn sequences(input: &Input<'_>, found: &mut Vec<Finding>) {
    let index = |sequences: &'_ [SequenceFacts]| -> BTreeMap<_, SequenceFacts> {
        sequences.iter().map(|sequence| (sequence.name.clone(), sequence.clone())).collect()
    };
    let before = input.frame.map(|frame| index(&frame.plan.sequences)).unwrap_or_default();
    let after = input.observation.map(|observation| index(&observation.sequences)).unwrap_or_default();
    for here in &input.examination.catalogue.sequences {
        let then = before.get(&here.name);
        let now = after.get(&here.name);
        let feeds = here.feeds.as_deref().unwrap_or("nothing");
        if behind(here) {
            // Without a frame, or where the source was like that, rows were given their numbers by other means.
            let known = then.or(now).is_none() || then.is_some_and(behind) || now.is_some_and(behind);
            let (severity, kind, text) = if known {
                (Severity::Warning, FindingKind::SequenceNote, "rows may have been numbered by other means")
            } else {
                (Severity::Error, FindingKind::SequenceBehind, "on the source it was not")
            };
            found.push(finding(
                severity,
                kind,
                here.name.to_string(),
                format!("It is behind the column that it feeds, {feeds}; {text}. It would hand out numbers in use."),
            ));
        } else if let (Some(was), Some(is), Some(later)) =
            (then.and_then(|then| then.last_value), here.last_value, now.and_then(|now| now.last_value))
            && then.is_some_and(|then| then.increment == here.increment)
            && (is - was).signum() * here.increment.signum() < 0
            && (later - was).signum() * here.increment.signum() >= 0
        {
            found.push(finding(
                Severity::Warning,
                FindingKind::SequenceNote,
                here.name.to_string(),
                "It is behind its own value in the frame; on the source it went forward.",
            ));
        }
    }
}

fn catalogue(catalogue: &CatalogueFindings, found: &mut Vec<Finding>) {
    for name in &catalogue.collation_drift {
        found.push(finding(
            Severity::Warning,
            FindingKind::CollationDrift,
            name.clone(),
            "The server's collation library is another version than the one that indexes were built with: rebuild \
             indexes over text.",
        ));
    }
    for name in &catalogue.invalid_indexes {
        // CREATE INDEX CONCURRENTLY that was under way at the snapshot leaves one; damage does not.
        found.push(finding(
            Severity::Warning,
            FindingKind::IndexInvalid,
            name.clone(),
            "The index is not valid: it was being built, or building it had failed. Rebuild it after a recovery.",
        ));
    }
    for name in &catalogue.unvalidated_constraints {
        found.push(finding(
            Severity::Info,
            FindingKind::ConstraintUnvalidated,
            name.clone(),
            "The constraint was never validated.",
        ));
    }
    for name in &catalogue.unlogged_tables {
        found.push(finding(
            Severity::Warning,
            FindingKind::TableUnlogged,
            name.to_string(),
            "The table is unlogged: a restore of it is empty by design.",
        ));
    }
}

/// Sums up the outcomes.
pub(super) fn count(examination: &Examination) -> CheckCounts {
    let mut counts = CheckCounts::default();
    for (_, outcome) in examination.checks.iter().flat_map(|check| &check.outcomes) {
        match outcome {
            CheckOutcome::Sound => counts.sound += 1,
            CheckOutcome::Faulty { .. } => counts.faulty += 1,
            CheckOutcome::NotPossible { .. } => counts.not_possible += 1,
        }
    }
    counts
}

fn checks(examination: &Examination, found: &mut Vec<Finding>) {
    let mut not_possible: BTreeMap<(CheckKind, String), u64> = BTreeMap::new();
    let databases: BTreeMap<u32, &str> =
        examination.plan.checks.iter().map(|check| (check.id, check.database.as_str())).collect();
    for check in &examination.checks {
        let database = databases.get(&check.check).copied().unwrap_or("?");
        for (subject, outcome) in &check.outcomes {
            match outcome {
                CheckOutcome::Sound => {}
                CheckOutcome::Faulty { messages } => found.push(finding(
                    Severity::Error,
                    FindingKind::CheckFaulty,
                    format!("{database}.{}", subject.name),
                    format!(
                        "{} of table {} found faults: {}",
                        title(check.kind),
                        subject.table,
                        messages.join("; ")
                    ),
                )),
                CheckOutcome::NotPossible { reason } => {
                    *not_possible.entry((check.kind, reason.clone())).or_default() += 1;
                }
            }
        }
    }
    for ((kind, reason), count) in not_possible {
        found.push(finding(
            Severity::Warning,
            FindingKind::CheckNotPossible,
            title(kind),
            format!("Not made for {count} subjects: {reason}"),
        ));
    }
}

fn title(kind: CheckKind) -> &'static str {
    match kind {
        CheckKind::Table => "CHECK TABLE",
        CheckKind::Heap => "The check of heap pages",
        CheckKind::BTree => "The check of B-tree indexes",
        CheckKind::ForeignKey => "The proof of a foreign key",
        CheckKind::Unique => "The proof of a unique constraint",
    }
}

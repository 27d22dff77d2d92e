//! Judges a restore, purely: frame, observation and examination in, a [`Report`] out.
//!
//! It fails closed. Evidence with holes is refused ([`ErrorName::MetadataDamaged`]), and a difference counts
//! against the backup unless something recorded on the source explains it.
//!
//! What it cannot see: rows written after the frame (they are counted, and bounded by the source's counters); a
//! row that was damaged on the restore and also changed on the source before it could be asked; damage that forges
//! two 64-bit sums.
//!
//! [`ErrorName::MetadataDamaged`]: crate::error::ErrorName::MetadataDamaged

mod earlier;
mod evidence;
mod keyed;
pub mod live;
pub mod quick;
mod table;
#[cfg(test)]
mod tests;
mod whole;

use std::fmt::Write as _;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use self::earlier::Comparison;
pub use self::earlier::{Earlier, EarlierRestore};
use self::evidence::Evidence;
use self::whole::finding;
use super::examination::Examination;
use super::frame::{Frame, Observation, UnitResult};
use super::judgement::{
    Amount, BesideEarlier, Coverage, EarlierProof, Finding, FindingKind, Judgement, Level, Reason, Report,
    RestoreFacts, Severity, TableJudgement, TableVerdict, Verdict,
};
use crate::error::Result;
use crate::ids::hex;

/// Findings that travel in a payload.
const MAX_FINDINGS: usize = 20;
/// Block ranges that travel with a finding.
const MAX_FINDING_RANGES: usize = 10;

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The proof's operation.
    pub operation_id: &'a str,
    /// The snapshot.
    pub snapshot_id: &'a str,
    /// The database that it is of, where known.
    pub database: Option<&'a str>,
    /// The source before the snapshot; `None`: only the structure is judged.
    pub frame: Option<&'a Frame>,
    /// The source after the snapshot.
    pub observation: Option<&'a Observation>,
    /// Units of the frame that were read again on the source after the snapshot (MySQL).
    pub again: &'a [UnitResult],
    /// An earlier proof of the same snapshot, or of the snapshot that it is a copy of.
    pub earlier: Earlier<'a>,
    /// The restore.
    pub examination: &'a Examination,
    /// The moment of the snapshot, as RDS tells it (`OriginalSnapshotCreateTime`, which a copy keeps).
    pub snapshot_taken_at: Option<Timestamp>,
    /// The greatest RPO that is good enough.
    pub max_rpo_seconds: Option<u32>,
    /// What is known of the restore itself.
    pub restore: &'a RestoreFacts,
    /// Now.
    pub now: Timestamp,
    /// Where the report will be stored.
    pub report_key: &'a str,
}

/// Judges.
///
/// # Errors
/// [`ErrorName::MetadataDamaged`](crate::error::ErrorName::MetadataDamaged) where something that was planned has no
/// result, or records contradict each other.
pub fn judge(input: &Input<'_>) -> Result<Report> {
    let evidence = Evidence::gather(input.frame, input.observation, input.again, input.examination)?;
    let mut findings = whole::findings(input);
    let comparison = earlier::compare(input.earlier, input.examination)?;
    let then = comparison.as_ref().and_then(Comparison::operation_id);
    let mut tables: Vec<(TableJudgement, bool)> = Vec::with_capacity(evidence.tables.len());
    for table in &evidence.tables {
        let own = table::judge(table, input.frame.is_some());
        let weighed = match &comparison {
            Some(comparison) => comparison.weigh(own),
            None => own,
        };
        tables.push((weighed, table.restored.primary_key.is_empty()));
    }
    let mut gone: Vec<TableJudgement> = evidence.absent.iter().map(table::judge_absent).collect();
    if let Some(comparison) = &comparison {
        comparison.weigh_gone(&mut gone);
        findings.extend(comparison.findings());
    }
    tables.extend(gone.into_iter().map(|table| (table, false)));
    for (table, keyless) in &tables {
        findings.extend(table_finding(table, then));
        if *keyless && table.different_rows.is_some() {
            findings.push(finding(
                Severity::Info,
                FindingKind::NoPrimaryKey,
                table.name.to_string(),
                "The table has no primary key: rows are named by block and line.",
            ));
        }
    }
    findings.sort_by(|a, b| (a.severity, a.kind, &a.subject).cmp(&(b.severity, b.kind, &b.subject)));
    let mut tables: Vec<TableJudgement> = tables.into_iter().map(|(table, _)| table).collect();
    tables.sort_by(|a, b| (b.verdict, &a.name).cmp(&(a.verdict, &b.name)));

    let coverage = coverage(&tables);
    let earlier = comparison.as_ref().map(|comparison| comparison.summary(&tables));
    let level = if input.frame.is_some() { Level::Content } else { Level::Structure };
    let judgement = summarise(input, level, &findings, &tables, coverage, earlier);
    Ok(Report {
        format: Report::FORMAT,
        judgement,
        findings,
        tables,
        checks: input.examination.checks.clone(),
        source: input.frame.map(|frame| frame.plan.server.clone()),
        restored: Some(input.examination.plan.server.clone()),
        heartbeat_written: input.frame.map(|frame| frame.heartbeat.clone()),
        heartbeat_found: input.examination.catalogue.heartbeat.clone(),
        snapshot_taken_at: input.snapshot_taken_at,
        schema: input.examination.catalogue.schema.clone(),
        restore: input.restore.clone(),
    })
}

fn summarise(
    input: &Input<'_>,
    level: Level,
    findings: &[Finding],
    tables: &[TableJudgement],
    coverage: Coverage,
    earlier: Option<EarlierProof>,
) -> Judgement {
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let errors = of(Severity::Error);
    let verdict = if errors == 0 { Verdict::Proven } else { Verdict::Unproven };
    Judgement {
        operation_id: input.operation_id.to_owned(),
        snapshot_id: input.snapshot_id.to_owned(),
        database: input.database.map(str::to_owned),
        verdict,
        level,
        headline: headline(input.snapshot_id, verdict, level, tables, &coverage, findings)
            + &earlier.as_ref().map(beside_earlier).unwrap_or_default(),
        findings: findings.iter().take(MAX_FINDINGS).cloned().collect(),
        finding_count: findings.len() as u64,
        error_count: errors,
        warning_count: of(Severity::Warning),
        row_count: coverage.total.rows,
        coverage,
        earlier,
        checks: whole::count(input.examination),
        rpo_seconds: whole::measured_rpo(input),
        schema_fingerprint: Some(fingerprint(input.examination)),
        time_to_available_seconds: input.restore.time_to_available_seconds,
        judged_at: input.now,
        report_key: input.report_key.to_owned(),
    }
}

fn headline(
    snapshot: &str,
    verdict: Verdict,
    level: Level,
    tables: &[TableJudgement],
    coverage: &Coverage,
    findings: &[Finding],
) -> String {
    match (verdict, findings.first()) {
        (Verdict::Unproven, Some(first)) => {
            let bad = tables.iter().filter(|table| table.verdict >= TableVerdict::Different).count();
            let of = tables.len();
            format!(
                "{snapshot} is not proven ({bad} of {of} tables are bad). {}: {}",
                first.subject, first.message
            )
        }
        _ if level == Level::Content => format!(
            "{snapshot} is proven: {} tables, {} of {} rows byte for byte ({:.2} % of the bytes)",
            coverage.total.tables, coverage.proven_rows, coverage.total.rows, coverage.proven_bytes_percent
        ),
        _ => format!(
            "{snapshot} is readable and sound in structure: {} tables, {} rows; there is no frame to compare it with",
            coverage.total.tables, coverage.total.rows
        ),
    }
}

/// What the headline says of the comparison with an earlier proof.
fn beside_earlier(earlier: &EarlierProof) -> String {
    let then = earlier.operation_id.as_deref().unwrap_or("an earlier proof");
    match &earlier.not_comparable {
        Some(reason) => format!("; not compared with the restore of {then}: {reason}"),
        None => format!(
            "; {} of {} tables are equal to the restore of {then}",
            earlier.equal.tables,
            earlier.equal.tables + earlier.different.tables + earlier.unknown.tables
        ),
    }
}

/// One SHA-256 over all classes of all databases of the restore.
fn fingerprint(examination: &Examination) -> String {
    let mut hash = Sha256::new();
    for (database, classes) in &examination.catalogue.schema {
        for (class, value) in classes {
            for part in [database, class, value] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
    }
    hex(&hash.finalize())
}

fn table_finding(table: &TableJudgement, then: Option<&str>) -> Option<Finding> {
    let (severity, kind) = match table.verdict {
        TableVerdict::Exact | TableVerdict::Explained => return None,
        // Unlogged tables have their own finding, and without a frame every table is only plausible.
        TableVerdict::Plausible => match table.reason {
            Reason::NoFrame | Reason::CreatedSince | Reason::Unlogged => return None,
            _ => (Severity::Warning, FindingKind::TablePlausible),
        },
        TableVerdict::Different => (Severity::Error, FindingKind::TableDifferent),
        TableVerdict::Unreadable => (Severity::Error, FindingKind::TableUnreadable),
    };
    let framed = table.framed_rows.unwrap_or(0);
    let changed = table.changed_on_source.map_or_else(|| "an unknown number".to_owned(), |n| n.to_string());
    let mut message = match table.reason {
        Reason::Rewritten => {
            "It was rewritten or truncated on the source, so its rows cannot be compared.".to_owned()
        }
        Reason::Redefined => {
            "Its columns or types were changed on the source, so its rows cannot be compared.".to_owned()
        }
        Reason::CountersUnusable => format!(
            "{} rows of the frame are gone; the source could not be asked about them, and its counters cannot tell.",
            table.residue
        ),
        Reason::BetweenFrames => {
            "Parts of it are neither as before the snapshot nor as after it; they were changed in between, and no more \
             can be told of them than that their numbers of rows are possible."
                .to_owned()
        }
        Reason::CameAndWent => {
            "There are rows that were there neither before the snapshot nor after it; as many were inserted and deleted \
             in between."
                .to_owned()
        }
        Reason::NotTransactional => {
            "It is not as it was before or after the snapshot; it was written to, and its engine keeps no moment of it."
                .to_owned()
        }
        Reason::ContentDiffers => format!(
            "Rows are not what they were: {framed} rows in the frame, {} here, with other content.",
            table.rows
        ),
        Reason::MoreRows => format!(
            "There are rows that the source did not have: {framed} in the frame, {} here.",
            table.rows
        ),
        Reason::RowsMissing => format!(
            "{} of {framed} rows of the frame are gone, and the source updated or deleted {changed} rows.",
            table.residue
        ),
        Reason::OutOfBounds => format!(
            "It has {} rows, which the {framed} rows of the frame and the source's insertions and deletions do not allow.",
            table.rows + table.newer_rows
        ),
        Reason::StructureDiffers => {
            "Its columns are not those of the source, before or after the snapshot.".to_owned()
        }
        Reason::TableMissing => format!("The source has it (with {framed} rows), and the restore does not."),
        Reason::TableBack => {
            "The source had dropped it before the snapshot, and it is on the restore.".to_owned()
        }
        Reason::UnreadableHere => "It cannot be read on the restore; on the source it could.".to_owned(),
        Reason::UnreadableOnSource => {
            "It cannot be read on the source: the source itself is damaged.".to_owned()
        }
        _ => String::new(),
    };
    if let (TableVerdict::Different, Some(told)) = (table.verdict, unlike_earlier(table, then)) {
        message = told;
    }
    if table.reason == Reason::UnreadableHere && table.framed_rows.is_none() {
        "It cannot be read on the restore.".clone_into(&mut message);
    }
    // Writing to a String cannot fail.
    if let Some(count) = table.different_rows {
        let _ = write!(message, " {count} differing rows were found; the report names them.");
    }
    if !table.blocks.is_empty() {
        let _ = write!(message, " Blocks: {}.", blocks(table));
    }
    let mut finding = finding(severity, kind, table.name.to_string(), message);
    finding.blocks = table.blocks.iter().take(MAX_FINDING_RANGES).copied().collect();
    Some(finding)
}

/// What to say of a table that is not what it was on an earlier restore of the same snapshot.
fn unlike_earlier(table: &TableJudgement, then: Option<&str>) -> Option<String> {
    let then = then.unwrap_or("an earlier proof");
    let rows = table.rows + table.newer_rows;
    match table.earlier.as_ref()? {
        BesideEarlier::Different { rows: were } if *were == rows => Some(format!(
            "It is not what it was when {then} restored the same snapshot: {rows} rows, with other content or columns."
        )),
        BesideEarlier::Different { rows: were } => Some(format!(
            "It is not what it was when {then} restored the same snapshot: {were} rows then, {rows} now."
        )),
        BesideEarlier::New => {
            Some(format!("It was not there when {then} restored the same snapshot, and has {rows} rows now."))
        }
        BesideEarlier::Missing { rows: were } => {
            Some(format!("It was there, with {were} rows, when {then} restored the same snapshot."))
        }
        BesideEarlier::Equal | BesideEarlier::NotComparable { .. } => None,
    }
}

fn blocks(table: &TableJudgement) -> String {
    let mut text: Vec<String> = table
        .blocks
        .iter()
        .take(MAX_FINDING_RANGES)
        .map(|range| match range.end {
            Some(end) if end == range.first + 1 => range.first.to_string(),
            Some(end) => format!("{}–{}", range.first, end.saturating_sub(1)),
            None => format!("{}–end", range.first),
        })
        .collect();
    if table.blocks.len() > MAX_FINDING_RANGES {
        text.push("…".to_owned());
    }
    text.join(", ")
}

fn coverage(tables: &[TableJudgement]) -> Coverage {
    let mut coverage = Coverage::default();
    let mut proven_bytes = 0.0;
    for table in tables {
        let rows = table.rows + table.newer_rows;
        let amount = Amount { tables: 1, rows, bytes: table.bytes };
        for sum in [coverage.by_verdict.entry(table.verdict).or_default(), &mut coverage.total] {
            sum.tables += amount.tables;
            sum.rows += amount.rows;
            sum.bytes += amount.bytes;
        }
        coverage.proven_rows += table.proven_rows;
        let part = match table.verdict {
            _ if rows > 0 => ratio(table.proven_rows, rows),
            TableVerdict::Exact | TableVerdict::Explained => 1.0,
            _ => 0.0,
        };
        #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 53 bits")]
        let bytes = table.bytes as f64;
        proven_bytes += part * bytes;
    }
    coverage.proven_rows_percent = percent(ratio(coverage.proven_rows, coverage.total.rows));
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 53 bits")]
    let total = coverage.total.bytes as f64;
    coverage.proven_bytes_percent = percent(if total > 0.0 { proven_bytes / total } else { 1.0 });
    coverage
}

#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 53 bits")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// Two decimals, cut and not rounded: 100 means all.
fn percent(part: f64) -> f64 {
    (part * 10_000.0).floor() / 100.0
}

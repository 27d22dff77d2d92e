//! The quick judgement: a snapshot looked at from outside.
//!
//! It proves that there is a snapshot that could be restored, not what is in it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::whole::finding;
use super::{MAX_FINDINGS, Verdict};
use crate::engine::Engine;
use crate::observed::DatabaseKind;
use crate::proof::judgement::{
    CheckCounts, Coverage, Finding, FindingKind, Judgement, Level, Report, RestoreFacts, Severity,
};

/// What RDS says about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotView {
    /// The database that it was taken of.
    pub database: String,
    /// What that is.
    pub database_kind: DatabaseKind,
    /// Its status, such as `available`.
    pub status: String,
    /// The engine.
    pub engine: String,
    /// The engine's version.
    pub engine_version: String,
    /// Allocated storage in GiB.
    pub size_gb: u32,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// When its database was snapshotted; a copy keeps it.
    pub taken_at: Option<Timestamp>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub struct QuickInput<'a> {
    /// The proof's operation.
    pub operation_id: &'a str,
    /// The snapshot.
    pub snapshot_id: &'a str,
    /// The database that it should be of.
    pub database: Option<&'a str>,
    /// What RDS says.
    pub snapshot: &'a SnapshotView,
    /// The greatest age that is good enough, in seconds.
    pub max_age_seconds: Option<u32>,
    /// Now.
    pub now: Timestamp,
    /// Where the report will be stored.
    pub report_key: &'a str,
}

/// Seconds by which a snapshot may seem to come from the future: clocks differ.
const CLOCK_TOLERANCE_SECONDS: i64 = 300;

/// Judges.
pub fn judge(input: &QuickInput<'_>) -> Report {
    let mut findings = findings(input);
    findings.sort_by(|a, b| (a.severity, &a.message).cmp(&(b.severity, &b.message)));
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let errors = of(Severity::Error);
    let verdict = if errors == 0 { Verdict::Proven } else { Verdict::Unproven };
    let headline = match (verdict, findings.first()) {
        (Verdict::Unproven, Some(first)) => format!("{} is not proven: {}", input.snapshot_id, first.message),
        _ => format!(
            "{} is {} and could be restored; what is in it was not looked at",
            input.snapshot_id, input.snapshot.status
        ),
    };
    let judgement = Judgement {
        operation_id: input.operation_id.to_owned(),
        snapshot_id: input.snapshot_id.to_owned(),
        database: Some(input.snapshot.database.clone()),
        verdict,
        level: Level::Quick,
        headline,
        findings: findings.iter().take(MAX_FINDINGS).cloned().collect(),
        finding_count: findings.len() as u64,
        error_count: errors,
        warning_count: of(Severity::Warning),
        earlier: None,
        coverage: Coverage::default(),
        row_count: 0,
        checks: CheckCounts::default(),
        rpo_seconds: None,
        schema_fingerprint: None,
        time_to_available_seconds: None,
        judged_at: input.now,
        report_key: input.report_key.to_owned(),
    };
    Report {
        format: Report::FORMAT,
        judgement,
        findings,
        tables: Vec::new(),
        checks: Vec::new(),
        source: None,
        restored: None,
        heartbeat_written: None,
        heartbeat_found: None,
        snapshot_taken_at: input.snapshot.taken_at,
        schema: BTreeMap::new(),
        restore: RestoreFacts::default(),
    }
}

fn findings(input: &QuickInput<'_>) -> Vec<Finding> {
    let snapshot = input.snapshot;
    let mut found = Vec::new();
    let mut say = |severity, message: String| {
        found.push(finding(severity, FindingKind::Snapshot, input.snapshot_id, message));
    };
    if snapshot.status != "available" {
        say(Severity::Error, format!("Its status is `{}`, not `available`.", snapshot.status));
    }
    // Aurora's volume has no allocated size, so that RDS reports none.
    let aurora = Engine::of_name(&snapshot.engine).is_some_and(Engine::is_aurora);
    if snapshot.size_gb == 0 && !aurora {
        say(Severity::Error, "Its allocated storage is 0 GiB.".to_owned());
    }
    if let Some(expected) = input.database
        && expected != snapshot.database
    {
        say(Severity::Error, format!("It was taken of `{}`, not of `{expected}`.", snapshot.database));
    }
    if snapshot.tags.get("lifeboat:proof").is_some_and(|proof| proof == "unproven") {
        say(Severity::Error, "It was examined before and found not to be what the source was.".to_owned());
    }
    match snapshot.taken_at.map(|taken| input.now.duration_since(taken).as_secs()) {
        None => say(Severity::Error, "It has no creation time: it is not complete.".to_owned()),
        Some(age) if age < -CLOCK_TOLERANCE_SECONDS => {
            say(Severity::Error, format!("It was taken {} s in the future.", -age));
        }
        Some(age) => {
            if let Some(limit) = input.max_age_seconds
                && age > i64::from(limit)
            {
                say(Severity::Error, format!("It is {age} s old; at most {limit} s were asked for."));
            }
        }
    }
    if !snapshot.encrypted {
        let copies = match snapshot.database_kind {
            DatabaseKind::Instance => "a copy in another Region will be",
            DatabaseKind::Cluster => "a cluster's cannot be copied to another Region under a key",
        };
        say(Severity::Warning, format!("It is not encrypted; {copies}."));
    }
    if !snapshot.tags.contains_key("lifeboat:operation-id") {
        say(Severity::Info, "It was not made by Lifeboat.".to_owned());
    }
    if Engine::of_name(&snapshot.engine).is_none() {
        say(
            Severity::Info,
            format!(
                "Its engine is {} {}: only a quick look is possible.",
                snapshot.engine, snapshot.engine_version
            ),
        );
    }
    found
}

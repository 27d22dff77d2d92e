//! What came of an experiment.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::data::{self, Known};
use super::journal::{Journal, Phase, Reason, StepStatus};
use super::probe::{Finding, Probe, Verdict};
use super::world::State;

/// How an experiment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As planned: the steady state held or came back in time, and everything is as it was.
    Completed,
    /// As planned, but the system did not come back in time, a check at the end did not pass, or the data is not what it
    /// was.
    Deviated,
    /// Somebody stopped it; everything was put back.
    Aborted,
    /// It ended early by itself; everything was put back.
    RolledBack,
    /// Something could not be put back.
    Failed,
}

/// Figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// How long the system needed, milliseconds, as exact as the looks (one second for the first minutes): where it
    /// came back while the faults were in, from the first change; else from the moment in which they began to be taken
    /// out. A database that is not available counts as lost, also when no probe asks. 0 when the steady state was never
    /// seen lost; absent when it did not come back, or when there was nothing to tell it by.
    pub recovery_time: Option<i64>,
    /// From the first look that found the steady state lost to the first that found it back, milliseconds.
    pub outage: Option<i64>,
    /// Whether the data was found intact, by its ledger and by its rows: false as soon as one tells a loss; null when
    /// nothing asked, or when nothing tells, a database that did not answer among it.
    pub data_integrity: Option<bool>,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How it ended.
    pub status: Outcome,
    /// Why the faults were taken out.
    pub reason: Option<Reason>,
    /// Figures.
    pub metrics: Metrics,
    /// Whether any change was put back.
    pub rollback_executed: bool,
    /// The steady state before.
    pub before: Vec<Finding>,
    /// What did not pass while the faults were in.
    pub during: Vec<Finding>,
    /// Steady state and checks at the end.
    pub after: Vec<Finding>,
    /// What became of the rows, where the experiment asks for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<data::Found>,
    /// What a person has to do.
    pub commands: Vec<String>,
    /// When the first change could be made.
    pub started_at: Timestamp,
    /// When everything was put back.
    pub put_back_at: Option<Timestamp>,
}

/// Reads the report off a journal that is ended or stuck, and off what is known of its data check; `None` while it runs.
pub fn report(journal: &Journal, known: Known) -> Option<Report> {
    let check = journal.plan.data_check.as_ref();
    let data = check.map(|check| check.judge(known));
    let accepted = check.zip(data.as_ref()).is_none_or(|(check, found)| check.accepts(found.verdict));
    let status = match journal.status {
        Phase::Stuck => Outcome::Failed,
        Phase::Ended => ended(journal, accepted),
        _ => return None,
    };
    Some(Report {
        status,
        reason: journal.reason.clone(),
        metrics: Metrics {
            recovery_time: recovery_time(journal),
            outage: outage(journal).map(milliseconds),
            data_integrity: data_integrity(journal, data.as_ref()),
        },
        rollback_executed: journal.entries.iter().any(|entry| entry.status == StepStatus::PutBack),
        before: journal.before.clone(),
        during: journal.during.clone(),
        after: journal.after.clone(),
        data,
        commands: journal.commands(),
        started_at: journal.started_at,
        put_back_at: journal.put_back_at,
    })
}

/// What the ledgers and the rows say together.
fn data_integrity(journal: &Journal, rows: Option<&data::Found>) -> Option<bool> {
    let by_rows = rows.map(|found| match found.verdict {
        data::Verdict::Intact => Some(true),
        data::Verdict::Lost => Some(false),
        data::Verdict::Untold | data::Verdict::NotCompared => None,
    });
    let ledgers = journal.after.iter().filter(|finding| matches!(finding.probe, Probe::DataIntact { .. }));
    let by_ledgers = ledgers.map(|finding| finding.intact);
    let all: Vec<Option<bool>> = by_ledgers.chain(by_rows).collect();
    if all.contains(&Some(false)) {
        return Some(false);
    }
    (!all.is_empty() && !all.contains(&None)).then_some(true)
}

/// Saturates where nobody would wait so long.
fn milliseconds(time: SignedDuration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn outage(journal: &Journal) -> Option<SignedDuration> {
    Some(journal.restored_at?.duration_since(journal.disturbed_at?))
}

fn recovery_time(journal: &Journal) -> Option<i64> {
    let databases = journal.entries.iter().any(|entry| matches!(entry.step.recorded, State::Database(_)));
    if (journal.plan.steady_state.is_empty() && !databases) || journal.recovered_at.is_none() {
        return None;
    }
    if journal.disturbed_at.is_none() {
        return Some(0);
    }
    let back = journal.restored_at?;
    let by_itself = journal.rolling_back_at.is_none_or(|taken_out| back <= taken_out);
    let since = if by_itself {
        journal.entries.iter().filter_map(|entry| entry.begun_at).min()
    } else {
        journal.rolling_back_at
    };
    Some(milliseconds(back.duration_since(since?)))
}

fn ended(journal: &Journal, accepted: bool) -> Outcome {
    let passed = |findings: &[Finding]| findings.iter().all(|finding| finding.verdict == Verdict::Passed);
    let patience = SignedDuration::from_secs(i64::from(journal.plan.recovery_seconds));
    let in_time = recovery_time(journal).is_none_or(|time| time <= milliseconds(patience));
    match &journal.reason {
        Some(Reason::Completed) if passed(&journal.after) && in_time && accepted => Outcome::Completed,
        Some(Reason::Completed) => Outcome::Deviated,
        Some(Reason::EmergencyStop(_) | Reason::Cancelled(_)) => Outcome::Aborted,
        _ => Outcome::RolledBack,
    }
}

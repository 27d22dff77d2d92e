//! What came of an experiment.

use jiff::Timestamp;
use serde::Serialize;

use super::journal::{Journal, Phase, Reason, StepStatus};
use super::probe::{Finding, Probe, Verdict};

/// How an experiment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As planned: the system stood it, and everything is as it was.
    Completed,
    /// As planned, but the system did not stand it, or did not come back in time.
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
    /// From the moment in which the faults began to be taken out until the steady state was back, milliseconds; absent
    /// when it did not come back, or when nothing was asked about it.
    pub recovery_time: Option<i64>,
    /// Whether the data was found intact; absent when no probe asked.
    pub data_integrity: Option<bool>,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// What a person has to do.
    pub commands: Vec<String>,
    /// When the first change could be made.
    pub started_at: Timestamp,
    /// When everything was put back.
    pub put_back_at: Option<Timestamp>,
}

/// Reads the report off a journal that is ended or stuck; `None` while it runs.
pub fn report(journal: &Journal) -> Option<Report> {
    let status = match journal.status {
        Phase::Stuck => Outcome::Failed,
        Phase::Ended => ended(journal),
        _ => return None,
    };
    let lasted = |since: Option<Timestamp>| {
        journal.recovered_at.zip(since).map(|(end, start)| end.duration_since(start))
    };
    let asked = !journal.plan.steady_state.is_empty();
    let recovery = lasted(journal.rolling_back_at).filter(|_| asked).map(|time| time.as_millis());
    let data: Vec<&Finding> =
        journal.after.iter().filter(|finding| matches!(finding.probe, Probe::DataIntact { .. })).collect();
    let intact = data.iter().all(|finding| finding.verdict == Verdict::Passed);
    Some(Report {
        status,
        reason: journal.reason.clone(),
        metrics: Metrics {
            recovery_time: recovery.and_then(|time| i64::try_from(time).ok()),
            data_integrity: (!data.is_empty()).then_some(intact),
        },
        rollback_executed: journal.entries.iter().any(|entry| entry.status == StepStatus::PutBack),
        before: journal.before.clone(),
        during: journal.during.clone(),
        after: journal.after.clone(),
        commands: journal.commands(),
        started_at: journal.started_at,
        put_back_at: journal.put_back_at,
    })
}

fn ended(journal: &Journal) -> Outcome {
    let passed = |findings: &[Finding]| findings.iter().all(|finding| finding.verdict == Verdict::Passed);
    match &journal.reason {
        Some(Reason::Completed) if passed(&journal.after) && journal.during.is_empty() => Outcome::Completed,
        Some(Reason::Completed) => Outcome::Deviated,
        Some(Reason::EmergencyStop(_) | Reason::Cancelled(_)) => Outcome::Aborted,
        _ => Outcome::RolledBack,
    }
}

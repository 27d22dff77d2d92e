//! What the function answers: enough to decide by, small enough for a state machine. Everything is in the report.

use std::collections::BTreeMap;

use dr_core::health::alerts::{Kind, Recorded};
use dr_core::health::{Assessment, Component, Finding, Recoverable, Scope, Severity, State};
use jiff::Timestamp;
use serde::Serialize;

/// Findings that an answer spells out, the worst first.
pub const MOST_FINDINGS: usize = 25;
/// Databases that an answer says the way back of, those that would lose most first.
pub const MOST_RECOVERABLE: usize = 25;

/// The answer; its members are a contract with state machines, and it is below 64 KiB.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// `healthy`, `degraded` or `failed`: the worst of the components.
    pub status: State,
    /// What was looked at.
    pub scope: String,
    /// When.
    pub checked_at: Timestamp,
    /// How many findings there are.
    pub counts: Counts,
    /// The state of each component that was looked at.
    pub components: BTreeMap<Component, State>,
    /// The worst findings.
    pub findings: Vec<Finding>,
    /// How many more the report has.
    pub omitted_findings: usize,
    /// What could be recovered if the home Region died now.
    pub if_home_died: Vec<Recoverable>,
    /// How many more the report has.
    pub omitted_databases: usize,
    /// Key of the report in the metadata bucket.
    pub report: String,
    /// What people were told; absent when they were not to be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alerted>,
}

/// Findings by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// A person must act now.
    pub critical: usize,
    /// A person should look; looks that failed are among them.
    pub warning: usize,
    /// Worth knowing.
    pub info: usize,
    /// Looks that failed.
    pub unreachable: usize,
}

/// What people were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alerted {
    /// Findings that are new or worse.
    pub raised: usize,
    /// Findings that are less bad.
    pub eased: usize,
    /// Findings that are over.
    pub recovered: usize,
    /// Messages that were published, those of checks that died included.
    pub messages: usize,
    /// A newer check was there first, so this one changed nothing.
    pub superseded: bool,
}

impl Alerted {
    pub(crate) fn new(recorded: &Recorded) -> Self {
        let of = |kind| recorded.alterations.iter().filter(|one| one.kind == kind).count();
        Self {
            raised: of(Kind::Raised),
            eased: of(Kind::Eased),
            recovered: of(Kind::Recovered),
            messages: recorded.deliver.len(),
            superseded: recorded.superseded,
        }
    }
}

impl Answer {
    pub(crate) fn new(
        assessment: &Assessment,
        scope: &Scope,
        checked_at: Timestamp,
        report: String,
        alert: Option<Alerted>,
    ) -> Self {
        let mut worst_off: Vec<&Recoverable> = assessment.recoverable.iter().collect();
        // No way back at all comes first.
        worst_off.sort_by_key(|one| std::cmp::Reverse(one.rpo_seconds.unwrap_or(i64::MAX)));
        let mut scope = scope.describe();
        scope.truncate(1_000);
        Self {
            status: assessment.state,
            scope,
            checked_at,
            counts: Counts::new(assessment),
            components: assessment.components.clone(),
            findings: assessment.findings.iter().take(MOST_FINDINGS).cloned().collect(),
            omitted_findings: assessment.findings.len().saturating_sub(MOST_FINDINGS),
            if_home_died: worst_off.into_iter().take(MOST_RECOVERABLE).cloned().collect(),
            omitted_databases: assessment.recoverable.len().saturating_sub(MOST_RECOVERABLE),
            report,
            alert,
        }
    }
}

impl Counts {
    pub(crate) fn new(assessment: &Assessment) -> Self {
        Self {
            critical: assessment.count(Severity::Critical),
            warning: assessment.count(Severity::Warning),
            info: assessment.count(Severity::Info),
            unreachable: assessment.unreachable(),
        }
    }
}

/// The report: everything.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report<'a> {
    pub(crate) status: State,
    pub(crate) scope: String,
    pub(crate) checked_at: Timestamp,
    pub(crate) counts: Counts,
    pub(crate) components: &'a BTreeMap<Component, State>,
    pub(crate) findings: &'a [Finding],
    pub(crate) if_home_died: &'a [Recoverable],
}

//! What the function is asked for, and what it answers.

use std::collections::BTreeSet;

use dr_core::chaos::approval::Approval;
use dr_core::chaos::data::Verdict;
use dr_core::chaos::journal::{Phase, Reason, StepStatus};
use dr_core::chaos::probe::Finding;
use dr_core::chaos::report::{Metrics, Outcome};
use dr_core::ids::{DatabaseId, ExecutionArn, OperationId, Region};
use dr_core::observed::DatabaseKind;
use dr_core::request::ValidationOptions;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the function is asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Resolves an experiment into a plan, and asks its pre-checks. Changes nothing.
    Plan(PlanRequest),
    /// Asks people to approve a plan. The state that calls goes on when enough of them did.
    AwaitApproval(AwaitApproval),
    /// Gives an approval.
    Approve(Approve),
    /// Locks everything and opens the journal: from then on the experiment is put back by somebody.
    Arm(Arm),
    /// Goes on with an experiment, as far as nothing has to be waited for.
    Advance(Advance),
    /// Writes the report of an experiment that is over.
    Report(ReportRequest),
    /// Ends an experiment early.
    Cancel(Cancel),
    /// Ends all experiments, in every Region, and refuses new ones.
    EmergencyStop(Words),
    /// Allows beginnings again.
    LiftEmergencyStop(Words),
    /// Finishes what lost runners left.
    Watch(Watch),
    /// Lets our functions call a Region again.
    Unblock(Unblock),
    /// Says where an experiment is.
    Status(OfOperation),
}

/// See [`Request::Plan`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanRequest {
    /// The operation.
    pub operation_id: OperationId,
    /// The experiment, as its user gave it.
    pub request: Value,
}

/// See [`Request::AwaitApproval`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwaitApproval {
    /// The operation.
    pub operation_id: OperationId,
    /// Its execution.
    pub execution: ExecutionArn,
    /// The hash of the plan that was answered.
    pub plan_hash: String,
    /// `$states.context.Task.Token`.
    pub task_token: String,
}

/// See [`Request::Approve`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approve {
    /// The operation.
    pub operation_id: OperationId,
    /// The approval.
    pub approval: Approval,
}

/// See [`Request::Arm`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arm {
    /// The operation.
    pub operation_id: OperationId,
    /// Its execution.
    pub execution: ExecutionArn,
    /// When that began: an emergency stop since then counts, also when it is lifted.
    pub started_at: Timestamp,
    /// The experiment, as its user gave it.
    pub request: Value,
    /// The hash of the plan that was answered.
    pub plan_hash: String,
}

/// See [`Request::Advance`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Advance {
    /// The operation.
    pub operation_id: OperationId,
    /// Its execution: who works on it.
    pub execution: ExecutionArn,
}

/// See [`Request::Report`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportRequest {
    /// The operation.
    pub operation_id: OperationId,
    /// Why its data could not be compared. What was compared all the same counts.
    #[serde(default)]
    pub comparison_failure: Option<Failure>,
}

/// An error that a state machine caught.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// Its name.
    pub error: String,
    /// What Step Functions says: of a function, JSON with an `errorMessage`.
    pub cause: String,
}

impl Failure {
    /// The name and the message, of that the first 1,000 characters.
    pub fn words(&self) -> String {
        let told: Option<Value> = serde_json::from_str(&self.cause).ok();
        let message = told.as_ref().and_then(|told| told.get("errorMessage")).and_then(Value::as_str);
        let message: String = message.unwrap_or(&self.cause).chars().take(1_000).collect();
        format!("{}: {message}", self.error)
    }
}

/// See [`Request::Status`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OfOperation {
    /// The operation.
    pub operation_id: OperationId,
}

/// See [`Request::Cancel`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cancel {
    /// The operation.
    pub operation_id: OperationId,
    /// Who: 1 to 1,000 characters.
    pub by: String,
    /// Why: 1 to 1,000 characters.
    pub reason: String,
}

/// See [`Request::EmergencyStop`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Words {
    /// Who: 1 to 1,000 characters.
    pub by: String,
    /// Why: 1 to 1,000 characters.
    pub reason: String,
}

/// See [`Request::Watch`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {}

/// See [`Request::Unblock`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unblock {
    /// The Region.
    pub region: Region,
    /// Who: 1 to 1,000 characters.
    pub by: String,
}

/// What the function answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Of `plan`.
    Planned(Box<Planned>),
    /// Of `awaitApproval`.
    Asked(Asked),
    /// Of `approve`.
    Approved(Count),
    /// Of `arm` and `advance`.
    Standing(Box<Standing>),
    /// Of `report`.
    Reported(Box<Reported>),
    /// Of `emergencyStop` and `liftEmergencyStop`.
    Stopped(Stopped),
    /// Of `watch`.
    Watched(Watched),
    /// Of `unblock`.
    Unblocked(Unblocked),
    /// Of `status`.
    Status(Box<Status>),
}

/// A plan, as far as a state machine and people need it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// The experiment's name.
    pub experiment_id: String,
    /// What approvals are bound to.
    pub plan_hash: String,
    /// Whether nothing more is to be done.
    pub dry_run: bool,
    /// Whether it could begin now.
    pub ready: bool,
    /// What is in the way; only of a dry run, because any other fails.
    pub obstacles: Vec<String>,
    /// How many approvers it needs.
    pub approvals: u8,
    /// How long is waited for them, seconds.
    pub approval_seconds: u32,
    /// How many changes.
    pub steps: usize,
    /// How many resources of each kind.
    pub blast_radius: String,
    /// How long the faults stay, seconds.
    pub duration_seconds: u32,
    /// From the first change to the last thing put back, at worst, seconds.
    pub worst_case_seconds: u32,
    /// What is read before and after: members of `validate_backup`'s requests; null when nothing is.
    pub data_check: Option<DataAsked>,
    /// Key of the whole plan in the metadata bucket.
    pub plan_key: String,
    /// Which call on which resource, and what undoes it.
    pub lines: Vec<String>,
}

/// How the rows of a database are read, before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataAsked {
    /// The database.
    pub database: DatabaseId,
    /// What that is.
    pub database_kind: DatabaseKind,
    /// How it is read.
    pub validation: ValidationOptions,
}

/// What became of the rows, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataTold {
    /// In one word.
    pub verdict: Verdict,
    /// In a sentence.
    pub detail: String,
}

/// People were asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Always true.
    pub asked: bool,
}

/// An approval was taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// How many count.
    pub counted: usize,
    /// How many are needed.
    pub needed: u8,
    /// Whether the experiment goes on.
    pub approved: bool,
}

/// Where an experiment is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The phase.
    pub phase: Phase,
    /// Why its faults come out, or came out.
    pub reason: Option<Reason>,
    /// When to call again; 0 for at once.
    pub check_again_in_seconds: u32,
    /// What is waited for.
    pub why: String,
    /// The hash of the plan that is carried out.
    pub plan_hash: String,
}

/// What came of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reported {
    /// The operation.
    pub operation_id: OperationId,
    /// The experiment's name.
    pub experiment_id: String,
    /// How it ended.
    pub status: Outcome,
    /// Why its faults were taken out.
    pub reason: Option<Reason>,
    /// Figures.
    pub metrics: Metrics,
    /// What became of the rows; null when that was not asked.
    pub data: Option<DataTold>,
    /// Whether any change was put back.
    pub rollback_executed: bool,
    /// Key of the report in the metadata bucket.
    pub report_key: String,
    /// What a person has to do, in this order; the report has all of them.
    pub commands: Vec<String>,
    /// The same in words.
    pub summary: String,
}

/// What an emergency stop did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// In each Region.
    pub regions: Vec<RegionStop>,
    /// Experiments that are not over, here and, of a standby, at home; absent when they could not be listed.
    pub experiments: Option<usize>,
}

/// What an emergency stop did in one Region.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionStop {
    /// The Region.
    pub region: Region,
    /// `in-force`, `lifted` or `no-installation`.
    pub status: &'static str,
}

/// What the watchdog saw and did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Watched {
    /// Experiments that are not over.
    pub open: usize,
    /// Those among them whose runner was lost.
    pub abandoned: usize,
    /// Those that were brought to their end.
    pub ended: usize,
    /// Those that need a person.
    pub stuck: usize,
    /// Those among them that could not be read, or not be worked on for longer than they should have lasted.
    pub failed: usize,
}

/// A Region was unblocked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unblocked {
    /// The Region.
    pub region: Region,
    /// Always false.
    pub blocked: bool,
}

/// Where an experiment is, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The operation.
    pub operation_id: OperationId,
    /// The experiment's name.
    pub experiment_id: String,
    /// The phase; `awaiting-approval` before it begins.
    pub phase: String,
    /// Who works on it.
    pub holder: Option<String>,
    /// Until when nobody else may.
    pub lease_until: Option<Timestamp>,
    /// Why its faults are taken out.
    pub reason: Option<Reason>,
    /// Its changes.
    pub journal: Vec<Line>,
    /// The steady state before.
    pub before: Vec<Finding>,
    /// What did not pass while the faults were in.
    pub during: Vec<Finding>,
    /// Steady state and checks at the end.
    pub after: Vec<Finding>,
    /// Who approved.
    pub approved_by: BTreeSet<String>,
    /// The hash of its plan.
    pub plan_hash: String,
    /// Figures, once it is over. What became of its rows is in the report.
    pub metrics: Option<Metrics>,
    /// What a person would have to do now to put everything back.
    pub commands: Vec<String>,
}

/// A change, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The change, as a command.
    pub change: String,
    /// What became of it.
    pub status: StepStatus,
    /// When its undo was written down.
    pub begun_at: Option<Timestamp>,
    /// When it was seen put back.
    pub put_back_at: Option<Timestamp>,
    /// When AWS starts a stopped database by itself, if nobody does before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_by_itself_at: Option<Timestamp>,
    /// What is in the way.
    pub trouble: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_a_machine_caught_is_told_by_its_message() {
        let failure = |cause: &str| Failure { error: "Dr.QueryFailed".to_owned(), cause: cause.to_owned() };
        let ours = r#"{"errorType":"Dr.QueryFailed","errorMessage":"comparing `orders`: it timed out"}"#;
        assert_eq!(failure(ours).words(), "Dr.QueryFailed: comparing `orders`: it timed out");
        assert_eq!(failure("it is gone").words(), "Dr.QueryFailed: it is gone");
        assert_eq!(failure(&"x".repeat(5_000)).words().len(), 1_016);
    }
}

//! What people are told: requests for approval, and reports.

use std::time::Duration;

use dr_aws::metrics;
use dr_aws::objects::Overwrite;
use dr_core::chaos::data::{self, Known};
use dr_core::chaos::experiment::Family;
use dr_core::chaos::journal::{Journal, Phase};
use dr_core::chaos::plan::ExperimentPlan;
use dr_core::chaos::report::{self, Outcome, Report};
use dr_core::ids::OperationId;
use dr_core::{DrError, ErrorName, Result};
use futures_util::future::join_all;
use serde::Serialize;

use crate::request::{Answer, DataTold, ReportRequest, Reported};
use crate::{Desk, Handler, as_json};

/// Commands that an answer spells out; the report has all.
const MOST_COMMANDS: usize = 20;

/// What is kept in the metadata bucket of an experiment that is over.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept<'a> {
    operation_id: &'a OperationId,
    experiment_id: &'a str,
    plan_hash: String,
    #[serde(flatten)]
    report: &'a Report,
    journal: &'a Journal,
}

impl Handler {
    /// Tells people that an experiment waits for them, and how to approve.
    pub(crate) async fn ask_people(
        &self,
        operation: &OperationId,
        plan: &ExperimentPlan,
        hash: &str,
    ) -> Result<()> {
        let subject =
            format!("Lifeboat: experiment {} waits for {} approval(s)", plan.experiment_id, plan.approvals);
        let by = plan.requested_by.as_deref().unwrap_or("nobody");
        let mut lines = vec![
            format!("{by} asks for the experiment {} ({}).", plan.experiment_id, plan.blast_radius()),
            format!("Operation {operation}, plan {hash}."),
            String::new(),
        ];
        lines.extend(plan.lines());
        lines.push(String::new());
        lines.push(format!(
            "To approve it, whoever did not ask for it signs the plan's hash within {} minutes: runbook \"Approve an \
             experiment\". To refuse it, stop its execution.",
            self.config.approval_seconds / 60
        ));
        let topics = self.clients.topics();
        Box::pin(topics.publish(&self.config.topics.warning, &subject, &lines.join("\n"))).await
    }

    pub(crate) async fn report(&self, request: &ReportRequest) -> Result<Answer> {
        let desk = self.home();
        let journal = desk.expect_journal(&request.operation_id).await?;
        let known = match (self.comparison(&journal).await?, &request.comparison_failure) {
            (Known::Nothing, Some(failure)) => Known::Failed(failure.words()),
            (known, _) => known,
        };
        let reported = desk.write_report(&journal, known.clone()).await?;
        self.tell_channels(&journal, &reported).await?;
        // After all that can fail and is tried again.
        count(&journal, known, Moment::Reported);
        Ok(Answer::Reported(Box::new(reported)))
    }

    /// What `validate_backup` has recorded of the rows before and after. A standby has no record of its home's.
    pub(crate) async fn comparison(&self, journal: &Journal) -> Result<Known> {
        if journal.plan.data_check.is_none() || journal.status != Phase::Ended {
            return Ok(Known::Nothing);
        }
        let key = format!("operations/{}/compare/report.json", journal.owner);
        let bucket = self.clients.bucket(&self.config.bucket);
        let Some(body) = Box::pin(bucket.get(&key)).await? else { return Ok(Known::Nothing) };
        serde_json::from_slice(&body).map(|comparison| Known::Compared(Box::new(comparison))).map_err(
            |error| {
                let what = format!("reading the record `{key}`: malformed at line {}", error.line());
                DrError::new(ErrorName::MetadataDamaged, what)
            },
        )
    }

    /// Tells the channels that the experiment names: one that cannot be told keeps no other from it.
    pub(crate) async fn tell_channels(&self, journal: &Journal, reported: &Reported) -> Result<()> {
        let topics = self.clients.topics();
        // A channel that was configured when the experiment began may be gone.
        let channels = journal.plan.channels.iter().filter_map(|name| self.config.channels.get(name));
        let subject = subject(reported);
        let told = channels.map(|topic| topics.publish(topic, &subject, &reported.summary));
        Box::pin(join_all(told)).await.into_iter().collect()
    }
}

impl Desk<'_> {
    /// Writes the report of an experiment that is over or stuck. The same again is the same.
    ///
    /// # Errors
    /// [`ErrorName::OperationInProgress`] while it runs.
    pub(crate) async fn write_report(&self, journal: &Journal, known: Known) -> Result<Reported> {
        let (reported, kept) = self.reported(journal, known).await?;
        kept.map(|()| reported)
    }

    /// The same, for whom it must be told also when it cannot be kept: the report, and what became of keeping it.
    ///
    /// # Errors
    /// As [`Self::write_report`], but for the storage.
    pub(crate) async fn reported(&self, journal: &Journal, known: Known) -> Result<(Reported, Result<()>)> {
        let Some(report) = report::report(journal, known) else {
            let what = format!("reporting {}: it is {}", journal.owner, journal.status.as_str());
            return Err(DrError::new(ErrorName::OperationInProgress, what));
        };
        let kept = Kept {
            operation_id: &journal.owner,
            experiment_id: &journal.plan.experiment_id,
            plan_hash: journal.plan.hash()?,
            report: &report,
            journal,
        };
        let key = format!("chaos/{}/report.json", journal.owner);
        let body = as_json("an experiment's report", &kept)?;
        let bucket = self.handler.clients.bucket(&self.handler.config.bucket);
        let kept = Box::pin(bucket.put(&key, body, "application/json", Overwrite::Allowed)).await.map(|_| ());
        let summary = summary(journal, &report, &key);
        let reported = Reported {
            operation_id: journal.owner.clone(),
            experiment_id: journal.plan.experiment_id.clone(),
            status: report.status,
            reason: report.reason,
            metrics: report.metrics,
            data: report.data.map(|found| DataTold { verdict: found.verdict, detail: found.detail }),
            rollback_executed: report.rollback_executed,
            report_key: key,
            commands: report.commands.into_iter().take(MOST_COMMANDS).collect(),
            summary,
        };
        Ok((reported, kept))
    }

    /// Tells the installation's topics what became of an experiment whose execution no longer can.
    pub(crate) async fn announce(&self, reported: &Reported) -> Result<()> {
        let topics = &self.handler.config.topics;
        let topic = match reported.status {
            Outcome::Failed => &topics.critical,
            Outcome::Completed => &topics.info,
            Outcome::Deviated | Outcome::Aborted | Outcome::RolledBack => &topics.warning,
        };
        let client = self.handler.clients.topics();
        Box::pin(client.publish(topic, &subject(reported), &reported.summary)).await
    }
}

/// When an experiment may be counted. It is once: as soon as how it ended can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Its last journal is written, or the one that says that it is stuck.
    Saved,
    /// Its report is, with the comparison of its rows. One whose execution is lost between its end and its report is not
    /// counted.
    Reported,
}

/// Counts an experiment that is over, or has just become stuck, if this is the moment for it.
pub(crate) fn count(journal: &Journal, known: Known, moment: Moment) {
    let compares = journal.status == Phase::Ended && journal.plan.data_check.is_some();
    if moment != if compares { Moment::Reported } else { Moment::Saved } {
        return;
    }
    let Some(report) = report::report(journal, known) else { return };
    let operation = match journal.plan.family {
        Family::Database => "chaos_database",
        Family::Infrastructure => "chaos_infrastructure",
        Family::Network => "chaos_network",
        Family::Regional => "chaos_regional",
        Family::Application => "chaos_application",
    };
    metrics::operation_ended(operation, word(report.status), None);
    if let Some(time) = report.metrics.recovery_time {
        let seconds = Duration::from_millis(time.unsigned_abs()).as_secs_f64();
        metrics::value(metrics::RECOVERY_TIME_SECONDS, operation, seconds);
    }
}

const fn word(status: Outcome) -> &'static str {
    match status {
        Outcome::Completed => "completed",
        Outcome::Deviated => "deviated",
        Outcome::Aborted => "aborted",
        Outcome::RolledBack => "rolled-back",
        Outcome::Failed => "failed",
    }
}

/// The subject of a message: at most 100 characters of ASCII.
fn subject(reported: &Reported) -> String {
    let verdict = match reported.status {
        Outcome::Failed => "needs you: not everything was put back",
        status => word(status),
    };
    format!("Lifeboat: experiment {} {verdict}", reported.experiment_id).chars().take(100).collect()
}

fn summary(journal: &Journal, report: &Report, key: &str) -> String {
    let mut lines = vec![format!(
        "Experiment {} ({}) ended: {}.",
        journal.plan.experiment_id,
        journal.owner,
        word(report.status)
    )];
    if let Some(reason) = &report.reason {
        lines.push(format!("Its faults were taken out because: {}.", reason.words()));
    }
    if let Some(milliseconds) = report.metrics.recovery_time {
        lines.push(format!(
            "Recovery time: {:.1} s.",
            Duration::from_millis(milliseconds.unsigned_abs()).as_secs_f64()
        ));
    }
    match report.metrics.data_integrity {
        Some(true) => lines.push("The data is intact.".to_owned()),
        Some(false) => lines.push("The data was NOT found intact.".to_owned()),
        None => {}
    }
    if let Some(data::Found { database, detail, .. }) = &report.data {
        lines.push(format!("The rows of {database}, before and after: {detail}."));
    }
    if report.status == Outcome::Failed {
        lines.push("Not everything is as it was. Run these, in this order, and look after each (runbook \"A rollback failed\"):".to_owned());
        lines.extend(report.commands.iter().cloned());
    }
    lines.push(format!("Report: {key} in the metadata bucket."));
    lines.join("\n")
}

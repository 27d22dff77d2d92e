//! Asking probes. Each answer is a finding; what could not be looked at is `unknown`, never a failure of the caller.

use std::collections::BTreeSet;
use std::time::Duration;

use dr_aws::Invocation;
use dr_aws::measures::{Lag, Subject};
use dr_core::chaos::plan::ExperimentPlan;
use dr_core::chaos::probe::{Finding, Health, Probe, Verdict};
use dr_core::ids::{DatabaseId, OperationId, Region};
use dr_core::labels::{self, Proof};
use dr_core::observed::{DatabaseFacts, DatabaseKind, Observed, SnapshotFacts};
use dr_core::{DrError, ErrorName, Result};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::Handler;

/// How long a function that answers a probe may take.
const WITHIN: Duration = Duration::from_secs(15);

/// On whose behalf probes are asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The operation.
    pub(crate) operation: &'a OperationId,
    /// Whether not even a beat may be written: nothing has begun.
    pub(crate) look_only: bool,
}

/// What was seen.
struct Seen {
    /// Whether it is as asked.
    good: bool,
    /// How it is.
    detail: String,
    /// What a ledger says.
    intact: Option<bool>,
}

impl From<(bool, String)> for Seen {
    fn from((good, detail): (bool, String)) -> Self {
        Self { good, detail, intact: None }
    }
}

impl Handler {
    /// Asks all probes at once.
    pub(crate) async fn ask(
        &self,
        probes: &[Probe],
        plan: &ExperimentPlan,
        of: Asker<'_>,
        invocation: &Invocation,
    ) -> Vec<Finding> {
        join_all(probes.iter().map(async |probe| {
            let (verdict, detail, intact) =
                match Box::pin(self.ask_one(probe, plan, of, invocation.now())).await {
                    Ok(Seen { good: true, detail, intact }) => (Verdict::Passed, detail, intact),
                    Ok(Seen { good: false, detail, intact }) => (Verdict::Failed, detail, intact),
                    Err(error) => (Verdict::Unknown, error.to_string(), None),
                };
            Finding { probe: probe.clone(), verdict, detail, intact, at: invocation.now() }
        }))
        .await
    }

    async fn ask_one(
        &self,
        probe: &Probe,
        plan: &ExperimentPlan,
        of: Asker<'_>,
        now: Timestamp,
    ) -> Result<Seen> {
        let region = &plan.region;
        match probe {
            Probe::BackupsExist { database, within_hours } => {
                let age = SignedDuration::from_hours(i64::from(*within_hours));
                let snapshots = self.snapshots(region, database).await?;
                Ok(newest_proven(&snapshots, now, age).into())
            }
            Probe::LatestSnapshotProven { database } => {
                Ok(latest_proven(&self.snapshots(region, database).await?).into())
            }
            Probe::ReplicationLagBelow { database, seconds } => {
                self.lag(region, database, *seconds, now).await.map(Seen::from)
            }
            Probe::HealthIs { database, at_worst } => {
                let asked = json!({"check": {"databases": [database], "alert": false}});
                let answer = self.invoke(self.config.health_check.as_deref(), &asked).await?;
                let state = answer.get("status").and_then(Value::as_str).unwrap_or("unknown");
                let good = match at_worst {
                    Health::Healthy => state == "healthy",
                    Health::Warning => matches!(state, "healthy" | "degraded"),
                };
                let report = answer.get("report").and_then(Value::as_str).unwrap_or("none");
                Ok((good, format!("health is {state}, see report {report}")).into())
            }
            Probe::DataIntact { database } => {
                let (operation, look_only) = (of.operation, of.look_only);
                let asked = json!({"operationId": operation, "database": database, "lookOnly": look_only});
                match self.invoke(self.config.validate_backup.as_deref(), &json!({"ledger": asked})).await {
                    Ok(answer) => Ok(ledger(&answer)),
                    // A database that does not answer is what was asked about, not what kept us from asking.
                    Err(error) if is_outage(error.name()) => Ok((false, error.what().to_owned()).into()),
                    Err(error) => Err(error),
                }
            }
            Probe::Http { url, status, within_milliseconds } => {
                let within = Duration::from_millis(u64::from(*within_milliseconds));
                Ok(self.http.ask(url, *status, within).await.into())
            }
            Probe::AlarmIsOk { alarm, region: asked } => {
                let region = asked.as_ref().unwrap_or(region);
                match self.world.alarm_state(region, alarm).await {
                    Observed::Found(state) => {
                        Ok((state == "OK", format!("the alarm is in state {state}")).into())
                    }
                    Observed::Missing => Ok((false, format!("there is no such alarm in {region}")).into()),
                    Observed::Unreachable(error) => Err(error),
                }
            }
        }
    }

    pub(crate) async fn invoke(&self, function: Option<&str>, payload: &Value) -> Result<Value> {
        let Some(function) = function else {
            let what = "asking another function: it is not configured";
            return Err(DrError::new(ErrorName::InvalidConfiguration, what));
        };
        self.world.invoke(function, payload, WITHIN).await
    }

    async fn database(&self, region: &Region, id: &DatabaseId) -> Result<DatabaseFacts> {
        let found = Box::pin(self.clients.rds(region).find_database(id, None)).await;
        found.found_or_else(|| {
            let what = format!("looking for database {id} in {region}");
            DrError::new(ErrorName::DatabaseMissing, what)
        })
    }

    async fn snapshots(&self, region: &Region, id: &DatabaseId) -> Result<Vec<SnapshotFacts>> {
        let rds = self.clients.rds(region);
        match self.database(region, id).await?.kind {
            DatabaseKind::Cluster => Box::pin(rds.snapshots_of_cluster(id)).await,
            DatabaseKind::Instance => Box::pin(rds.snapshots_of(id)).await,
        }
    }

    async fn lag(
        &self,
        region: &Region,
        id: &DatabaseId,
        seconds: u32,
        now: Timestamp,
    ) -> Result<(bool, String)> {
        let facts = self.database(region, id).await?;
        let aurora = facts.kind == DatabaseKind::Cluster && facts.engine.starts_with("aurora");
        let members: BTreeSet<String> = facts
            .members
            .iter()
            .filter(|member| !member.writer)
            .map(|member| member.id.to_string())
            .collect();
        let source = facts.id.to_string();
        let replicas = Box::pin(self.clients.rds(region).databases_where(|other| {
            let of_source = other
                .replica_of
                .as_deref()
                .is_some_and(|name| name == source || name.rsplit(':').next() == Some(source.as_str()));
            of_source && other.cluster.is_none()
        }))
        .await?;
        let lag = |id: String, lag| Subject { id, has_storage: false, lag };
        let readers = if aurora { Lag::AuroraReader } else { Lag::Replica };
        let subjects: Vec<Subject> = members
            .into_iter()
            .map(|id| lag(id, readers))
            .chain(replicas.iter().map(|replica| lag(replica.id.to_string(), Lag::Replica)))
            .collect();
        if subjects.is_empty() {
            return Ok((false, format!("{id} has no replica in {region}")));
        }
        let measured = Box::pin(self.clients.measures(region).newest(&subjects, now)).await?;
        let lags = subjects.iter().map(|subject| {
            (subject.id.as_str(), measured.get(&subject.id).and_then(|measure| measure.lag_seconds))
        });
        Ok(lag_below(lags, seconds))
    }
}

/// Whether every replica's lag is known and below so many seconds. RDS says -1 of a replica that does not replicate.
fn lag_below<'a>(lags: impl Iterator<Item = (&'a str, Option<f64>)>, seconds: u32) -> (bool, String) {
    let mut worst: f64 = 0.0;
    for (replica, lag) in lags {
        match lag {
            None => return (false, format!("nothing is known of the lag of {replica}")),
            Some(lag) if lag < 0.0 => return (false, format!("{replica} does not replicate")),
            Some(lag) => worst = worst.max(lag),
        }
    }
    (worst < f64::from(seconds), format!("the worst replica lags {worst:.1} s"))
}

fn is_outage(name: ErrorName) -> bool {
    matches!(name, ErrorName::ConnectionFailed | ErrorName::ConnectionLost | ErrorName::DatabaseUnavailable)
}

fn ours(snapshot: &SnapshotFacts) -> bool {
    snapshot.tags.contains_key(labels::OPERATION_ID) && snapshot.status == "available"
}

fn proven(snapshot: &SnapshotFacts) -> bool {
    labels::has(&snapshot.tags, labels::PROOF, Proof::Proven.as_str())
}

fn newest_proven(snapshots: &[SnapshotFacts], now: Timestamp, age: SignedDuration) -> (bool, String) {
    let newest = snapshots
        .iter()
        .filter(|snapshot| ours(snapshot))
        .filter(|snapshot| proven(snapshot))
        .filter_map(|snapshot| Some((snapshot.taken_at()?, &snapshot.id)))
        .max();
    match newest {
        None => (false, "there is no proven backup".to_owned()),
        Some((taken, id)) => {
            let hours = now.duration_since(taken).as_secs_f64() / 3_600.0;
            (taken + age >= now, format!("the newest proven backup, {id}, is {hours:.1} hours old"))
        }
    }
}

fn latest_proven(snapshots: &[SnapshotFacts]) -> (bool, String) {
    let latest =
        snapshots.iter().filter(|snapshot| ours(snapshot)).max_by_key(|snapshot| snapshot.taken_at());
    match latest {
        None => (false, "there is no backup".to_owned()),
        Some(latest) => {
            let proof = latest.tags.get(labels::PROOF).map_or("nothing", String::as_str);
            (proven(latest), format!("the newest backup is {}, its proof says {proof}", latest.id))
        }
    }
}

fn ledger(answer: &Value) -> Seen {
    let number = |field: &str| answer.get(field).and_then(Value::as_u64);
    let (acknowledged, found) = (number("acknowledged").unwrap_or(0), number("found"));
    let intact = answer.get("intact").and_then(Value::as_bool) == Some(true);
    let found = found.map_or("none".to_owned(), |found| found.to_string());
    let detail = format!("beat {acknowledged} was acknowledged, {found} is there");
    Seen { good: intact, detail, intact: Some(intact) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_lag_must_be_known_and_below_the_bound() {
        for (lags, good, says) in [
            (vec![Some(0.5), Some(4.9)], true, "lags 4.9 s"),
            (vec![Some(5.0)], false, "lags 5.0 s"),
            (vec![Some(0.0), Some(-1.0)], false, "r1 does not replicate"),
            (vec![Some(0.0), None], false, "nothing is known of the lag of r1"),
        ] {
            let named = lags.iter().enumerate().map(|(at, lag)| (["r0", "r1"][at], *lag));
            let (is, why) = lag_below(named, 5);
            assert!(is == good && why.contains(says), "{lags:?}: {why}");
        }
    }

    fn now() -> Timestamp {
        "2026-11-25T12:00:00Z".parse().unwrap()
    }

    /// A snapshot of ours, so many hours old.
    fn backup(id: &str, hours: i64, status: &str, proof: &str) -> SnapshotFacts {
        serde_json::from_value(json!({
            "id": id, "arn": "arn:x", "region": "us-east-1", "database": "orders", "status": status, "percent": 100,
            "kind": "manual", "engine": "postgres", "engineVersion": "17.2", "encrypted": true, "sizeGb": 20,
            "originalCreatedAt": now() - SignedDuration::from_hours(hours),
            "tags": {labels::OPERATION_ID: "backup-0123456789abcdef", labels::PROOF: proof},
        }))
        .unwrap()
    }

    #[test]
    fn a_backup_counts_when_it_is_ours_proven_available_and_young_enough() {
        let day = SignedDuration::from_hours(24);
        let mut foreign = backup("foreign", 1, "available", "proven");
        foreign.tags.remove(labels::OPERATION_ID);
        for (snapshots, good, says) in [
            (
                vec![backup("old", 30, "available", "proven"), backup("young", 24, "available", "proven")],
                true,
                "young",
            ),
            (vec![backup("old", 25, "available", "proven")], false, "old, is 25.0 hours old"),
            (
                vec![backup("old", 25, "available", "proven"), backup("new", 1, "available", "unproven")],
                false,
                "old",
            ),
            (
                vec![backup("old", 25, "available", "proven"), backup("new", 1, "failed", "proven")],
                false,
                "old",
            ),
            (vec![foreign], false, "no proven backup"),
        ] {
            let (is, why) = newest_proven(&snapshots, now(), day);
            assert!(is == good && why.contains(says), "{why}");
        }
    }

    #[test]
    fn the_newest_backup_itself_must_be_proven() {
        let proven = || backup("old", 5, "available", "proven");
        for (snapshots, good, says) in [
            (vec![proven()], true, "old, its proof says proven"),
            (
                vec![backup("new", 1, "available", "unproven"), proven()],
                false,
                "new, its proof says unproven",
            ),
            (vec![proven(), backup("new", 1, "available", "pending")], false, "new, its proof says pending"),
            (vec![proven(), backup("new", 1, "creating", "pending")], true, "old"),
            (vec![], false, "no backup"),
        ] {
            let (is, why) = latest_proven(&snapshots);
            assert!(is == good && why.contains(says), "{why}");
        }
    }
}

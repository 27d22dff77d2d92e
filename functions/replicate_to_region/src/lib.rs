//! Brings one snapshot into one Region under that Region's key, and verifies what arrived.
//!
//! One idempotent call: it looks at the key, the source and the copy, decides (`dr_core::replication`), acts at most
//! once, and says when to call again. It deletes nothing but its own copy that RDS reports as failed.

use std::collections::BTreeMap;

use dr_aws::clients::Clients;
use dr_aws::metrics;
use dr_aws::rds::CopyStart;
use dr_core::config::{self, Vars};
use dr_core::ids::{DatabaseId, KmsKeyId, OperationId, Region, SnapshotId};
use dr_core::observed::{DatabaseKind, SnapshotArn};
use dr_core::polling::{Earlier, Pause, Step};
use dr_core::replication::{self, Arrived, CopyOrder, CopyRequest, CopyStep};
use dr_core::{ErrorClass, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The function's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `DR_TARGET_REGIONS`: the Regions that copies may go to.
    pub regions: Vec<Region>,
    /// `DR_TARGET_KMS_KEY_IDS`: their keys.
    pub keys: BTreeMap<Region, KmsKeyId>,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// [`dr_core::ErrorName::InvalidConfiguration`] naming every fault.
    pub fn read(mut vars: Vars<'_>) -> Result<Self> {
        let regions = vars.list("DR_TARGET_REGIONS", config::id);
        let keys = vars.region_keys("DR_TARGET_KMS_KEY_IDS");
        vars.build(|| Some(Self { regions, keys }))
    }
}

/// The payload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Bring the copy about.
    Copy(Copy),
}

/// Bring the copy about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Copy {
    /// The operation.
    pub operation_id: OperationId,
    /// The database that the snapshot was taken of.
    #[serde(default)]
    pub database: Option<DatabaseId>,
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// Its ARN.
    pub snapshot_arn: SnapshotArn,
    /// Where to.
    pub region: Region,
    /// Key of that Region; the configured one when absent.
    #[serde(default)]
    pub kms_key_id: Option<KmsKeyId>,
    /// The user's tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// From when retention may delete the copy.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// When the copying was begun.
    pub started_at: Timestamp,
    /// What such copies took before, as `update_state` answered it.
    #[serde(default)]
    pub earlier: Option<Earlier>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "status")]
pub enum Answer {
    /// Not there yet.
    Pending {
        /// Where to.
        region: Region,
        /// 0 to 100.
        percent: i32,
        /// When to call again.
        check_again_in_seconds: u32,
        /// Why then, where that follows from earlier copies.
        #[serde(skip_serializing_if = "Option::is_none")]
        waiting: Option<String>,
        /// What is waited for: `update_state` knows by it what such copies took before.
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<Step>,
    },
    /// There, and verified.
    Done(Arrived),
}

/// The function with what it shares between invocations.
#[derive(Debug)]
pub struct Replicator {
    /// Clients.
    pub clients: Clients,
    /// Configuration.
    pub config: Config,
}

impl Replicator {
    /// Answers one request.
    ///
    /// # Errors
    /// Those of [`dr_core::replication`], and those of the calls to KMS and RDS.
    pub async fn handle(&self, request: Request, now: Timestamp) -> Result<Answer> {
        let Request::Copy(ask) = request;
        let seconds = now.duration_since(ask.started_at).as_secs_f64();
        let outcome = self.copy(ask, now).await;
        count(&outcome, seconds, now);
        outcome
    }

    async fn copy(&self, ask: Copy, now: Timestamp) -> Result<Answer> {
        let key = replication::key_for(&ask.region, ask.kms_key_id, &self.config.keys);
        let order = CopyOrder {
            operation: ask.operation_id,
            database: ask.database,
            source: ask.snapshot_arn,
            key: match key {
                Ok(key) => key,
                // An unknown Region has no key either, and that is the better thing to say.
                Err(error) => {
                    return Err(replication::check_region(&ask.region, &self.config.regions)
                        .err()
                        .unwrap_or(error));
                }
            },
            region: ask.region,
            tags: ask.tags,
            expires_at: ask.expires_at,
            started_at: ask.started_at,
            earlier: ask.earlier,
        };
        replication::check_order(&order, &ask.snapshot_id, &self.config.regions)?;

        let there = self.clients.rds(&order.region);
        let here = self.clients.rds(order.source.region());
        let kms = self.clients.kms(&order.region);
        let (copy_id, kind) = (order.copy_id(), order.source.kind());
        let (key, source, copy) = tokio::join!(
            kms.describe_key(&order.key),
            here.find_snapshot(order.source.id(), Some(kind)),
            there.find_snapshot(&copy_id, Some(kind)),
        );
        let key_arn = replication::check_key(&order, key)?;
        let step = match replication::decide(&order, &key_arn, source, copy, now)? {
            CopyStep::Copy(request) => self.start(&order, &request, now).await?,
            step => step,
        };
        match step {
            CopyStep::StartOver { source_arn, mark, delete, check_again_in_seconds } => {
                if !mark.is_empty() {
                    here.tag(&source_arn, &mark).await?;
                }
                // Not now, or gone already: the next call looks again either way.
                match kind {
                    DatabaseKind::Instance => there.delete_snapshot(&delete).await?,
                    DatabaseKind::Cluster => there.delete_cluster_snapshot(&delete).await?,
                };
                Ok(pending(order.region, check_again_in_seconds))
            }
            CopyStep::Wait { percent, pause, step } => Ok(Answer::Pending {
                region: order.region,
                percent,
                check_again_in_seconds: pause.seconds,
                waiting: pause.why,
                step,
            }),
            CopyStep::Done(arrived) => Ok(Answer::Done(*arrived)),
            CopyStep::Copy(_) => Ok(pending(order.region, 5)),
        }
    }

    /// Asks for the copy, and says what that leads to.
    async fn start(&self, order: &CopyOrder, request: &CopyRequest, now: Timestamp) -> Result<CopyStep> {
        match self.clients.rds(&order.region).copy_snapshot(request).await? {
            CopyStart::Started(facts) => {
                let pause = Pause { seconds: 5, why: None };
                let step = Some(replication::step(order, &facts));
                Ok(CopyStep::Wait { percent: facts.percent, pause, step })
            }
            // Taken between the look and the call: the next call sees by whom.
            CopyStart::NameTaken => {
                Ok(CopyStep::Wait { percent: 0, pause: Pause { seconds: 5, why: None }, step: None })
            }
            CopyStart::Limited { message } => replication::decide_limit(order, &message, now),
        }
    }
}

fn pending(region: Region, check_again_in_seconds: u32) -> Answer {
    Answer::Pending { region, percent: 0, check_again_in_seconds, waiting: None, step: None }
}

fn count(outcome: &Result<Answer>, seconds: f64, now: Timestamp) {
    match outcome {
        Ok(Answer::Done(arrived)) => {
            metrics::operation_ended("replication", "success", Some(seconds));
            let lag = now.duration_since(arrived.original_snapshot_create_time).as_secs_f64();
            metrics::regional_value(metrics::REPLICATION_LAG_SECONDS, &arrived.region, lag);
        }
        Ok(Answer::Pending { .. }) => {}
        // What is tried again has not ended.
        Err(error) if error.name().class() == ErrorClass::Retry => {}
        Err(_) => metrics::operation_ended("replication", "failure", Some(seconds)),
    }
}

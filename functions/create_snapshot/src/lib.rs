//! Finds the source database, takes the snapshot, looks after it, and writes the verdict on it.
//!
//! One call does one thing and comes back; waiting is the state machine's task. Each action is safe to repeat. It
//! never deletes anything.

use std::collections::BTreeMap;

use dr_aws::clients::Clients;
use dr_aws::metrics;
use dr_aws::rds::{Rds, SnapshotStart};
use dr_core::ids::{DatabaseId, OperationId, SnapshotId};
use dr_core::observed::{DatabaseFacts, DatabaseKind, Scaling, SnapshotFacts};
use dr_core::origin;
use dr_core::polling::{Earlier, Step, Took};
use dr_core::proof::judgement::Level;
use dr_core::request::Selector;
use dr_core::snapshot::{self, Creation, Progress, SnapshotOrder, Verdict};
use dr_core::{DrError, ErrorClass, ErrorName, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The payload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Find the database and say what it is.
    Describe(Describe),
    /// Take the snapshot.
    Create(Create),
    /// Look how far it is.
    Check(Check),
    /// Write the verdict on it.
    Label(Label),
}

/// Find the database and say what it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Describe {
    /// The operation.
    pub operation_id: OperationId,
    /// The database; this or `selector`.
    #[serde(default)]
    pub database: Option<DatabaseId>,
    /// Whether that is an instance or a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// Finds the database; this or `database`.
    #[serde(default)]
    pub selector: Option<Selector>,
    /// Whether its backup is to be copied to other Regions.
    #[serde(default)]
    pub copied: bool,
}

/// Take the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Create {
    /// The operation.
    pub operation_id: OperationId,
    /// The database.
    pub database: DatabaseId,
    /// Whether that is an instance or a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// The snapshot's name.
    pub snapshot_id: SnapshotId,
    /// The user's tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// From when retention may delete it.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// Look how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// The operation.
    pub operation_id: OperationId,
    /// The database.
    pub database: DatabaseId,
    /// Whether that is an instance or a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// The snapshot's name.
    pub snapshot_id: SnapshotId,
    /// When the snapshot was asked for.
    pub started_at: Timestamp,
    /// What such snapshots took before, as `update_state` answered it.
    #[serde(default)]
    pub earlier: Option<Earlier>,
}

/// Write the verdict on it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Label {
    /// The operation.
    pub operation_id: OperationId,
    /// Whether the snapshot is of an instance or of a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// The snapshot's name.
    pub snapshot_id: SnapshotId,
    /// The verdict.
    pub proof: Verdict,
    /// How deep the proof went.
    pub level: Level,
    /// When it was judged.
    pub judged_at: Timestamp,
    /// Key of the report.
    #[serde(default)]
    pub report: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// What the database is.
    Described(Box<Described>),
    /// Where the snapshot is.
    Snapshot(Box<SnapshotAnswer>),
    /// What is written on it.
    Labelled(Labelled),
}

/// What a database is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Described {
    /// Its identifier.
    pub database: DatabaseId,
    /// Whether it is an instance or a cluster.
    pub database_kind: DatabaseKind,
    /// Its ARN.
    pub arn: String,
    /// Its engine.
    pub engine: String,
    /// The engine's version.
    pub engine_version: String,
    /// Its status.
    pub status: String,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// ARN of its key.
    pub kms_key_id: Option<String>,
    /// GiB.
    pub allocated_storage_gb: i32,
    /// What a later restore needs.
    pub settings: Settings,
}

/// What a later restore needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Instance class; of an Aurora cluster its writer's.
    pub instance_class: String,
    /// Subnet group.
    pub subnet_group: Option<String>,
    /// Parameter group.
    pub parameter_group: Option<String>,
    /// Option group.
    pub option_group: Option<String>,
    /// Security groups.
    pub security_group_ids: Vec<String>,
    /// Whether it has a standby.
    pub multi_az: bool,
    /// Storage type.
    pub storage_type: Option<String>,
    /// Master user.
    pub master_username: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Name of the database made with the instance.
    pub database_name: Option<String>,
    /// Whether it takes IAM tokens.
    pub iam_authentication: bool,
    /// Certificate authority.
    pub ca_certificate: Option<String>,
    /// Bounds of the capacity of an Aurora cluster's serverless members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
}

impl From<DatabaseFacts> for Described {
    fn from(facts: DatabaseFacts) -> Self {
        Self {
            database: facts.id,
            database_kind: facts.kind,
            arn: facts.arn,
            engine: facts.engine,
            engine_version: facts.engine_version,
            status: facts.status,
            encrypted: facts.encrypted,
            kms_key_id: facts.kms_key_id,
            allocated_storage_gb: facts.allocated_storage_gb,
            settings: Settings {
                instance_class: facts.instance_class,
                subnet_group: facts.subnet_group,
                parameter_group: facts.parameter_group,
                option_group: facts.option_group,
                security_group_ids: facts.security_group_ids,
                multi_az: facts.multi_az,
                storage_type: facts.storage_type,
                master_username: facts.master_username,
                port: facts.endpoint.map(|endpoint| endpoint.port),
                database_name: facts.database_name,
                iam_authentication: facts.iam_authentication,
                ca_certificate: facts.ca_certificate,
                scaling: facts.scaling,
            },
        }
    }
}

/// How far the snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "status")]
pub enum SnapshotAnswer {
    /// RDS is making it.
    Pending {
        /// Its name.
        snapshot_id: SnapshotId,
        /// Its ARN.
        #[serde(skip_serializing_if = "Option::is_none")]
        snapshot_arn: Option<String>,
        /// When to look.
        check_again_in_seconds: u32,
        /// For people.
        progress: Percent,
        /// What is waited for: `update_state` knows by it what such snapshots took before.
        step: Step,
    },
    /// It is there.
    Done {
        /// Its name.
        snapshot_id: SnapshotId,
        /// Its ARN.
        snapshot_arn: String,
        /// When it was made.
        snapshot_create_time: Option<Timestamp>,
        /// When its data was taken.
        original_snapshot_create_time: Option<Timestamp>,
        /// GiB.
        size_gb: i32,
        /// Whether it is encrypted.
        encrypted: bool,
        /// ARN of its key.
        kms_key_id: Option<String>,
        /// Engine version in it.
        engine_version: String,
        /// How long it took, for `update_state` to remember; absent when it was there at once.
        #[serde(skip_serializing_if = "Option::is_none")]
        took: Option<Took>,
    },
}

/// Progress for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Percent {
    /// 0 to 100.
    pub percent: i32,
    /// Why the next look is when it is, where that follows from earlier snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

/// What is written on the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Labelled {
    /// Its name.
    pub snapshot_id: SnapshotId,
    /// The verdict.
    pub proof: Verdict,
}

/// Answers one request.
///
/// # Errors
/// Those of [`dr_core::snapshot`], and those of the calls to RDS.
pub async fn handle(clients: &Clients, request: Request, now: Timestamp) -> Result<Answer> {
    let rds = clients.rds(clients.home());
    match request {
        Request::Describe(ask) => {
            describe(&rds, ask).await.map(|facts| Answer::Described(Box::new(facts.into())))
        }
        Request::Create(ask) => create(&rds, ask).await.map(|answer| Answer::Snapshot(Box::new(answer))),
        Request::Check(ask) => {
            let started_at = ask.started_at;
            let outcome = check(&rds, ask, now).await;
            count(&outcome, now.duration_since(started_at).as_secs_f64());
            outcome.map(|answer| Answer::Snapshot(Box::new(answer)))
        }
        Request::Label(ask) => label(&rds, ask).await.map(Answer::Labelled),
    }
}

async fn describe(rds: &Rds, ask: Describe) -> Result<DatabaseFacts> {
    let facts = match (ask.database, ask.selector) {
        (Some(id), None) => rds.find_database(&id, ask.database_kind).await.found_or_else(|| {
            DrError::new(ErrorName::DatabaseMissing, format!("reading database `{id}` in {}", rds.region()))
        })?,
        (None, Some(selector)) => {
            let found = rds.databases_with_tag(&selector.tag).await?;
            snapshot::pick(&selector, found)?
        }
        _ => {
            let text = "reading the request to create_snapshot: give `database` or `selector`, one of them";
            return Err(DrError::new(ErrorName::InvalidInput, text));
        }
    };
    snapshot::check_source(&facts)?;
    if ask.copied {
        origin::check_source(&facts)?;
    }
    with_writers_class(rds, facts).await
}

/// The facts, with the writer's class where a cluster has none itself.
async fn with_writers_class(rds: &Rds, mut facts: DatabaseFacts) -> Result<DatabaseFacts> {
    if let Some(writer) = facts.writer().filter(|_| facts.instance_class.is_empty())
        && let Some(writer) = rds.describe_database(writer).await.into_option()?
    {
        facts.instance_class = writer.instance_class;
    }
    Ok(facts)
}

async fn create(rds: &Rds, ask: Create) -> Result<SnapshotAnswer> {
    let order = SnapshotOrder {
        operation: ask.operation_id,
        database: ask.database,
        id: ask.snapshot_id,
        tags: ask.tags,
        expires_at: ask.expires_at,
    };
    // A second round is for a name that was taken between the look and the call, by a twin of this call.
    for _ in 0..2 {
        let source = rds.find_database(&order.database, ask.database_kind);
        let (existing, source) = tokio::join!(rds.find_snapshot(&order.id, ask.database_kind), source);
        let (kind, tags) = match snapshot::decide_creation(&order, existing, source)? {
            Creation::Adopt(facts) => return Ok(begun(*facts)),
            Creation::Create { kind, tags } => (kind, tags),
        };
        let started = match kind {
            DatabaseKind::Instance => rds.create_snapshot(&order.database, &order.id, &tags).await?,
            DatabaseKind::Cluster => rds.create_cluster_snapshot(&order.database, &order.id, &tags).await?,
        };
        if let SnapshotStart::Started(facts) = started {
            return Ok(begun(*facts));
        }
    }
    let text = format!("creating snapshot `{}`: its name is taken, but it cannot be seen yet", order.id);
    Err(DrError::new(ErrorName::StateConflict, text))
}

fn begun(facts: SnapshotFacts) -> SnapshotAnswer {
    if facts.status == "available" {
        return done(facts, None);
    }
    SnapshotAnswer::Pending {
        step: snapshot::step(&facts),
        snapshot_id: facts.id,
        snapshot_arn: Some(facts.arn),
        check_again_in_seconds: 5,
        progress: Percent { percent: facts.percent, waiting: None },
    }
}

async fn check(rds: &Rds, ask: Check, now: Timestamp) -> Result<SnapshotAnswer> {
    let seen = rds.find_snapshot(&ask.snapshot_id, ask.database_kind).await;
    let earlier = ask.earlier.as_ref();
    match snapshot::decide_progress(&ask.operation_id, &ask.snapshot_id, seen, ask.started_at, earlier, now)?
    {
        Progress::Done(facts) => {
            metrics::regional_value(metrics::BACKUP_SIZE_GB, &facts.region, f64::from(facts.size_gb));
            let took = Took::new(snapshot::step(&facts), ask.started_at, now);
            Ok(done(*facts, Some(took)))
        }
        Progress::Pending { percent, pause, step } => Ok(SnapshotAnswer::Pending {
            snapshot_id: ask.snapshot_id,
            snapshot_arn: None,
            check_again_in_seconds: pause.seconds,
            progress: Percent { percent, waiting: pause.why },
            step,
        }),
    }
}

fn done(facts: SnapshotFacts, took: Option<Took>) -> SnapshotAnswer {
    let taken_at = facts.taken_at();
    SnapshotAnswer::Done {
        snapshot_id: facts.id,
        snapshot_arn: facts.arn,
        snapshot_create_time: facts.created_at,
        original_snapshot_create_time: taken_at,
        size_gb: facts.size_gb,
        encrypted: facts.encrypted,
        kms_key_id: facts.kms_key_id,
        engine_version: facts.engine_version,
        took,
    }
}

async fn label(rds: &Rds, ask: Label) -> Result<Labelled> {
    let seen = rds.find_snapshot(&ask.snapshot_id, ask.database_kind).await;
    let label = snapshot::Label {
        verdict: ask.proof,
        level: ask.level,
        judged_at: ask.judged_at,
        report: ask.report,
    };
    let labelling = snapshot::decide_label(&ask.operation_id, &ask.snapshot_id, seen, &label)?;
    if !labelling.tags.is_empty() {
        rds.tag(&labelling.arn, &labelling.tags).await?;
    }
    Ok(Labelled { snapshot_id: ask.snapshot_id, proof: ask.proof })
}

fn count(outcome: &Result<SnapshotAnswer>, seconds: f64) {
    match outcome {
        Ok(SnapshotAnswer::Done { .. }) => metrics::operation_ended("snapshot", "success", Some(seconds)),
        Ok(SnapshotAnswer::Pending { .. }) => {}
        // What is tried again has not ended.
        Err(error) if error.name().class() == ErrorClass::Retry => {}
        Err(_) => metrics::operation_ended("snapshot", "failure", Some(seconds)),
    }
}

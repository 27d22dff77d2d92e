//! Looks over many things at once: calls the roll of a fleet, sums its run up, and chooses a recovery point to prove.
//!
//! It takes no snapshot, starts nothing and sets no tag; it writes lists and reports into the metadata bucket. However
//! many databases or snapshots there are, it keeps one page of them at a time.

use std::time::Duration;

use dr_aws::clients::Clients;
use dr_aws::objects::{Bucket, Overwrite};
use dr_aws::{Invocation, metrics};
use dr_core::config::{self, Vars};
use dr_core::fleet::{self, Coverage, Roll, Run, RunOutcome, Summary, Told, Tolerance};
use dr_core::ids::{OperationId, Region, SnapshotId};
use dr_core::observed::DatabaseKind;
use dr_core::proof::judgement::FirstProof;
use dr_core::recovery::{Aim, Chosen, RecoverySelector, Search};
use dr_core::{DrError, ErrorName, Result};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Time that is kept for the rest when a search stops: the page under way and the answer.
const RESERVE: Duration = Duration::from_mins(1);

/// What the function is asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Calls the roll of a fleet.
    Databases(Databases),
    /// Sums a fleet's run up.
    Summarise(Summarise),
    /// Finds the snapshot that a proof is about.
    RecoveryPoint(Box<RecoveryPoint>),
}

/// See [`Request::Databases`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Databases {
    /// The run's operation.
    pub operation_id: OperationId,
    /// The operation whose backups are gone on with.
    pub run: OperationId,
    /// The databases, or how to find them.
    pub coverage: Coverage,
}

/// See [`Request::Summarise`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Summarise {
    /// The run's operation.
    pub operation_id: OperationId,
    /// The fleet.
    pub fleet: String,
    /// How many may fail.
    pub tolerated: Tolerance,
    /// When the run started.
    pub started_at: Timestamp,
    /// Key of the manifest that the Map's ResultWriter wrote, in the metadata bucket.
    pub manifest_key: String,
}

/// See [`Request::RecoveryPoint`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecoveryPoint {
    /// The proof's operation; what a random choice follows from unless the selector says otherwise.
    pub operation_id: OperationId,
    /// When the proof started: ages are counted to it, so that a choice that takes several calls is one choice.
    pub started_at: Timestamp,
    /// The snapshot; this or `selector`.
    #[serde(default)]
    pub snapshot_id: Option<SnapshotId>,
    /// What the snapshot is of; needed only where an instance's and a cluster's have that name.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// How to find it; this or `snapshotId`.
    #[serde(default)]
    pub selector: Option<RecoverySelector>,
    /// The `continue` of the answer before; absent in the first call.
    #[serde(default, rename = "continue")]
    pub position: Option<Position>,
}

/// Where a search is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Position {
    /// What is being listed: snapshots of instances first, then those of clusters.
    #[serde(default)]
    pub kind: DatabaseKind,
    /// Where RDS's next page begins; absent at the beginning of a listing.
    #[serde(default)]
    pub marker: Option<String>,
    /// What was found so far.
    pub search: Search,
}

/// What the function answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Of `databases`.
    Roll(RollAnswer),
    /// Of `summarise`.
    Summary(Box<Summary>),
    /// Of `recoveryPoint`.
    Choice(Box<ChoiceAnswer>),
}

/// What the roll came to. The list itself is in the bucket, since it may be larger than a state's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RollAnswer {
    /// Key of the list of members: a JSON array, which the Map reads.
    pub list_key: String,
    /// Databases that are backed up.
    pub total: usize,
    /// Databases that the fleet means and that are left out.
    pub skipped: usize,
}

/// Where a choice is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ChoiceAnswer {
    /// There are more snapshots than one invocation can look at.
    Pending {
        /// When to call again.
        check_again_in_seconds: u32,
        /// To be handed on.
        r#continue: Position,
    },
    /// Every snapshot was looked at.
    Done {
        /// The snapshot; `None` when there is nothing to prove.
        chosen: Option<Chosen>,
        /// The backup whose frame it can be compared with.
        frame_operation_id: Option<OperationId>,
        /// The first proof that found it proven.
        earlier_operation_id: Option<OperationId>,
        /// What the choice follows from.
        seed: String,
        /// Snapshots that were looked at.
        seen: u64,
        /// Those among them that could be chosen.
        eligible: u64,
    },
}

/// The function's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where lists and reports go, and where frames are.
    pub metadata_bucket: String,
    /// The home Region's bucket, where this installation proves copies of another one's backups.
    pub home: Option<(Region, String)>,
}

impl Config {
    /// Reads the variables.
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] naming every fault.
    pub fn read(mut vars: Vars<'_>) -> Result<Self> {
        let metadata_bucket = vars.required("DR_METADATA_BUCKET", config::text);
        let home = config::home(&mut vars, "DR_HOME_REGION", "DR_HOME_METADATA_BUCKET");
        vars.build(|| Some(Self { metadata_bucket: metadata_bucket?, home }))
    }
}

/// The function with what its invocations share.
#[derive(Debug)]
pub struct Planner {
    /// AWS.
    pub clients: Clients,
    /// The configuration.
    pub config: Config,
}

impl Planner {
    /// Answers one request.
    ///
    /// # Errors
    /// Those of [`dr_core::fleet`] and [`dr_core::recovery`], and those of the calls to RDS and S3.
    pub async fn handle(&self, request: Request, invocation: &Invocation) -> Result<Answer> {
        match request {
            Request::Databases(ask) => self.call_roll(&ask).await.map(Answer::Roll),
            Request::Summarise(ask) => {
                let summary = self.sum_up(ask, invocation.received_at).await?;
                count(&summary);
                Ok(Answer::Summary(Box::new(summary)))
            }
            Request::RecoveryPoint(ask) => {
                let more_time = || invocation.remaining() > RESERVE;
                self.choose(*ask, more_time).await.map(|answer| Answer::Choice(Box::new(answer)))
            }
        }
    }

    fn bucket(&self) -> Bucket {
        self.clients.bucket(self.config.metadata_bucket.clone())
    }

    /// Calls the roll once: a second call answers what the first one wrote, so that a run that is redriven has the
    /// same members.
    async fn call_roll(&self, ask: &Databases) -> Result<RollAnswer> {
        let bucket = self.bucket();
        let key = roll_key(&ask.operation_id);
        let roll = if let Some(roll) = read::<Roll>(&bucket, &key).await? {
            roll
        } else {
            let rds = self.clients.rds(self.clients.home());
            let found = rds.databases_where(|facts| ask.coverage.covers(facts)).await?;
            let roll = fleet::call_roll(&ask.coverage, &ask.run, found)?;
            write(&bucket, &key, &roll).await?;
            roll
        };
        let list_key = list_key(&ask.operation_id);
        write(&bucket, &list_key, &roll.members).await?;
        Ok(RollAnswer { list_key, total: roll.members.len(), skipped: roll.skipped.len() })
    }

    async fn sum_up(&self, ask: Summarise, now: Timestamp) -> Result<Summary> {
        let bucket = self.bucket();
        let roll = expect(&bucket, &roll_key(&ask.operation_id)).await?;
        let told = self.told(&bucket, &ask.manifest_key).await?;
        let run = Run {
            report_key: report_key(&ask.operation_id),
            operation_id: ask.operation_id,
            fleet: ask.fleet,
            tolerated: ask.tolerated,
            started_at: ask.started_at,
            now,
        };
        let report = fleet::sum_up(&run, roll, told);
        write(&bucket, &run.report_key, &report).await?;
        Ok(report.summary)
    }

    /// What the Map's children told, from the files that the manifest lists. Children that failed by themselves, which
    /// they only do when Step Functions could not run them, told nothing.
    async fn told(&self, bucket: &Bucket, manifest_key: &str) -> Result<Vec<Told>> {
        let manifest: Manifest = expect(bucket, manifest_key).await?;
        let mut told = Vec::new();
        for file in manifest.result_files.succeeded {
            told.extend(expect::<Vec<Told>>(bucket, &file.key).await?);
        }
        Ok(told)
    }

    async fn choose(&self, ask: RecoveryPoint, more_time: impl Fn() -> bool) -> Result<ChoiceAnswer> {
        let rds = self.clients.rds(self.clients.home());
        let operation = ask.operation_id.to_string();
        let (search, selector) = match (ask.snapshot_id, ask.selector) {
            (Some(id), None) => {
                let facts = rds.find_snapshot(&id, ask.database_kind).await.found_or_else(|| {
                    DrError::new(
                        ErrorName::SnapshotMissing,
                        format!("looking for snapshot `{id}` in {}", rds.region()),
                    )
                })?;
                return self.done(Some(Chosen::of(&facts)), operation, (1, 1)).await;
            }
            (None, Some(selector)) => (ask.position, selector),
            _ => {
                let text = "reading the request to plan_fleet: give `snapshotId` or `selector`, one of them";
                return Err(DrError::new(ErrorName::InvalidInput, text));
            }
        };
        selector.check()?;
        let seed = match &selector {
            RecoverySelector::Random(random) => random.seed.clone().unwrap_or(operation),
            RecoverySelector::UnprovenCopy(_) => operation,
        };
        let aim = Aim { selector: &selector, seed: &seed, now: ask.started_at };
        let (mut search, mut kind, mut marker) =
            search.map_or_else(Default::default, |at| (at.search, at.kind, at.marker));
        loop {
            let page = match kind {
                DatabaseKind::Instance => rds.snapshot_page(selector.database(), marker).await?,
                DatabaseKind::Cluster => rds.cluster_snapshot_page(selector.database(), marker).await?,
            };
            for facts in &page.snapshots {
                search.look(&aim, facts);
            }
            (kind, marker) = match (kind, page.next) {
                (kind, Some(next)) => (kind, Some(next)),
                (DatabaseKind::Instance, None) => (DatabaseKind::Cluster, None),
                (DatabaseKind::Cluster, None) => break,
            };
            if !more_time() {
                let position = Position { kind, marker, search };
                return Ok(ChoiceAnswer::Pending { check_again_in_seconds: 1, r#continue: position });
            }
        }
        let counted = (search.seen, search.eligible);
        let chosen = search.finish(&aim)?;
        self.done(chosen, seed, counted).await
    }

    async fn done(
        &self,
        chosen: Option<Chosen>,
        seed: String,
        (looked_at, eligible): (u64, u64),
    ) -> Result<ChoiceAnswer> {
        let (mut frame_operation_id, mut earlier_operation_id) = (None, None);
        if let Some(owner) = chosen.as_ref().and_then(|chosen| chosen.owner.clone()) {
            earlier_operation_id = self.first_proof(&owner).await?.map(|first| first.operation_id);
            frame_operation_id = self.has_frame(&owner).await?.then_some(owner);
        }
        Ok(ChoiceAnswer::Done {
            chosen,
            frame_operation_id,
            earlier_operation_id,
            seed,
            seen: looked_at,
            eligible,
        })
    }

    /// Which proof was the first to find a backup's snapshot proven, as far as is known here or at home.
    async fn first_proof(&self, operation: &OperationId) -> Result<Option<FirstProof>> {
        let key = format!("operations/{operation}/{}", FirstProof::RECORD);
        if let Some(first) = read(&self.bucket(), &key).await? {
            return Ok(Some(first));
        }
        match &self.config.home {
            Some((region, bucket)) => read(&self.clients.bucket_in(region, bucket.clone()), &key).await,
            None => Ok(None),
        }
    }

    /// Whether a backup's frame is whole, here or at home. Its last record is its heartbeat.
    async fn has_frame(&self, operation: &OperationId) -> Result<bool> {
        let key = format!("operations/{operation}/frame/heartbeat.json");
        if self.bucket().exists(&key).await? {
            return Ok(true);
        }
        match &self.config.home {
            Some((region, bucket)) => self.clients.bucket_in(region, bucket.clone()).exists(&key).await,
            None => Ok(false),
        }
    }
}

fn roll_key(operation: &OperationId) -> String {
    format!("operations/{operation}/roll.json")
}

fn list_key(operation: &OperationId) -> String {
    format!("operations/{operation}/members.json")
}

fn report_key(operation: &OperationId) -> String {
    format!("operations/{operation}/summary.json")
}

/// What the Map's ResultWriter lists. Step Functions Developer Guide, "ResultWriter (Map)".
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    result_files: ResultFiles,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct ResultFiles {
    #[serde(default)]
    succeeded: Vec<ResultFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResultFile {
    key: String,
}

async fn read<T: DeserializeOwned>(bucket: &Bucket, key: &str) -> Result<Option<T>> {
    let Some(body) = bucket.get(key).await? else { return Ok(None) };
    serde_json::from_slice(&body).map(Some).map_err(|error| {
        // serde's message may quote a value; positions say enough.
        let place = format!("line {}, column {}", error.line(), error.column());
        DrError::new(ErrorName::MetadataDamaged, format!("reading `{key}`: malformed at {place}"))
    })
}

async fn expect<T: DeserializeOwned>(bucket: &Bucket, key: &str) -> Result<T> {
    read(bucket, key).await?.ok_or_else(|| {
        DrError::new(ErrorName::MetadataDamaged, format!("reading `{key}`: there is no such record"))
    })
}

async fn write<T: Serialize>(bucket: &Bucket, key: &str, value: &T) -> Result<()> {
    let body = serde_json::to_vec(value).map_err(|error| {
        DrError::new(ErrorName::Internal, format!("writing `{key}` as JSON")).with_source(error)
    })?;
    bucket.put(key, body, "application/json", Overwrite::Allowed).await.map(drop)
}

fn count(summary: &Summary) {
    let status = match summary.outcome {
        RunOutcome::Complete => "success",
        RunOutcome::Incomplete => "partial",
        RunOutcome::Exceeded => "failure",
    };
    metrics::operation_ended("fleet_backup", status, None);
}

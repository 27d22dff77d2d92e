//! `update_state`: the only writer of operations, locks, breakers and the emergency stop.
//!
//! It looks at the items that an event concerns, lets `dr_core::changes` decide, and applies the change whole or
//! not at all. It starts nothing and touches no database.

use std::collections::BTreeMap;

use dr_aws::executions::Executions;
use dr_aws::state::{Applied, StateTable};
use dr_aws::{Invocation, metrics};
use dr_core::changes::{self, Beginning, Change, Ended, Observed, Settings};
use dr_core::chaos::journal::Journal;
use dr_core::chaos::records;
use dr_core::config::{self, Vars};
use dr_core::control::{Breaker, BreakerSettings, EmergencyStop, HolderState, Lock};
use dr_core::failure::Failure;
use dr_core::ids::{DatabaseId, ExecutionArn, KmsKeyId, OperationId, Region};
use dr_core::operation::{Kind, Operation};
use dr_core::plan::Installation;
use dr_core::polling::{self, Durations, Sample, Step, Took};
use dr_core::recovery::{Choice, Chosen};
use dr_core::{DrError, ErrorName, Result};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// How often a change is decided again when somebody else wrote in between.
const MOST_ATTEMPTS: u32 = 5;

/// What the function is asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Begins an operation; the same execution finds its own.
    Begin(Begin),
    /// Gives a backup the database that its selector found, and locks it.
    Lock(LockRequest),
    /// Gives a proof the snapshot that its selector found.
    Choose(Choose),
    /// Records where an operation is, and renews its lease.
    Progress(Progress),
    /// Records something by name.
    Checkpoint(Checkpoint),
    /// Ends an operation well, or partially.
    Succeed(Succeed),
    /// Ends an operation with an error, also one that never began.
    Fail(Fail),
    /// Refuses all beginnings from now on.
    EmergencyStop(StopRequest),
    /// Allows beginnings again.
    LiftEmergencyStop(StopRequest),
    /// Reads an operation's record.
    Status(StatusRequest),
}

/// See [`Request::Begin`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Begin {
    /// The execution (`$states.context.Execution.Id`).
    pub execution: ExecutionArn,
    /// When it started (`$states.context.Execution.StartTime`).
    pub started_at: Timestamp,
    /// The kind of operation.
    pub kind: Kind,
    /// The execution's input, as given.
    pub request: Value,
}

/// See [`Request::Lock`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockRequest {
    /// The operation.
    pub operation_id: OperationId,
    /// The database.
    pub database: DatabaseId,
}

/// See [`Request::Choose`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Choose {
    /// The operation.
    pub operation_id: OperationId,
    /// The snapshot.
    pub chosen: Chosen,
    /// The backup whose frame it can be compared with.
    #[serde(default)]
    pub frame_operation_id: Option<OperationId>,
    /// The first proof that found it proven.
    #[serde(default)]
    pub earlier_operation_id: Option<OperationId>,
    /// What the choice follows from.
    pub seed: String,
    /// Snapshots that were looked at.
    pub seen: u64,
    /// Those among them that could be chosen.
    pub eligible: u64,
}

impl Choose {
    fn choice(&self) -> Choice {
        Choice {
            chosen: self.chosen.clone(),
            frame_operation_id: self.frame_operation_id.clone(),
            earlier_operation_id: self.earlier_operation_id.clone(),
            seed: self.seed.clone(),
            seen: self.seen,
            eligible: self.eligible,
        }
    }
}

/// See [`Request::Progress`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Progress {
    /// The operation.
    pub operation_id: OperationId,
    /// The state that reports.
    pub state: String,
    /// What it reports.
    #[serde(default)]
    pub detail: Value,
    /// What it waits for, where the answer shall say what that took before.
    #[serde(default)]
    pub step: Option<Step>,
}

/// See [`Request::Checkpoint`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    /// The operation.
    pub operation_id: OperationId,
    /// The record's name.
    pub name: String,
    /// The record.
    pub data: Value,
    /// Steps that ended, whose durations are to be remembered.
    #[serde(default)]
    pub took: Vec<Took>,
}

/// See [`Request::Succeed`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Succeed {
    /// The operation.
    pub operation_id: OperationId,
    /// What came of it; `copies` with a `status` other than `done` make it partial.
    pub result: Value,
    /// Steps that ended, whose durations are to be remembered.
    #[serde(default)]
    pub took: Vec<Took>,
}

/// See [`Request::Fail`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fail {
    /// The execution.
    pub execution: ExecutionArn,
    /// When it started.
    pub started_at: Timestamp,
    /// The kind of operation.
    pub kind: Kind,
    /// The execution's input, as given.
    #[serde(default)]
    pub request: Value,
    /// The operation, where the state machine knows it; it always follows from the execution.
    #[serde(default)]
    pub operation_id: Option<OperationId>,
    /// The `Error` of the Catch.
    pub error: String,
    /// The `Cause` of the Catch.
    #[serde(default)]
    pub cause: String,
}

/// See [`Request::EmergencyStop`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopRequest {
    /// Who asks: 1 to 1,000 characters.
    pub by: String,
    /// Why: 1 to 1,000 characters.
    pub reason: String,
}

/// See [`Request::Status`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusRequest {
    /// The operation.
    pub operation_id: OperationId,
}

/// The function's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state table.
    pub table: String,
    /// The Regions for copies.
    pub target_regions: Vec<Region>,
    /// Their keys.
    pub target_keys: BTreeMap<Region, KmsKeyId>,
    /// How operations are kept.
    pub settings: Settings,
}

impl Config {
    /// Reads the configuration from the environment.
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] with every fault.
    pub fn read(mut vars: Vars<'_>) -> Result<Self> {
        let minutes = |vars: &mut Vars<'_>, name: &str, absent: i64| {
            SignedDuration::from_mins(vars.or_else(name, config::number(1..=5_256_000), absent))
        };
        let table = vars.required("DR_STATE_TABLE_NAME", config::text);
        let target_regions = vars.list("DR_TARGET_REGIONS", config::id);
        let target_keys = vars.region_keys("DR_TARGET_KMS_KEY_IDS");
        let settings = Settings {
            lease: minutes(&mut vars, "DR_LOCK_LEASE_MINUTES", 720),
            breaker: BreakerSettings {
                failures: vars.or_else("DR_BREAKER_FAILURES", config::number(1..=100), 5),
                window: minutes(&mut vars, "DR_BREAKER_WINDOW_MINUTES", 60),
                reset: minutes(&mut vars, "DR_BREAKER_RESET_MINUTES", 30),
            },
            retention: SignedDuration::from_hours(
                24 * vars.or_else("DR_OPERATION_RETENTION_DAYS", config::number(1..=36_500), 400),
            ),
        };
        vars.build(|| Some(Self { table: table?, target_regions, target_keys, settings }))
    }
}

/// What the function works with.
#[derive(Debug, Clone)]
pub struct Handler {
    /// The state table.
    pub table: StateTable,
    /// To ask whether a lock's holder runs.
    pub executions: Executions,
    /// The configuration.
    pub config: Config,
}

impl Handler {
    /// Observes, decides, acts; decides again when it lost a race.
    ///
    /// # Errors
    /// What the decision refuses, [`ErrorName::StateConflict`] after five lost races, and the errors of AWS calls.
    pub async fn handle(&self, request: Request, invocation: &Invocation) -> Result<Value> {
        let installation = self.installation(invocation)?;
        for _ in 0..MOST_ATTEMPTS {
            let observed = self.observe(&request).await?;
            let change =
                decide(&request, &observed, &installation, &self.config.settings, invocation.received_at)?;
            if self.table.apply(&change).await? == Applied::Yes {
                if let Some(ended) = &change.ended {
                    count(ended);
                }
                self.remember(&request, invocation.received_at).await;
                return Ok(self.with_earlier(&request, change.answer, invocation.received_at).await);
            }
        }
        Err(DrError::new(
            ErrorName::StateConflict,
            format!("writing to table {}: lost five races", self.config.table),
        ))
    }

    /// Remembers how long steps took. That is advice for later waits, and no reason for anything to fail.
    async fn remember(&self, request: &Request, now: Timestamp) {
        let (operation, took) = match request {
            Request::Checkpoint(checkpoint) => (&checkpoint.operation_id, &checkpoint.took),
            Request::Succeed(succeed) => (&succeed.operation_id, &succeed.took),
            _ => return,
        };
        for took in took {
            let sample = Sample { operation: operation.clone(), at: now, seconds: took.duration_seconds };
            let expires_at = (now + polling::STALE).as_second();
            for key in took.keys() {
                let written =
                    self.table.remember(&key, Durations::TYPE, polling::slot(operation), &sample, expires_at);
                if let Err(error) = written.await {
                    tracing::warn!(key, error = %error, "how long a step took was not remembered in {key}");
                }
            }
        }
    }

    /// Adds to the answer what the step that is waited for took before: `earlier`, null when nothing is known.
    async fn with_earlier(&self, request: &Request, mut answer: Value, now: Timestamp) -> Value {
        let Request::Progress(Progress { step: Some(step), .. }) = request else { return answer };
        let (own, alike) = tokio::join!(self.durations(step.own_key()), self.durations(step.alike_key()));
        answer["earlier"] = json!(polling::earlier(step, own.as_ref(), alike.as_ref(), now));
        answer
    }

    /// As with [`Self::remember`], not to know is not to fail.
    async fn durations(&self, key: Option<String>) -> Option<Durations> {
        let key = key?;
        self.table.read(&key).await.unwrap_or_else(|error| {
            tracing::warn!(key, error = %error, "what a step took before cannot be read from {key}");
            None
        })
    }

    fn installation(&self, invocation: &Invocation) -> Result<Installation> {
        let no_arn =
            || DrError::new(ErrorName::Internal, format!("reading the ARN `{}`", invocation.function_arn));
        Ok(Installation {
            region: invocation.region().ok_or_else(no_arn)?,
            account: invocation.account().ok_or_else(no_arn)?.to_owned(),
            target_regions: self.config.target_regions.clone(),
            target_keys: self.config.target_keys.clone(),
        })
    }

    async fn observe(&self, request: &Request) -> Result<Observed> {
        match request {
            Request::Begin(begin) => self.look(&beginning_of_begin(begin), None).await,
            Request::Fail(fail) => self.look(&beginning_of_fail(fail), None).await,
            Request::Lock(lock) => self.look_by_id(&lock.operation_id, Some(lock.database.as_str())).await,
            Request::Choose(choose) => self.look_by_id(&choose.operation_id, None).await,
            Request::Progress(progress) => self.look_by_id(&progress.operation_id, None).await,
            Request::Checkpoint(checkpoint) => self.look_by_id(&checkpoint.operation_id, None).await,
            Request::Succeed(succeed) => self.look_by_id(&succeed.operation_id, None).await,
            Request::Status(status) => self.look_by_id(&status.operation_id, None).await,
            Request::EmergencyStop(_) | Request::LiftEmergencyStop(_) => {
                Ok(Observed { stop: self.table.read(EmergencyStop::KEY).await?, ..Observed::NOTHING })
            }
        }
    }

    async fn look(&self, beginning: &Beginning, resource: Option<&str>) -> Result<Observed> {
        let id = beginning.operation_id();
        let operation: Option<Operation> = self.table.read(id.as_str()).await?;
        let resource = resource
            .map(str::to_owned)
            .or_else(|| operation.as_ref().and_then(|operation| operation.resource_id.clone()))
            .or_else(|| beginning.resource());
        self.look_around(&id, operation, beginning.kind, resource.filter(|text| !text.is_empty())).await
    }

    async fn look_by_id(&self, id: &OperationId, resource: Option<&str>) -> Result<Observed> {
        let operation: Option<Operation> = self.table.read(id.as_str()).await?;
        let Some(kind) = operation.as_ref().map(|operation| operation.kind) else {
            return Ok(Observed::NOTHING);
        };
        let recorded = operation.as_ref().and_then(|operation| operation.resource_id.clone());
        self.look_around(id, operation, kind, resource.map(str::to_owned).or(recorded)).await
    }

    /// Reads what stands around an operation.
    async fn look_around(
        &self,
        id: &OperationId,
        operation: Option<Operation>,
        kind: Kind,
        resource: Option<String>,
    ) -> Result<Observed> {
        let breaker_key = Breaker::key(kind);
        let (lock, breaker, stop) = tokio::try_join!(
            async {
                match resource.filter(|_| kind.holds_lock()) {
                    Some(resource) => self.table.read::<Lock>(&Lock::key(&resource)).await,
                    None => Ok(None),
                }
            },
            self.table.read(&breaker_key),
            self.table.read(EmergencyStop::KEY),
        )?;
        let holder = match &lock {
            Some(lock) if lock.owner != *id => self.holder(lock).await?,
            _ => HolderState::Unknown,
        };
        Ok(Observed { operation, lock, holder, breaker, stop })
    }

    /// Whether a lock's holder still works. An experiment may outlive its execution: its journal tells.
    async fn holder(&self, lock: &Lock) -> Result<HolderState> {
        if records::is_of_journal(lock) {
            return records::judge(self.table.read(&Journal::key(&lock.owner)).await);
        }
        Ok(self.executions.holder_state(&lock.owner_execution).await)
    }
}

fn beginning_of_begin(begin: &Begin) -> Beginning {
    Beginning {
        kind: begin.kind,
        execution: begin.execution.clone(),
        started_at: begin.started_at,
        request: begin.request.clone(),
    }
}

fn beginning_of_fail(fail: &Fail) -> Beginning {
    Beginning {
        kind: fail.kind,
        execution: fail.execution.clone(),
        started_at: fail.started_at,
        request: fail.request.clone(),
    }
}

/// Decides what an event changes.
///
/// # Errors
/// What `dr_core::changes` refuses.
pub fn decide(
    request: &Request,
    observed: &Observed,
    installation: &Installation,
    settings: &Settings,
    now: Timestamp,
) -> Result<Change> {
    match request {
        Request::Begin(begin) => {
            changes::begin(&beginning_of_begin(begin), observed, installation, settings, now)
        }
        Request::Lock(lock) => changes::lock(&lock.operation_id, &lock.database, observed, settings, now),
        Request::Choose(c) => changes::choose(&c.operation_id, &c.choice(), observed, now),
        Request::Progress(p) => {
            changes::progress(&p.operation_id, &p.state, &p.detail, observed, settings, now)
        }
        Request::Checkpoint(c) => {
            changes::checkpoint(&c.operation_id, &c.name, c.data.clone(), observed, now)
        }
        Request::Succeed(succeed) => {
            changes::succeed(&succeed.operation_id, &succeed.result, observed, settings, now)
        }
        Request::Fail(fail) => {
            let failure = Failure::read(&fail.error, &fail.cause);
            changes::fail(&beginning_of_fail(fail), &failure, observed, settings, now)
        }
        Request::EmergencyStop(stop) => {
            changes::emergency_stop(true, &stop.by, &stop.reason, observed.stop.as_ref(), now)
        }
        Request::LiftEmergencyStop(stop) => {
            changes::emergency_stop(false, &stop.by, &stop.reason, observed.stop.as_ref(), now)
        }
        Request::Status(status) => match &observed.operation {
            Some(operation) => Ok(Change { writes: Vec::new(), answer: json!(operation), ended: None }),
            None => Err(DrError::new(
                ErrorName::OperationMissing,
                format!("reading operation {}", status.operation_id),
            )),
        },
    }
}

fn count(ended: &Ended) {
    let operation = ended.kind.as_str();
    metrics::operation_ended(operation, ended.status.as_str(), Some(ended.duration.as_secs_f64()));
    if let Some(error) = ended.error {
        metrics::error(operation, error);
    }
    metrics::value(metrics::CIRCUIT_BREAKER_OPEN, operation, if ended.breaker_open { 1.0 } else { 0.0 });
}

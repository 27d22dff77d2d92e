//! What `update_state` writes: for each event, the items that change and the versions that they must still have.
//!
//! Every write names the version that was read (or that there was nothing), so two invocations that decide on the
//! same state cannot both win. Nothing in here talks to the table.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::chaos::experiment::ExperimentRequest;
use crate::chaos::records;
use crate::control::{
    Breaker, BreakerSettings, BreakerStatus, EmergencyStop, HolderState, Lock, LockDecision,
    check_emergency_stop, decide_lock,
};
use crate::error::{DrError, ErrorName, Result};
use crate::failure::Failure;
use crate::fleet::{self, FleetPlan, FleetRequest};
use crate::ids::{DatabaseId, ExecutionArn, OperationId};
use crate::operation::{Event, Kind, Operation, Status, Transition, transition};
use crate::plan::{BackupPlan, Installation, ProofPlan, plan_backup, plan_proof};
use crate::recovery::Choice;
use crate::request::{BackupRequest, ProofRequest};

/// The longest request, checkpoint or result that is recorded, in bytes of JSON: an item has 400 KB at most.
const LARGEST_RECORD: usize = 100_000;

/// Longer than `TimeoutSeconds` of `fleet_backup` and `chaos_experiment`.
pub const FLEET_LEASE: SignedDuration = SignedDuration::from_hours(8 * 24);

/// How operations are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a lock is held without being renewed.
    pub lease: SignedDuration,
    /// The circuit breaker.
    pub breaker: BreakerSettings,
    /// How long a finished operation stays in the table.
    pub retention: SignedDuration,
}

/// What the table held when it was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The operation.
    pub operation: Option<Operation>,
    /// The lock of its resource.
    pub lock: Option<Lock>,
    /// Whether the lock's holder is running.
    pub holder: HolderState,
    /// The breaker of its kind.
    pub breaker: Option<Breaker>,
    /// The emergency stop.
    pub stop: Option<EmergencyStop>,
}

impl Observed {
    /// An empty table.
    pub const NOTHING: Self =
        Self { operation: None, lock: None, holder: HolderState::Unknown, breaker: None, stop: None };
}

/// An item of the table.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// An operation.
    Operation(Box<Operation>),
    /// A lock.
    Lock(Lock),
    /// A breaker.
    Breaker(Breaker),
    /// The emergency stop.
    Stop(EmergencyStop),
    /// What is known of the state of health: written by `health_check`, by the same rules.
    Health(Box<crate::health::alerts::Health>),
    /// The journal of an experiment: written by `chaos_runner`, by the same rules.
    Journal(Box<crate::chaos::journal::Journal>),
    /// A plan that waits for approvals: written by `chaos_runner`, by the same rules.
    Approval(Box<crate::chaos::records::Pending>),
    /// A Region that our functions do not call: written by `chaos_runner`, by the same rules.
    RegionBlock(crate::chaos::blocks::RegionBlock),
}

/// What an item must be for the write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no such item.
    Absent,
    /// It has this version.
    Version(u64),
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Puts an item. Its own version is already the next one.
    Put(Item, Expect),
    /// Deletes an item.
    Delete(String, Expect),
    /// Writes nothing, and fails unless the item is as expected.
    Check(String, Expect),
}

/// What follows from an event: all writes happen, or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The writes; none for a repeated call.
    pub writes: Vec<Write>,
    /// The answer.
    pub answer: Value,
    /// What the metrics should say, where an operation ended by this change.
    pub ended: Option<Ended>,
}

/// An operation that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its kind.
    pub kind: Kind,
    /// How it ended.
    pub status: Status,
    /// From start to end.
    pub duration: SignedDuration,
    /// Why it failed.
    pub error: Option<ErrorName>,
    /// Whether its kind's breaker is open now.
    pub breaker_open: bool,
}

/// An operation's beginning, as the state machine tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Beginning {
    /// The kind.
    pub kind: Kind,
    /// The execution.
    pub execution: ExecutionArn,
    /// When it started.
    pub started_at: Timestamp,
    /// Its input, as given.
    pub request: Value,
}

impl Beginning {
    /// The operation's id.
    pub fn operation_id(&self) -> OperationId {
        OperationId::of_execution(self.kind.as_str(), &self.execution)
    }

    /// The resource that the request names, if it can be told without reading it strictly.
    pub fn resource(&self) -> Option<String> {
        let named = |field: &str| self.request.get(field).and_then(Value::as_str);
        match self.kind {
            Kind::Backup => named("database").map(str::to_owned),
            Kind::Proof => named("snapshotId").map(str::to_owned),
            Kind::Fleet => named("fleet").map(fleet::resource),
            Kind::Chaos => named("id").map(records::resource),
        }
    }
}

fn expect(version: Option<u64>) -> Expect {
    version.map_or(Expect::Absent, Expect::Version)
}

fn as_json<T: serde::Serialize>(what: &str, value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| {
        DrError::new(ErrorName::Internal, format!("writing {what} as JSON")).with_source(error)
    })
}

fn check_size(what: &str, value: &Value) -> Result<()> {
    let size = value.to_string().len();
    if size <= LARGEST_RECORD {
        return Ok(());
    }
    Err(DrError::new(
        ErrorName::InvalidInput,
        format!("recording {what}: {size} bytes of {LARGEST_RECORD} possible"),
    ))
}

/// Begins an operation: refuses while the emergency stop is in force or the breaker is open, locks the database
/// of a backup, and writes down what will be done.
///
/// # Errors
/// Everything that planning refuses, [`ErrorName::EmergencyStopActive`], [`ErrorName::CircuitBreakerOpen`],
/// [`ErrorName::OperationInProgress`], [`ErrorName::IllegalTransition`] for an execution that already ended.
pub fn begin(
    beginning: &Beginning,
    observed: &Observed,
    installation: &Installation,
    settings: &Settings,
    now: Timestamp,
) -> Result<Change> {
    let id = beginning.operation_id();
    let status = observed.operation.as_ref().map(|operation| operation.status);
    if let (Transition::AlreadyDone(_), Some(operation)) =
        (transition(&id, status, Event::Begin)?, &observed.operation)
    {
        return Ok(Change { writes: Vec::new(), answer: operation.plan.clone(), ended: None });
    }
    check_emergency_stop(observed.stop.as_ref())?;
    check_size("the request", &beginning.request)?;

    let mut writes = vec![Write::Check(
        EmergencyStop::KEY.to_owned(),
        expect(observed.stop.as_ref().map(|stop| stop.version)),
    )];
    let (plan, resource) = match beginning.kind {
        Kind::Backup => {
            let request: BackupRequest =
                crate::input::parse("the backup request", beginning.request.clone())?;
            let mut plan = plan_backup(&id, &request, installation, beginning.started_at)?;
            if let Some(database) = plan.database.clone() {
                writes.push(take_lock(
                    &id,
                    &beginning.execution,
                    database.as_str(),
                    observed,
                    settings,
                    now,
                )?);
                plan.locked = true;
            }
            let resource = plan.database.as_ref().map(ToString::to_string);
            (as_json::<BackupPlan>("the plan", &plan)?, resource)
        }
        Kind::Proof => {
            let request: ProofRequest = crate::input::parse("the proof request", beginning.request.clone())?;
            let plan = plan_proof(&id, &request, installation, beginning.started_at)?;
            let resource = plan.snapshot_id.as_ref().map(ToString::to_string);
            (as_json::<ProofPlan>("the plan", &plan)?, resource)
        }
        Kind::Fleet => {
            let request: FleetRequest = crate::input::parse("the fleet request", beginning.request.clone())?;
            let plan = fleet::plan_run(&id, &request, installation, beginning.started_at)?;
            let resource = fleet::resource(&plan.fleet);
            writes.push(take_lock(&id, &beginning.execution, &resource, observed, settings, now)?);
            (as_json::<FleetPlan>("the plan", &plan)?, Some(resource))
        }
        Kind::Chaos => {
            let request: ExperimentRequest =
                crate::input::parse("the experiment", beginning.request.clone())?;
            let resource = records::resource(&request.id);
            writes.push(take_lock(&id, &beginning.execution, &resource, observed, settings, now)?);
            (records::outline(&id, &request), Some(resource))
        }
    };
    let breaker = observed.breaker.clone().unwrap_or_else(|| Breaker::new(beginning.kind));
    if let Some(trial) = breaker.admit(&id, now, &settings.breaker)? {
        writes.push(put_breaker(trial, observed));
    }
    let operation = Operation {
        operation_id: id,
        kind: beginning.kind,
        status: Status::Running,
        started_at: beginning.started_at,
        resource_id: resource,
        updated_at: now,
        ended_at: None,
        execution: beginning.execution.clone(),
        request: beginning.request.clone(),
        plan: plan.clone(),
        state: None,
        checkpoints: std::collections::BTreeMap::new(),
        result: None,
        error: None,
        version: 1,
        expires_at: None,
    };
    writes.push(Write::Put(Item::Operation(Box::new(operation)), Expect::Absent));
    Ok(Change { writes, answer: plan, ended: None })
}

/// Gives a backup its database, found by a selector, and locks it.
///
/// # Errors
/// [`ErrorName::OperationInProgress`]; [`ErrorName::IllegalTransition`]; [`ErrorName::InvalidInput`] when the
/// operation already has another database.
pub fn lock(
    id: &OperationId,
    database: &DatabaseId,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Result<Change> {
    let (mut operation, before) = changed(id, observed, Event::Lock, now)?;
    let plan: BackupPlan = crate::input::parse("the recorded plan", operation.plan.clone())?;
    if let Some(other) = plan.database.as_ref().filter(|other| *other != database) {
        return Err(DrError::new(
            ErrorName::InvalidInput,
            format!("locking {database} for {id}: the operation is about {other}"),
        ));
    }
    let take = take_lock(id, &operation.execution, database.as_str(), observed, settings, now)?;
    let mut plan = plan.with_database(database)?;
    plan.locked = true;
    operation.plan = as_json("the plan", &plan)?;
    operation.resource_id = Some(database.to_string());
    let answer = operation.plan.clone();
    Ok(Change {
        writes: vec![take, Write::Put(Item::Operation(Box::new(operation)), before)],
        answer,
        ended: None,
    })
}

/// Gives a proof the snapshot that its selector found, and what is known of it. A snapshot that the request names stays.
///
/// # Errors
/// [`ErrorName::OperationMissing`], [`ErrorName::IllegalTransition`]; [`ErrorName::InvalidInput`] when the operation
/// already has another snapshot.
pub fn choose(id: &OperationId, choice: &Choice, observed: &Observed, now: Timestamp) -> Result<Change> {
    let (mut operation, before) = changed(id, observed, Event::Checkpoint, now)?;
    let chosen = &choice.chosen;
    let mut plan: ProofPlan = crate::input::parse("the recorded plan", operation.plan.clone())?;
    if let Some(other) = plan.snapshot_id.as_ref().filter(|other| **other != chosen.snapshot_id) {
        return Err(DrError::new(
            ErrorName::InvalidInput,
            format!("choosing {} for {id}: the operation is about {other}", chosen.snapshot_id),
        ));
    }
    plan.snapshot_id = Some(chosen.snapshot_id.clone());
    plan.database_kind = Some(chosen.database_kind);
    plan.label_operation_id.clone_from(&chosen.owner);
    plan.frame_operation_id = plan.frame_operation_id.or_else(|| choice.frame_operation_id.clone());
    plan.earlier_operation_id.clone_from(&choice.earlier_operation_id);
    operation.plan = as_json("the plan", &plan)?;
    operation.resource_id = Some(chosen.snapshot_id.to_string());
    operation.checkpoints.insert("chosen".to_owned(), as_json("the choice", choice)?);
    let answer = operation.plan.clone();
    let writes = vec![Write::Put(Item::Operation(Box::new(operation)), before)];
    Ok(Change { writes, answer, ended: None })
}

/// Records where an operation is, and renews the lease of its lock.
///
/// # Errors
/// [`ErrorName::OperationMissing`], [`ErrorName::IllegalTransition`], and [`ErrorName::OperationInProgress`] when
/// the lock was lost to another operation.
pub fn progress(
    id: &OperationId,
    state: &str,
    detail: &Value,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Result<Change> {
    check_size("the progress", detail)?;
    let (mut operation, before) = changed(id, observed, Event::Progress, now)?;
    operation.state = Some(state.to_owned());
    if !detail.is_null() {
        operation.checkpoints.insert(format!("progress:{state}"), detail.clone());
    }
    let mut writes = Vec::new();
    if let (true, Some(resource), Some(_)) =
        (operation.kind.holds_lock(), &operation.resource_id, &observed.lock)
    {
        writes.push(take_lock(id, &operation.execution, resource, observed, settings, now)?);
    }
    writes.push(Write::Put(Item::Operation(Box::new(operation)), before));
    Ok(Change { writes, answer: json!({"operationId": id, "status": Status::Running}), ended: None })
}

/// Records something by name; the same name again replaces it.
///
/// # Errors
/// [`ErrorName::OperationMissing`], [`ErrorName::IllegalTransition`], [`ErrorName::InvalidInput`] when it is too
/// large.
pub fn checkpoint(
    id: &OperationId,
    name: &str,
    data: Value,
    observed: &Observed,
    now: Timestamp,
) -> Result<Change> {
    check_size("the checkpoint", &data)?;
    let (mut operation, before) = changed(id, observed, Event::Checkpoint, now)?;
    operation.checkpoints.insert(name.to_owned(), data);
    Ok(Change {
        writes: vec![Write::Put(Item::Operation(Box::new(operation)), before)],
        answer: json!({"operationId": id, "status": Status::Running}),
        ended: None,
    })
}

/// Ends an operation well: `result.copies` with a `status` other than `done` make it partial, and so do the `outcome`
/// `incomplete` of a fleet's run and an experiment that did not go as planned.
///
/// # Errors
/// [`ErrorName::OperationMissing`], [`ErrorName::IllegalTransition`], [`ErrorName::InvalidInput`] when the result
/// is too large.
pub fn succeed(
    id: &OperationId,
    result: &Value,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Result<Change> {
    check_size("the result", result)?;
    let failed = failed_regions(result);
    let said = |field: &str| result.get(field).and_then(Value::as_str);
    let incomplete = said("outcome") == Some("incomplete")
        || matches!(said("status"), Some("deviated" | "aborted" | "rolled-back"));
    let (event, status) = if failed.is_empty() && !incomplete {
        (Event::Succeed, Status::Succeeded)
    } else {
        (Event::SucceedPartially, Status::Partial)
    };
    let answer = json!({"operationId": id, "status": status, "failedRegions": failed});
    let existing = observed.operation.as_ref();
    if let Transition::AlreadyDone(_) = transition(id, existing.map(|operation| operation.status), event)? {
        return Ok(Change { writes: Vec::new(), answer, ended: None });
    }
    let (mut operation, before) = changed(id, observed, event, now)?;
    operation.status = status;
    operation.result = Some(result.clone());
    let breaker = observed.breaker.clone().unwrap_or_else(|| Breaker::new(operation.kind)).after_success(id);
    Ok(finish(operation, before, breaker, answer, observed, settings, now))
}

/// Ends an operation with an error. An operation that could not begin is recorded as failed.
///
/// # Errors
/// [`ErrorName::IllegalTransition`] when it already succeeded.
pub fn fail(
    beginning: &Beginning,
    failure: &Failure,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Result<Change> {
    let id = beginning.operation_id();
    let existing = observed.operation.as_ref();
    let (mut operation, before) = match (transition(&id, existing.map(|o| o.status), Event::Fail)?, existing)
    {
        (Transition::AlreadyDone(_), Some(operation)) => {
            let recorded = operation.error.as_ref().unwrap_or(failure);
            let answer = json!({"operationId": id, "status": Status::Failed, "error": recorded});
            return Ok(Change { writes: Vec::new(), answer, ended: None });
        }
        (_, Some(_)) => changed(&id, observed, Event::Fail, now)?,
        (_, None) => (unbegun(beginning, &id, now), Expect::Absent),
    };
    operation.status = Status::Failed;
    operation.error = Some(failure.clone());
    let answer = json!({"operationId": id, "status": Status::Failed, "error": failure});
    let breaker = observed.breaker.clone().unwrap_or_else(|| Breaker::new(operation.kind));
    let breaker = breaker.after_failure(&id, failure.name, now, &settings.breaker);
    Ok(finish(operation, before, breaker, answer, observed, settings, now))
}

/// Sets or lifts the emergency stop.
///
/// # Errors
/// [`ErrorName::InvalidInput`] without a name or a reason.
pub fn emergency_stop(
    in_force: bool,
    by: &str,
    reason: &str,
    existing: Option<&EmergencyStop>,
    now: Timestamp,
) -> Result<Change> {
    for (field, text) in [("by", by), ("reason", reason)] {
        crate::input::check_words("changing the emergency stop", field, text)?;
    }
    let stop = EmergencyStop {
        operation_id: EmergencyStop::KEY.to_owned(),
        in_force,
        by: by.to_owned(),
        reason: reason.to_owned(),
        at: now,
        set_at: if in_force { Some(now) } else { existing.and_then(|stop| stop.set_at) },
        version: existing.map_or(1, |stop| stop.version + 1),
    };
    Ok(Change {
        answer: json!({"emergencyStop": {"inForce": in_force, "by": by, "reason": reason, "at": now}}),
        writes: vec![Write::Put(Item::Stop(stop), expect(existing.map(|stop| stop.version)))],
        ended: None,
    })
}

fn changed(
    id: &OperationId,
    observed: &Observed,
    event: Event,
    now: Timestamp,
) -> Result<(Operation, Expect)> {
    let status = observed.operation.as_ref().map(|operation| operation.status);
    transition(id, status, event)?;
    let Some(operation) = &observed.operation else {
        return Err(DrError::new(ErrorName::OperationMissing, format!("changing operation {id}")));
    };
    let mut next = operation.clone();
    next.updated_at = now;
    next.version += 1;
    Ok((next, Expect::Version(operation.version)))
}

fn take_lock(
    id: &OperationId,
    execution: &ExecutionArn,
    resource: &str,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Result<Write> {
    let existing = observed.lock.as_ref();
    let decision = decide_lock(existing, id, observed.holder, now)?;
    let since = match (decision, existing) {
        (LockDecision::Renew, Some(lock)) => lock.started_at,
        _ => now,
    };
    let lock = Lock {
        operation_id: Lock::key(resource),
        kind: "lock".to_owned(),
        resource_id: resource.to_owned(),
        owner: id.clone(),
        owner_execution: execution.clone(),
        started_at: since,
        lease_until: now + lease_of(id, settings),
        version: existing.map_or(1, |lock| lock.version + 1),
    };
    Ok(Write::Put(Item::Lock(lock), expect(existing.map(|lock| lock.version))))
}

/// A fleet's run goes on for as long as its slowest backup, an experiment may wait for its approval, and both report
/// nothing meanwhile: they hold their locks for longer than their executions can last. The lock of one that was stopped
/// is free at once, because Step Functions is asked.
fn lease_of(id: &OperationId, settings: &Settings) -> SignedDuration {
    let silent = [Kind::Fleet, Kind::Chaos].iter().any(|kind| id.as_str().starts_with(kind.as_str()));
    if silent { settings.lease.max(FLEET_LEASE) } else { settings.lease }
}

fn put_breaker(mut breaker: Breaker, observed: &Observed) -> Write {
    let before = observed.breaker.as_ref().map(|breaker| breaker.version);
    breaker.version = before.map_or(1, |version| version + 1);
    Write::Put(Item::Breaker(breaker), expect(before))
}

fn finish(
    mut operation: Operation,
    before: Expect,
    breaker: Breaker,
    answer: Value,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Change {
    operation.ended_at = Some(now);
    operation.expires_at = Some((now + settings.retention).as_second());
    let ended = Ended {
        kind: operation.kind,
        status: operation.status,
        duration: now.duration_since(operation.started_at),
        error: operation.error.as_ref().map(|failure| failure.name),
        breaker_open: breaker.status != BreakerStatus::Closed,
    };
    let mut writes = Vec::new();
    if let Some(lock) = observed.lock.as_ref().filter(|lock| lock.owner == operation.operation_id) {
        writes.push(Write::Delete(lock.operation_id.clone(), Expect::Version(lock.version)));
    }
    if observed.breaker.as_ref() != Some(&breaker) {
        writes.push(put_breaker(breaker, observed));
    }
    writes.push(Write::Put(Item::Operation(Box::new(operation)), before));
    Change { writes, answer, ended: Some(ended) }
}

fn unbegun(beginning: &Beginning, id: &OperationId, now: Timestamp) -> Operation {
    let request = if check_size("the request", &beginning.request).is_ok() {
        beginning.request.clone()
    } else {
        Value::Object(Map::from_iter([("omitted".to_owned(), json!("the request was too large to record"))]))
    };
    Operation {
        operation_id: id.clone(),
        kind: beginning.kind,
        status: Status::Failed,
        started_at: beginning.started_at,
        // Only a legal identifier may become part of an index: an empty key attribute is refused by DynamoDB.
        resource_id: beginning.resource().filter(|text| (1..=255).contains(&text.len())),
        updated_at: now,
        ended_at: None,
        execution: beginning.execution.clone(),
        request,
        plan: Value::Null,
        state: None,
        checkpoints: std::collections::BTreeMap::new(),
        result: None,
        error: None,
        version: 1,
        expires_at: None,
    }
}

/// The Regions of a result whose copy is not done.
fn failed_regions(result: &Value) -> Vec<String> {
    result
        .get("copies")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|region| region.get("status").and_then(Value::as_str) != Some("done"))
        .map(|region| region.get("region").and_then(Value::as_str).unwrap_or("unknown").to_owned())
        .collect()
}

#[cfg(test)]
mod tests;

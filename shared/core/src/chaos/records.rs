//! What an experiment writes to the state table: its locks and its journal together, its journal at each step, and the
//! request for approvals.
//!
//! Every write names the version that was read; nothing in here talks to the table.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::approval::{Approval, LASTS};
use super::experiment::ExperimentRequest;
use super::journal::{Journal, Phase};
use super::plan::ExperimentPlan;
use super::put_back::Step;
use super::world::{self, Database, Machine, Resource, ResourceKind, State};
use crate::changes::{Change, Expect, Item, Write};
use crate::control::{EmergencyStop, HolderState, Lock, LockDecision, check_emergency_stop, decide_lock};
use crate::error::{DrError, ErrorName, Result};
use crate::ids::{ExecutionArn, OperationId, Region};
use crate::operation::Kind;

/// The most items of one transaction, less the journal and the emergency stop.
const MOST_LOCKS: usize = 98;
/// What the lock of a resource outlasts its experiment by, if nobody releases it.
const LOCK_OUTLASTS: SignedDuration = SignedDuration::from_hours(24);

/// Under which name an experiment is locked, so that it runs once at a time.
pub fn resource(experiment_id: &str) -> String {
    format!("experiment:{experiment_id}")
}

/// Whether a lock is one of a resource that an experiment changes: its journal tells whether it is still needed. The lock
/// of the experiment itself belongs to its execution, as all others do.
pub fn is_of_journal(lock: &Lock) -> bool {
    let chaos = lock.owner.as_str().starts_with(Kind::Chaos.as_str());
    chaos && !lock.resource_id.starts_with("experiment:")
}

/// What `update_state` answers when an experiment begins.
pub fn outline(operation: &OperationId, request: &ExperimentRequest) -> Value {
    json!({
        "operationId": operation,
        "experimentId": request.id,
        "name": request.name,
        "type": request.family,
        "severity": request.severity,
    })
}

/// Under which name a resource is locked. A database of the home Region has the lock that backups of it take.
pub fn lock_of(resource: &Resource, home: &Region) -> String {
    match resource.kind {
        ResourceKind::DbInstance | ResourceKind::DbCluster if resource.region == *home => resource.id.clone(),
        kind => {
            let kind = format!("{kind:?}").to_lowercase();
            format!("chaos:{kind}:{}:{}", resource.region, resource.id)
        }
    }
}

/// The locks that a plan needs: what it touches, and what that belongs to or consists of.
pub fn locks_of(plan: &ExperimentPlan, home: &Region) -> BTreeSet<String> {
    let besides = plan.steps.iter().flat_map(touched_besides);
    plan.touched().into_iter().chain(besides).map(|resource| lock_of(&resource, home)).collect()
}

/// What another experiment must not break meanwhile: the cluster of a member, the Auto Scaling group of a machine, which
/// may terminate it, and the machines that are taken from their target group, which may be its last ones.
fn touched_besides(step: &Step) -> Vec<Resource> {
    let of = |kind, id: &String| Resource { kind, region: step.watched.region.clone(), id: id.clone() };
    let group = match &step.recorded {
        State::Database(Database { cluster, .. }) => {
            cluster.as_ref().map(|id| of(ResourceKind::DbCluster, id))
        }
        State::Machine(Machine { group, .. }) => group.as_ref().map(|id| of(ResourceKind::ScalingGroup, id)),
        _ => None,
    };
    let targets = match &step.change {
        world::Change::DeregisterTargets { targets } => Some(targets),
        _ => None,
    };
    let machines = targets.into_iter().flatten().filter(|target| target.id.starts_with("i-"));
    let machines = machines.map(|target| of(ResourceKind::Ec2Instance, &target.id));
    group.into_iter().chain(machines).collect()
}

/// What is known of one lock.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The lock, if there is one.
    pub lock: Option<Lock>,
    /// Whether its holder still works.
    pub holder: HolderState,
}

/// Takes all locks and writes the journal, or neither: from then on the experiment is finished by somebody.
///
/// # Errors
/// [`ErrorName::EmergencyStopActive`], also when the stop was lifted and the execution had begun before it;
/// [`ErrorName::OperationInProgress`] naming who holds a resource;
/// [`ErrorName::InvalidInput`] for more resources than one transaction can lock.
pub fn arm(
    journal: &Journal,
    locks: &BTreeMap<String, Held>,
    stop: Option<&EmergencyStop>,
    begun: Timestamp,
    now: Timestamp,
) -> Result<Change> {
    check_emergency_stop(stop)?;
    if let Some(stop) = stop.filter(|stop| stop.covers(begun)) {
        let what = format!(
            "beginning {}: the emergency stop came after its execution had begun, and {} lifted it at {}",
            journal.owner, stop.by, stop.at
        );
        return Err(DrError::new(ErrorName::EmergencyStopActive, what)
            .with_remedy("Start the experiment again, if it is still wanted."));
    }
    let mut writes = vec![Write::Check(
        EmergencyStop::KEY.to_owned(),
        stop.map_or(Expect::Absent, |stop| Expect::Version(stop.version)),
    )];
    writes.extend(take(journal, locks, now)?);
    writes.push(Write::Put(Item::Journal(Box::new(journal.clone())), Expect::Absent));
    Ok(Change { writes, answer: json!({"phase": journal.status}), ended: None })
}

/// What takes every lock for a journal.
///
/// # Errors
/// As [`arm`], of the locks.
fn take(journal: &Journal, locks: &BTreeMap<String, Held>, now: Timestamp) -> Result<Vec<Write>> {
    if locks.len() > MOST_LOCKS {
        return Err(DrError::new(
            ErrorName::InvalidInput,
            format!(
                "beginning {}: {} resources, at most {MOST_LOCKS} can be locked",
                journal.owner,
                locks.len()
            ),
        ));
    }
    let lasts = SignedDuration::from_secs(i64::from(journal.plan.recovery_seconds)) + LOCK_OUTLASTS;
    let mut writes = Vec::new();
    for (resource, held) in locks {
        let before = held.lock.as_ref().map(|lock| lock.version);
        let decision = decide_lock(held.lock.as_ref(), &journal.owner, held.holder, now)?;
        let started_at = match (&decision, &held.lock) {
            (LockDecision::Renew, Some(lock)) => lock.started_at,
            _ => now,
        };
        let lock = Lock {
            operation_id: Lock::key(resource),
            kind: "lock".to_owned(),
            resource_id: resource.clone(),
            owner: journal.owner.clone(),
            owner_execution: journal.owner_execution.clone(),
            started_at,
            lease_until: journal.deadline + lasts,
            version: before.unwrap_or(0) + 1,
        };
        writes.push(Write::Put(Item::Lock(lock), before.map_or(Expect::Absent, Expect::Version)));
    }
    Ok(writes)
}

/// Leaves a journal that is about to begin with the stack in the Region of its resources ([`Journal::dead_mans`]), and
/// takes the locks that stack's own backups and experiments take: the two do not meet on a resource.
///
/// # Errors
/// [`ErrorName::OperationInProgress`] naming who holds a resource there, and as [`arm`] for too many of them.
pub fn leave(
    journal: &Journal,
    existing: Option<&Journal>,
    locks: &BTreeMap<String, Held>,
    now: Timestamp,
) -> Result<Change> {
    let before = existing.map(|existing| existing.version);
    let copy = journal.dead_mans(before.unwrap_or(0) + 1);
    let mut writes = take(journal, locks, now)?;
    writes.push(Write::Put(Item::Journal(Box::new(copy)), before.map_or(Expect::Absent, Expect::Version)));
    Ok(Change { writes, answer: json!({}), ended: None })
}

/// Takes back what was left, with its locks; `None` when nobody has it, or when it is being worked on there.
pub fn withdraw(left: Option<&Journal>, locks: &[Lock]) -> Option<Change> {
    let left = left.filter(|left| left.holder == left.owner_execution.as_str())?;
    let mut writes = vec![Write::Delete(left.operation_id.clone(), Expect::Version(left.version))];
    writes.extend(release(left, locks));
    Some(Change { writes, answer: json!({}), ended: None })
}

/// What gives a journal's locks back. Those of others stay.
fn release(journal: &Journal, locks: &[Lock]) -> impl Iterator<Item = Write> {
    let ours = locks.iter().filter(|lock| lock.owner == journal.owner);
    ours.map(|lock| Write::Delete(lock.operation_id.clone(), Expect::Version(lock.version)))
}

/// Writes a journal that follows the one of version `before`. One that has ended gives its resources back.
pub fn save(journal: &Journal, before: u64, locks: &[Lock]) -> Change {
    let mut writes = vec![Write::Put(Item::Journal(Box::new(journal.clone())), Expect::Version(before))];
    if journal.status == Phase::Ended {
        writes.extend(release(journal, locks));
    }
    Change { writes, answer: json!({"phase": journal.status}), ended: None }
}

/// Whether the holder of an experiment's lock still works: its journal tells, not its execution, because a watchdog
/// finishes what an execution left. Locks and journal are written together, so a lock without a journal has outlived it.
pub fn holder_of(journal: Option<&Journal>) -> HolderState {
    if journal.is_some_and(Journal::is_open) { HolderState::Unfinished } else { HolderState::Ended }
}

/// The same of a journal as it was read. One that cannot be understood, because a newer version wrote it, says nothing: the
/// lock's own lease counts then.
///
/// # Errors
/// Of the table.
pub fn judge(read: Result<Option<Journal>>) -> Result<HolderState> {
    match read {
        Err(error) if error.name() == ErrorName::MetadataDamaged => Ok(HolderState::Unknown),
        read => read.map(|journal| holder_of(journal.as_ref())),
    }
}

/// A plan that waits for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// The table's key, `approval#<operation>`.
    pub operation_id: String,
    /// `approval`, so that they can be listed by the index.
    #[serde(rename = "type")]
    pub kind: String,
    /// The operation.
    pub owner: OperationId,
    /// Its execution.
    pub owner_execution: ExecutionArn,
    /// Since when; part of an index.
    pub started_at: Timestamp,
    /// The plan that is asked about.
    pub plan: ExperimentPlan,
    /// Its hash.
    pub plan_hash: String,
    /// The token of the state that waits.
    pub task_token: String,
    /// What was said so far; whether it counts is decided when it is used.
    pub approvals: Vec<Approval>,
    /// When there were enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<Timestamp>,
    /// Counts the writes.
    pub version: u64,
    /// When DynamoDB may delete the item, in seconds since 1970 (TTL).
    pub expires_at: i64,
}

impl Pending {
    /// How long it stays in the table.
    const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

    /// The most approvals that are kept: more than can be needed, so that forged ones do not keep good ones out for long.
    const MOST: usize = 50;

    /// The table's key.
    pub fn key(operation: &OperationId) -> String {
        format!("approval#{operation}")
    }

    /// Asks for approvals; again, with a new token, when the state was tried again.
    ///
    /// # Errors
    /// [`ErrorName::Internal`] when the plan has no hash.
    pub fn ask(
        owner: &OperationId,
        execution: &ExecutionArn,
        plan: &ExperimentPlan,
        task_token: &str,
        existing: Option<&Self>,
        now: Timestamp,
    ) -> Result<Change> {
        let hash = plan.hash()?;
        // What was approved stays approved only for the same plan.
        let kept = existing.filter(|existing| existing.plan_hash == hash);
        let pending = Self {
            operation_id: Self::key(owner),
            kind: "approval".to_owned(),
            owner: owner.clone(),
            owner_execution: execution.clone(),
            started_at: kept.map_or(now, |kept| kept.started_at),
            plan: plan.clone(),
            plan_hash: hash,
            task_token: task_token.to_owned(),
            approvals: kept.map_or_else(Vec::new, |kept| kept.approvals.clone()),
            approved_at: kept.and_then(|kept| kept.approved_at),
            version: existing.map_or(0, |existing| existing.version) + 1,
            expires_at: (now + Self::KEPT).as_second(),
        };
        Ok(pending.write(existing.map(|existing| existing.version)))
    }

    /// Adds an approval. The same one twice is one.
    ///
    /// # Errors
    /// [`ErrorName::InvalidInput`] when there are too many.
    pub fn add(&self, approval: &Approval) -> Result<Option<Change>> {
        if self.approvals.contains(approval) {
            return Ok(None);
        }
        if self.approvals.len() >= Self::MOST {
            return Err(DrError::new(
                ErrorName::InvalidInput,
                format!("approving {}: there are {} approvals already", self.owner, Self::MOST),
            ));
        }
        let mut next = Self { version: self.version + 1, ..self.clone() };
        next.approvals.push(approval.clone());
        Ok(Some(next.write(Some(self.version))))
    }

    /// Notes that there are enough now; `None` when that is noted.
    pub fn approved(&self, now: Timestamp) -> Option<Change> {
        if self.approved_at.is_some() {
            return None;
        }
        let next = Self { version: self.version + 1, approved_at: Some(now), ..self.clone() };
        Some(next.write(Some(self.version)))
    }

    /// At what time its approvals have to be valid for an experiment that begins now: when there were enough, because its
    /// data is read between that and its beginning; no longer ago than an approval may last.
    pub fn valid_at(&self, now: Timestamp) -> Timestamp {
        self.approved_at.filter(|at| *at <= now && *at + LASTS > now).unwrap_or(now)
    }

    fn write(self, before: Option<u64>) -> Change {
        let answer = json!({"planHash": self.plan_hash, "approvals": self.approvals.len()});
        let expect = before.map_or(Expect::Absent, Expect::Version);
        Change { writes: vec![Write::Put(Item::Approval(Box::new(self)), expect)], answer, ended: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::chaos::experiment::{Family, Severity};
    use crate::chaos::fault::Fault;
    use crate::chaos::journal::StepStatus;
    use crate::chaos::world::{Change as WorldChange, Function};

    fn now() -> Timestamp {
        "2026-11-25T12:00:00Z".parse().unwrap()
    }

    fn region(name: &str) -> Region {
        Region::parse(name).unwrap()
    }

    fn step(kind: ResourceKind, region_name: &str, id: &str) -> Step {
        let resource = Resource { kind, region: region(region_name), id: id.to_owned() };
        Step {
            fault: Fault::FunctionThrottle {},
            resource: resource.clone(),
            arn: "arn:x".to_owned(),
            watched: resource,
            recorded: State::Function(Function::default()),
            change: WorldChange::ReserveConcurrency { executions: 0 },
            undo: Some(WorldChange::ReleaseConcurrency),
            undo_seconds: 60,
            note: None,
        }
    }

    fn journal() -> Journal {
        let plan = ExperimentPlan {
            experiment_id: "one".to_owned(),
            family: Family::Regional,
            severity: Severity::Critical,
            region: Region::parse("us-east-1").unwrap(),
            seed: "seed".to_owned(),
            intensity: 100,
            steps: vec![
                step(ResourceKind::DbInstance, "us-east-1", "orders"),
                step(ResourceKind::Function, "us-east-1", "mail"),
            ],
            guards: Vec::new(),
            duration_seconds: 60,
            recovery_seconds: 900,
            settling_seconds: 30,
            worst_case_seconds: 180,
            pre_checks: Vec::new(),
            steady_state: Vec::new(),
            stop_conditions: Vec::new(),
            post_checks: Vec::new(),
            data_check: None,
            approvals: 1,
            requested_by: Some("ada".to_owned()),
            channels: std::collections::BTreeSet::new(),
        };
        let execution =
            ExecutionArn::parse("arn:aws:states:us-east-1:111122223333:execution:ChaosExperiment:one")
                .unwrap();
        Journal::new(
            &OperationId::parse("chaos-0123456789abcdef").unwrap(),
            &execution,
            plan,
            Vec::new(),
            now(),
        )
    }

    fn free(journal: &Journal) -> BTreeMap<String, Held> {
        let held = || Held { lock: None, holder: HolderState::Unknown };
        locks_of(&journal.plan, &region("us-east-1")).into_iter().map(|name| (name, held())).collect()
    }

    #[test]
    fn a_database_at_home_has_the_lock_of_its_backups_and_everything_else_one_of_its_own() {
        let home = region("us-east-1");
        let lock = |kind, at: &str, id: &str| {
            lock_of(&Resource { kind, region: region(at), id: id.to_owned() }, &home)
        };
        assert_eq!(lock(ResourceKind::DbInstance, "us-east-1", "orders"), "orders");
        assert_eq!(lock(ResourceKind::DbCluster, "us-east-1", "till"), "till");
        assert_eq!(
            lock(ResourceKind::DbInstance, "eu-west-1", "orders"),
            "chaos:dbinstance:eu-west-1:orders"
        );
        assert_eq!(lock(ResourceKind::Function, "us-east-1", "orders"), "chaos:function:us-east-1:orders");
    }

    #[test]
    fn locks_journal_and_the_look_at_the_emergency_stop_are_one_transaction() {
        let journal = journal();
        let change = arm(&journal, &free(&journal), None, now(), now()).unwrap();
        let [check, first, second, put] = change.writes.as_slice() else { unreachable!("{change:?}") };
        assert_eq!(*check, Write::Check(EmergencyStop::KEY.to_owned(), Expect::Absent));
        for write in [first, second] {
            let Write::Put(Item::Lock(lock), Expect::Absent) = write else { unreachable!("{write:?}") };
            assert_eq!(lock.owner, journal.owner);
            assert!(lock.lease_until > journal.deadline);
        }
        assert_eq!(*put, Write::Put(Item::Journal(Box::new(journal.clone())), Expect::Absent));
    }

    #[test]
    fn what_is_left_elsewhere_is_put_back_when_it_must_be_over() {
        let journal = journal();
        let change = leave(&journal, None, &free(&journal), now()).unwrap();
        let [locks @ .., Write::Put(Item::Journal(left), Expect::Absent)] = change.writes.as_slice() else {
            unreachable!("{change:?}")
        };
        let locks: Vec<Lock> = locks
            .iter()
            .map(|write| match write {
                Write::Put(Item::Lock(lock), Expect::Absent) => lock.clone(),
                other => unreachable!("{other:?}"),
            })
            .collect();
        assert_eq!(locks.len(), free(&journal).len());
        assert!(left.entries.iter().all(|entry| entry.status == StepStatus::Begun));
        assert!(left.take("watchdog there", journal.deadline).is_err(), "home is still at work");
        let over = left.lease_until;
        assert!(over > journal.deadline);
        let taken = left.take("watchdog there", over).unwrap();
        assert_eq!(taken.status, Phase::RollingBack);
        // The same again replaces it, and it is taken back unless somebody works on it there.
        let held = |holder| {
            let hold = |lock: &Lock| (lock.resource_id.clone(), Held { lock: Some(lock.clone()), holder });
            locks.iter().map(hold).collect::<BTreeMap<_, _>>()
        };
        let again = leave(&journal, Some(left), &held(HolderState::Unknown), now()).unwrap();
        assert!(
            matches!(again.writes.last(), Some(Write::Put(Item::Journal(it), Expect::Version(1))) if it.version == 2)
        );
        let back = withdraw(Some(left), &locks).unwrap().writes;
        assert_eq!(back.first(), Some(&Write::Delete(journal.operation_id.clone(), Expect::Version(1))));
        assert_eq!(back.len(), 1 + locks.len());
        assert_eq!(withdraw(Some(&taken), &locks), None);
        assert_eq!(withdraw(None, &locks), None);
        // The stack there has an experiment of its own on one of them.
        let mut other = journal;
        other.owner = OperationId::parse("chaos-fedcba9876543210").unwrap();
        let refused = leave(&other, None, &held(HolderState::Unfinished), now()).unwrap_err();
        assert_eq!(refused.name(), ErrorName::OperationInProgress);
        assert!(withdraw(Some(left), &[]).unwrap().writes.len() == 1);
    }

    #[test]
    fn a_member_is_locked_with_its_cluster() {
        let mut journal = journal();
        let writer = Database { cluster: Some("till".to_owned()), ..Database::default() };
        journal.plan.steps[0].recorded = State::Database(writer);
        let locks = locks_of(&journal.plan, &journal.plan.region);
        assert!(locks.contains("till"), "{locks:?}");
        assert_eq!(locks.len(), locks_of(&self::journal().plan, &journal.plan.region).len() + 1);
    }

    #[test]
    fn a_machine_is_locked_with_its_group_and_with_the_target_group_that_it_leaves() {
        let besides = |recorded, change| {
            let mut plan = journal().plan;
            let known = locks_of(&plan, &plan.region);
            plan.steps[0].recorded = recorded;
            plan.steps[0].change = change;
            locks_of(&plan, &plan.region).difference(&known).cloned().collect::<Vec<_>>()
        };
        let machine = Machine {
            state: "running".to_owned(),
            group: Some("web".to_owned()),
            security_groups: BTreeSet::new(),
            interfaces: 1,
        };
        let at = journal().plan.region;
        let reboot = world::Change::RebootEc2Instance;
        assert_eq!(besides(State::Machine(machine), reboot), [format!("chaos:scalinggroup:{at}:web")]);
        let target = |id: &str| world::Target { id: id.to_owned(), port: Some(80), zone: None };
        let targets = BTreeSet::from([target("i-1"), target("10.0.0.9")]);
        let leave = world::Change::DeregisterTargets { targets };
        let recorded = journal().plan.steps[0].recorded.clone();
        assert_eq!(besides(recorded, leave), [format!("chaos:ec2instance:{at}:i-1")]);
    }

    #[test]
    fn approvals_that_were_enough_stay_so_while_the_data_is_read() {
        let journal = journal();
        let asked =
            Pending::ask(&journal.owner, &journal.owner_execution, &journal.plan, "token", None, now())
                .unwrap();
        let [Write::Put(Item::Approval(pending), _)] = asked.writes.as_slice() else {
            unreachable!("{asked:?}")
        };
        let hours = SignedDuration::from_hours;
        assert_eq!(pending.valid_at(now() + hours(3)), now() + hours(3));
        let noted = pending.approved(now()).unwrap();
        let [Write::Put(Item::Approval(pending), _)] = noted.writes.as_slice() else {
            unreachable!("{noted:?}")
        };
        assert_eq!(pending.approved(now() + hours(1)), None);
        assert_eq!(pending.valid_at(now() + hours(3)), now());
        assert_eq!(
            pending.valid_at(now() + hours(25)),
            now() + hours(25),
            "no approval lasts longer than a day"
        );
    }

    #[test]
    fn nothing_begins_under_the_emergency_stop_or_on_what_another_holds() {
        let journal = journal();
        let stop = EmergencyStop {
            operation_id: EmergencyStop::KEY.to_owned(),
            in_force: true,
            by: "ada".to_owned(),
            reason: "enough".to_owned(),
            at: now(),
            set_at: Some(now()),
            version: 3,
        };
        let second = SignedDuration::from_secs(1);
        let error = arm(&journal, &free(&journal), Some(&stop), now(), now()).unwrap_err();
        assert_eq!(error.name(), ErrorName::EmergencyStopActive);
        let lifted = EmergencyStop { in_force: false, ..stop };
        // What waited for its approval when the stop came does not begin because it is lifted.
        let error = arm(&journal, &free(&journal), Some(&lifted), now() - second, now()).unwrap_err();
        assert_eq!(error.name(), ErrorName::EmergencyStopActive);
        let change = arm(&journal, &free(&journal), Some(&lifted), now() + second, now()).unwrap();
        assert!(change.writes.contains(&Write::Check(EmergencyStop::KEY.to_owned(), Expect::Version(3))));

        let other = Lock {
            operation_id: Lock::key("orders"),
            kind: "lock".to_owned(),
            resource_id: "orders".to_owned(),
            owner: OperationId::parse("backup-0123456789abcdef").unwrap(),
            owner_execution: journal.owner_execution.clone(),
            started_at: now(),
            lease_until: now() + SignedDuration::from_hours(1),
            version: 9,
        };
        let mut locks = free(&journal);
        for (holder, begins) in
            [(HolderState::Running, false), (HolderState::Unknown, false), (HolderState::Ended, true)]
        {
            locks.insert("orders".to_owned(), Held { lock: Some(other.clone()), holder });
            let change = arm(&journal, &locks, None, now(), now());
            assert_eq!(change.is_ok(), begins, "{holder:?}");
            assert!(change.is_ok() || change.unwrap_err().name() == ErrorName::OperationInProgress);
        }
    }

    #[test]
    fn an_ended_experiment_gives_back_its_own_locks_and_no_others() {
        let mut journal = journal();
        let lock = |owner: &str, resource: &str| Lock {
            operation_id: Lock::key(resource),
            kind: "lock".to_owned(),
            resource_id: resource.to_owned(),
            owner: OperationId::parse(owner).unwrap(),
            owner_execution: journal.owner_execution.clone(),
            started_at: now(),
            lease_until: now(),
            version: 2,
        };
        let locks = [lock("chaos-0123456789abcdef", "orders"), lock("backup-0123456789abcdef", "till")];
        assert_eq!(save(&journal, 4, &locks).writes.len(), 1, "it still runs");
        journal.status = Phase::Stuck;
        assert_eq!(save(&journal, 4, &locks).writes.len(), 1, "what is not as it was stays locked");
        assert_eq!(holder_of(Some(&journal)), HolderState::Unfinished);
        journal.status = Phase::Ended;
        let change = save(&journal, 4, &locks);
        assert_eq!(change.writes.get(1), Some(&Write::Delete(Lock::key("orders"), Expect::Version(2))));
        assert_eq!(change.writes.len(), 2);
        assert_eq!(holder_of(Some(&journal)), HolderState::Ended);
        assert_eq!(holder_of(None), HolderState::Ended);
        let read = |name| judge(Err(DrError::new(name, "reading it")));
        assert_eq!(read(ErrorName::MetadataDamaged).unwrap(), HolderState::Unknown);
        assert_eq!(read(ErrorName::Throttled).unwrap_err().name(), ErrorName::Throttled);
    }

    #[test]
    fn approvals_stay_with_the_plan_that_they_are_for() {
        let journal = journal();
        let ask = |plan: &ExperimentPlan, token: &str, existing: Option<&Pending>| {
            let owner = &journal.owner;
            let change = Pending::ask(owner, &journal.owner_execution, plan, token, existing, now()).unwrap();
            let Some(Write::Put(Item::Approval(pending), _)) = change.writes.into_iter().next() else {
                unreachable!()
            };
            *pending
        };
        let first = ask(&journal.plan, "token-1", None);
        let approval = Approval {
            plan_hash: first.plan_hash.clone(),
            approver: "grace".to_owned(),
            expires_at: now(),
            code: "00".to_owned(),
        };
        let Some(change) = first.add(&approval).unwrap() else { unreachable!() };
        let Some(Write::Put(Item::Approval(second), Expect::Version(1))) = change.writes.first() else {
            unreachable!()
        };
        assert_eq!(second.add(&approval).unwrap(), None, "the same one twice is one");
        let again = ask(&journal.plan, "token-2", Some(second));
        assert_eq!((again.approvals.len(), again.task_token.as_str(), again.version), (1, "token-2", 3));
        let mut other = journal.plan.clone();
        other.duration_seconds = 61;
        assert!(ask(&other, "token-3", Some(second)).approvals.is_empty());
    }
}

//! Decisions about a temporary restore: begin it, wait for it, give it a fresh password, dispose of it.
//!
//! A snapshot of an instance becomes an instance; so does one of a Multi-AZ DB cluster, because RDS allows that and one
//! instance shows all that three would. A snapshot of an Aurora cluster becomes a cluster, and then one instance in it,
//! both under the same name. Whatever there is under that name tells which road was taken: nothing else remembers it.
//!
//! A temporary instance or cluster carries a lease: the operation, the role `temporary` and an expiry. Nothing without that
//! lease, and without the name's prefix, is ever used or deleted. Restores that stay are not made here.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{DrError, ErrorName, Leftovers, Result};
use crate::ids::{DatabaseId, OperationId, SnapshotId};
use crate::labels::{self, Role};
use crate::observed::{DatabaseFacts, DatabaseKind, Endpoint, Observed, Scaling, SnapshotFacts, Tags};
use crate::origin;
use crate::plan::TemporaryTarget;
use crate::polling::{Earlier, Pause, Schedule, Step, StepKind, Took, next_look};

/// What the lease adds to the restore's own timeout: time for the examination.
const LEASE: SignedDuration = SignedDuration::from_hours(24);
/// The class of Aurora members whose capacity follows the load.
const SERVERLESS: &str = "db.serverless";
/// Capacity of a serverless member where the source names none: half a unit to 8 units (16 GiB of memory).
const MODEST: Scaling = Scaling { min_half_units: 1, max_half_units: 16 };
/// How long a fresh instance may be unknown to `DescribeDBInstances`, which is eventually consistent.
const SETTLING: SignedDuration = SignedDuration::from_mins(5);

/// What the installation is configured for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreSettings {
    /// Subnet group without a way from outside.
    pub subnet_group: String,
    /// Security groups that only let the validating function in.
    pub security_group_ids: Vec<String>,
    /// Instance class; the source's when absent.
    pub instance_class: Option<String>,
    /// How long the instance may take to become available.
    pub timeout: SignedDuration,
}

/// The request to RDS; the rest of what it sends (not public, one zone, no backups, no deletion protection) is the
/// same for every temporary instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Of an instance or of a Multi-AZ DB cluster.
    pub snapshot_kind: DatabaseKind,
    /// The new instance.
    pub id: DatabaseId,
    /// Its class; the one in the snapshot when absent.
    pub instance_class: Option<String>,
    /// Its subnet group.
    pub subnet_group: String,
    /// Its security groups.
    pub security_group_ids: Vec<String>,
    /// The source's parameter group, where it fits; the engine's default when absent.
    pub parameter_group: Option<String>,
    /// The snapshot's option group; the engine's default when absent.
    pub option_group: Option<String>,
    /// The source's port.
    pub port: Option<u16>,
    /// The lease.
    pub tags: Tags,
}

/// The request to RDS for an Aurora cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRequest {
    /// The cluster snapshot.
    pub snapshot: SnapshotId,
    /// The new cluster.
    pub id: DatabaseId,
    /// The snapshot's engine.
    pub engine: String,
    /// The snapshot's version of it.
    pub engine_version: String,
    /// Its subnet group.
    pub subnet_group: String,
    /// Its security groups.
    pub security_group_ids: Vec<String>,
    /// The source's cluster parameter group, where it fits; the engine's default when absent.
    pub parameter_group: Option<String>,
    /// Capacity for its member, where that is serverless.
    pub scaling: Option<Scaling>,
    /// The lease, and the class of the member.
    pub tags: Tags,
}

/// The request to RDS for the one member of a temporary Aurora cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRequest {
    /// The new instance, and its cluster.
    pub id: DatabaseId,
    /// The cluster's engine.
    pub engine: String,
    /// Its class.
    pub instance_class: String,
    /// The lease.
    pub tags: Tags,
}

/// What is known of a temporary restore's source, if it is still there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Source<'a> {
    /// The instance or the cluster.
    pub database: Option<&'a DatabaseFacts>,
    /// The member of an Aurora cluster that writes.
    pub writer: Option<&'a DatabaseFacts>,
}

/// What there is under a temporary restore's name.
#[derive(Debug)]
pub struct Seen {
    /// Among instances.
    pub instance: Observed<DatabaseFacts>,
    /// Among clusters.
    pub cluster: Observed<DatabaseFacts>,
}

/// What to do at the beginning.
#[derive(Debug, PartialEq, Eq)]
pub enum StartStep {
    /// Write down the secret for this user, then restore.
    Restore {
        /// The master user in the snapshot.
        username: String,
        /// The lease, for the secret too.
        lease: Tags,
        /// What to ask RDS for.
        request: Box<RestoreRequest>,
    },
    /// Write down the secret for this user, then restore the cluster.
    RestoreCluster {
        /// The master user in the snapshot.
        username: String,
        /// The lease, for the secret too.
        lease: Tags,
        /// What to ask RDS for.
        request: Box<ClusterRequest>,
    },
    /// An earlier call of the same operation began it.
    Started,
    /// The snapshot is not ready yet.
    Wait {
        /// When to come back.
        check_again_in_seconds: u32,
    },
}

/// Checks that a temporary target's names are those of its operation.
///
/// # Errors
/// [`ErrorName::InvalidInput`] for other names: an instance that is not temporary must not be within reach.
pub fn check_target(operation: &OperationId, target: &TemporaryTarget) -> Result<()> {
    if *target == TemporaryTarget::of(operation)? {
        return Ok(());
    }
    let text = format!("reading the request: `target` does not hold the names that belong to `{operation}`");
    Err(DrError::new(ErrorName::InvalidInput, text))
}

/// Decides how to begin.
///
/// # Errors
/// Those of [`origin::check_proving`], [`ErrorName::TargetNotOurs`], [`ErrorName::SnapshotMissing`],
/// [`ErrorName::SnapshotFailed`], [`ErrorName::CredentialsMissing`] when the snapshot does not say its master user.
pub fn decide_start(
    operation: &OperationId,
    target: &TemporaryTarget,
    settings: &RestoreSettings,
    (snapshot_id, snapshot): (&SnapshotId, Observed<SnapshotFacts>),
    source: Source<'_>,
    existing: Seen,
    now: Timestamp,
) -> Result<StartStep> {
    let (instance, cluster) = (existing.instance.into_option()?, existing.cluster.into_option()?);
    if let Some(found) = instance.or(cluster) {
        return ours(found, operation).map(|_| StartStep::Started);
    }
    let what = || format!("restoring snapshot `{snapshot_id}` as `{}`", target.instance_id);
    let snapshot = snapshot.found_or_else(|| DrError::new(ErrorName::SnapshotMissing, what()))?;
    match snapshot.status.as_str() {
        "available" => {}
        "failed" | "deleting" | "deleted" => {
            let text = format!("{}: the snapshot's status is `{}`", what(), snapshot.status);
            return Err(DrError::new(ErrorName::SnapshotFailed, text));
        }
        _ => return Ok(StartStep::Wait { check_again_in_seconds: 30 }),
    }
    origin::check_proving(&snapshot)?;
    let username = snapshot.master_username.clone().ok_or_else(|| {
        DrError::new(ErrorName::CredentialsMissing, format!("{}: it has no master user", what()))
    })?;
    let mut lease = labels::mark(Role::Temporary, operation, Some(&snapshot.database));
    labels::expire(&mut lease, Some(now + settings.timeout + LEASE));
    // A source that was upgraded since has a parameter group of another family, which RDS would refuse.
    let parameter_group = source
        .database
        .filter(|source| source.engine == snapshot.engine)
        .filter(|source| {
            source.major_version().map(|major| major.to_string()) == major(&snapshot.engine_version)
        })
        .and_then(|source| source.parameter_group.clone());
    if snapshot.is_aurora() {
        let request = cluster_request(target, settings, &snapshot, source, parameter_group, &lease);
        return Ok(StartStep::RestoreCluster { username, lease, request: Box::new(request) });
    }
    let class = source.database.map(|source| source.instance_class.clone()).filter(|class| !class.is_empty());
    let request = RestoreRequest {
        snapshot: snapshot_id.clone(),
        snapshot_kind: snapshot.database_kind,
        id: target.instance_id.clone(),
        instance_class: settings.instance_class.clone().or(class),
        subnet_group: settings.subnet_group.clone(),
        security_group_ids: settings.security_group_ids.clone(),
        // A cluster's parameter group is of a kind that an instance cannot have.
        parameter_group: parameter_group.filter(|_| snapshot.database_kind == DatabaseKind::Instance),
        option_group: snapshot.option_group.clone(),
        port: snapshot.port,
        tags: lease.clone(),
    };
    Ok(StartStep::Restore { username, lease, request: Box::new(request) })
}

fn cluster_request(
    target: &TemporaryTarget,
    settings: &RestoreSettings,
    snapshot: &SnapshotFacts,
    source: Source<'_>,
    parameter_group: Option<String>,
    lease: &Tags,
) -> ClusterRequest {
    // Neither the snapshot nor the cluster has a class: its writer's is taken. Without a source nothing is known, and
    // a serverless member fits every load for a while.
    let class = settings
        .instance_class
        .clone()
        .or_else(|| source.writer.map(|writer| writer.instance_class.clone()))
        .unwrap_or_else(|| SERVERLESS.to_owned());
    let scaling =
        (class == SERVERLESS).then(|| source.database.and_then(|source| source.scaling).unwrap_or(MODEST));
    let mut tags = lease.clone();
    tags.insert(labels::INSTANCE_CLASS.to_owned(), class);
    ClusterRequest {
        snapshot: snapshot.id.clone(),
        id: target.instance_id.clone(),
        engine: snapshot.engine.clone(),
        engine_version: snapshot.engine_version.clone(),
        subnet_group: settings.subnet_group.clone(),
        security_group_ids: settings.security_group_ids.clone(),
        parameter_group,
        scaling,
        tags,
    }
}

fn major(version: &str) -> Option<String> {
    version.split('.').next().filter(|major| !major.is_empty()).map(str::to_owned)
}

/// What to do while the restore goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckStep {
    /// Come back later.
    Wait {
        /// The status of the instance or its cluster, for people.
        status: String,
        /// When.
        pause: Pause,
        /// What is waited for, as its duration is remembered; absent for what has no history of its own.
        step: Option<Step>,
    },
    /// The cluster is there: make its member.
    CreateMember(Box<MemberRequest>),
    /// It became available: set the password of the secret, then remember both by these tags. A crash in between
    /// sets the same password again, which changes nothing.
    SetPassword {
        /// Whose password: the instance's, or the cluster's that it is in.
        kind: DatabaseKind,
        /// That one's ARN.
        arn: String,
        /// The tags.
        remember: Tags,
    },
    /// It is available under the fresh password.
    Ready {
        /// Where it listens.
        endpoint: Endpoint,
        /// From the start of the restore until it was first seen available.
        time_to_available_seconds: i64,
        /// That, to be remembered; absent for a cluster.
        took: Option<Took>,
    },
}

/// A restore into an instance, as its duration is remembered. That of a cluster is not: it is two steps with one
/// beginning, and the second has to be begun as soon as the first is done.
fn step(instance: &DatabaseFacts) -> Step {
    let database = instance.tags.get(labels::DATABASE).cloned();
    Step {
        kind: StepKind::Restore,
        region: instance.region.clone(),
        database: database.and_then(|database| DatabaseId::parse(database).ok()),
        engine: instance.engine.clone(),
        size_gb: instance.allocated_storage_gb,
    }
}

/// The same at the beginning, when there is only the snapshot. Absent for a snapshot that becomes a cluster.
pub fn first_step(snapshot: &SnapshotFacts, database: Option<&DatabaseId>) -> Option<Step> {
    let database = database.cloned().or_else(|| DatabaseId::parse(snapshot.database.clone()).ok());
    (snapshot.database_kind == DatabaseKind::Instance).then(|| Step {
        kind: StepKind::Restore,
        region: snapshot.region.clone(),
        database,
        engine: snapshot.engine.clone(),
        size_gb: snapshot.size_gb,
    })
}

/// Decides what a look at the instance and its cluster means. `earlier` is what restores into an instance took before.
///
/// # Errors
/// [`ErrorName::TargetNotOurs`], [`ErrorName::RestoreIncompatible`], [`ErrorName::KeyNotAccessible`],
/// [`ErrorName::InsufficientCapacity`], [`ErrorName::RestoreFailed`] for the terminal statuses, and
/// [`ErrorName::RestoreTimeout`].
pub fn decide_check(
    operation: &OperationId,
    target: &TemporaryTarget,
    seen: Seen,
    started_at: Timestamp,
    timeout: SignedDuration,
    earlier: Option<&Earlier>,
    now: Timestamp,
) -> Result<CheckStep> {
    let id = &target.instance_id;
    let age = now.duration_since(started_at);
    let schedule = Schedule { least: 5, most: 60, timeout };
    let wait = |status: &str| CheckStep::Wait {
        status: status.to_owned(),
        pause: next_look(schedule, age, 0, None),
        step: None,
    };
    let (instance, cluster) = (seen.instance.into_option()?, seen.cluster.into_option()?);
    let cluster = cluster.map(|cluster| ours(cluster, operation)).transpose()?;
    let late = |found: &DatabaseFacts| {
        let minutes = timeout.as_mins();
        let text = format!(
            "waiting for {} `{id}` in {}: after {minutes} minutes it is `{}`",
            found.kind, found.region, found.status
        );
        DrError::new(ErrorName::RestoreTimeout, text)
            .with_leftovers(Leftovers::Remaining(vec![found.arn.clone()]))
    };
    if let Some(cluster) = &cluster {
        check_status(cluster)?;
        match (cluster.status.as_str(), &instance) {
            ("available", None) if age > timeout => return Err(late(cluster)),
            ("available", None) => {
                return member_request(cluster).map(|request| CheckStep::CreateMember(Box::new(request)));
            }
            // Its member goes on by itself, and with it what follows; only a fresh password is waited for here.
            ("available", Some(_)) if !cluster.password_pending => {}
            _ if age > timeout => return Err(late(cluster)),
            (status, _) => return Ok(wait(&format!("cluster {status}"))),
        }
    }
    let Some(instance) = instance else {
        if age <= SETTLING {
            return Ok(wait("unknown"));
        }
        let text = format!("waiting for `{id}`: it does not exist (any more)");
        return Err(DrError::new(ErrorName::RestoreFailed, text));
    };
    let instance = ours(instance, operation)?;
    check_status(&instance)?;
    if instance.cluster.is_some() && cluster.is_none() && age <= timeout {
        // `DescribeDBClusters` is eventually consistent too.
        return Ok(wait("cluster unknown"));
    }
    // The password is the cluster's where there is one, and so is the tag that remembers it.
    let holder = cluster.as_ref().unwrap_or(&instance);
    let remembered = holder.tags.get(labels::PASSWORD_SET).and_then(|text| text.parse::<Timestamp>().ok());
    match (instance.status.as_str(), remembered, &instance.endpoint) {
        ("available", None, _) => Ok(CheckStep::SetPassword {
            kind: holder.kind,
            arn: holder.arn.clone(),
            remember: Tags::from([(labels::PASSWORD_SET.to_owned(), now.to_string())]),
        }),
        ("available", Some(available_at), Some(endpoint)) if !instance.password_pending => {
            Ok(CheckStep::Ready {
                endpoint: endpoint.clone(),
                time_to_available_seconds: available_at.duration_since(started_at).as_secs().max(0),
                took: cluster.is_none().then(|| Took::new(step(&instance), started_at, available_at)),
            })
        }
        _ if age > timeout => Err(late(&instance)),
        // Nearly there: no need to let the pause grow.
        (status, Some(_), _) => Ok(CheckStep::Wait {
            status: status.to_owned(),
            pause: Pause { seconds: 5, why: None },
            step: None,
        }),
        (status, None, _) if cluster.is_none() => Ok(CheckStep::Wait {
            status: status.to_owned(),
            pause: next_look(schedule, age, 0, earlier),
            step: Some(step(&instance)),
        }),
        (status, None, _) => Ok(wait(status)),
    }
}

/// The member of a temporary cluster: its class is the one that was decided on at the beginning, and the lease is the
/// cluster's.
fn member_request(cluster: &DatabaseFacts) -> Result<MemberRequest> {
    let class = cluster.tags.get(labels::INSTANCE_CLASS).ok_or_else(|| {
        let text = format!("making an instance in `{}`: the tag with its class is gone", cluster.id);
        DrError::new(ErrorName::RestoreFailed, text)
            .with_leftovers(Leftovers::Remaining(vec![cluster.arn.clone()]))
    })?;
    let lease = [labels::OPERATION_ID, labels::ROLE, labels::DATABASE, labels::EXPIRES_AT];
    let tags = cluster.tags.iter().filter(|(key, _)| lease.contains(&key.as_str()));
    Ok(MemberRequest {
        id: cluster.id.clone(),
        engine: cluster.engine.clone(),
        instance_class: class.clone(),
        tags: tags.map(|(key, value)| (key.clone(), value.clone())).collect(),
    })
}

fn check_status(seen: &DatabaseFacts) -> Result<()> {
    let Some(name) = terminal(&seen.status) else { return Ok(()) };
    let text = format!(
        "waiting for {} `{}` in {}: its status is `{}`",
        seen.kind, seen.id, seen.region, seen.status
    );
    Err(DrError::new(name, text).with_leftovers(Leftovers::Remaining(vec![seen.arn.clone()])))
}

/// The error for a status that an instance does not leave by itself (RDS User Guide, "Viewing Amazon RDS DB
/// instance status"). `None` for statuses on the way, and for those that we do not know.
fn terminal(status: &str) -> Option<ErrorName> {
    Some(match status {
        "inaccessible-encryption-credentials" | "inaccessible-encryption-credentials-recoverable" => {
            ErrorName::KeyNotAccessible
        }
        "insufficient-capacity" => ErrorName::InsufficientCapacity,
        status if status.starts_with("incompatible-") => ErrorName::RestoreIncompatible,
        "failed" | "restore-error" | "storage-full" | "deleting" | "deleted" | "stopping" | "stopped" => {
            ErrorName::RestoreFailed
        }
        _ => return None,
    })
}

/// What to do to get rid of a temporary restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisposeStep {
    /// Ask RDS to delete the instance.
    DeleteInstance {
        /// Whether it is in a cluster, which then has what else there is to delete.
        member: bool,
    },
    /// The instance is gone: ask RDS to delete the cluster that it was in.
    DeleteCluster,
    /// The deletion goes on: come back later.
    Wait,
    /// All is gone: delete its secret, if it is this operation's; then all is done.
    DeleteSecret,
}

/// Decides the next step of a disposal: the instance, then its cluster, and the secret last: until the instance is
/// gone its password may be wanted.
///
/// # Errors
/// [`ErrorName::TargetNotOurs`] for anything without our lease; [`ErrorName::DisposalFailed`] when the instance or the
/// cluster outlives its lease.
pub fn decide_disposal(
    operation: &OperationId,
    target: &TemporaryTarget,
    seen: Seen,
    now: Timestamp,
) -> Result<DisposeStep> {
    let (instance, cluster) = (seen.instance.into_option()?, seen.cluster.into_option()?);
    let next = match (&instance, &cluster) {
        (Some(instance), _) => DisposeStep::DeleteInstance { member: instance.cluster.is_some() },
        (None, Some(_)) => DisposeStep::DeleteCluster,
        (None, None) => return Ok(DisposeStep::DeleteSecret),
    };
    let Some(first) = instance.or(cluster) else { return Ok(DisposeStep::DeleteSecret) };
    let first = ours(first, operation)?;
    let expired = first
        .tags
        .get(labels::EXPIRES_AT)
        .and_then(|text| text.parse::<Timestamp>().ok())
        .is_some_and(|expires_at| now > expires_at + LEASE);
    match first.status.as_str() {
        "deleting" if expired => Err(DrError::new(
            ErrorName::DisposalFailed,
            format!(
                "deleting {} `{}` in {}: it is still `deleting` long after its lease",
                first.kind, first.id, first.region
            ),
        )
        .with_leftovers(Leftovers::Orphaned(vec![first.arn, target.secret_id.clone()]))),
        "deleting" => Ok(DisposeStep::Wait),
        _ => Ok(next),
    }
}

/// The instance or cluster, if it is this operation's temporary one by its tags and by its name.
fn ours(instance: DatabaseFacts, operation: &OperationId) -> Result<DatabaseFacts> {
    let leased = labels::is_of(&instance.tags, Role::Temporary, operation)
        && instance.tags.contains_key(labels::EXPIRES_AT)
        && instance.id.as_str().starts_with(TemporaryTarget::PREFIX);
    if leased {
        Ok(instance)
    } else {
        let text = format!("looking at {} `{}` in {}", instance.kind, instance.id, instance.region);
        Err(DrError::new(ErrorName::TargetNotOurs, text))
    }
}

/// Whether an instance or a cluster whose name was taken when it was asked for is this operation's own.
///
/// # Errors
/// [`ErrorName::TargetNotOurs`], and [`ErrorName::StateConflict`] when it cannot be seen yet.
pub fn adopt(operation: &OperationId, id: &DatabaseId, seen: Observed<DatabaseFacts>) -> Result<()> {
    let unseen = || {
        let text = format!("restoring as `{id}`: its name is taken, but it cannot be seen yet");
        DrError::new(ErrorName::StateConflict, text)
    };
    ours(seen.found_or_else(unseen)?, operation).map(|_| ())
}

/// A measured restore, as the judge takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTimes {
    /// From the start of the restore until it was first seen available.
    pub time_to_available_seconds: i64,
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;

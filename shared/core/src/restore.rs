//! Decisions about a temporary restore: begin it, wait for it, give it a fresh password, dispose of it.
//!
//! A temporary instance carries a lease: the operation, the role `temporary` and an expiry. Nothing without that
//! lease, and without the name's prefix, is ever used or deleted. Restores that stay are not made here.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{DrError, ErrorName, Leftovers, Result};
use crate::ids::{DatabaseId, OperationId, SnapshotId};
use crate::labels::{self, Role};
use crate::observed::{DatabaseFacts, Endpoint, Observed, SnapshotFacts, Tags};
use crate::plan::TemporaryTarget;
use crate::snapshot::check_again_in;

/// What the lease adds to the restore's own timeout: time for the examination.
const LEASE: SignedDuration = SignedDuration::from_hours(24);
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
/// [`ErrorName::TargetNotOurs`], [`ErrorName::SnapshotMissing`], [`ErrorName::SnapshotFailed`],
/// [`ErrorName::CredentialsMissing`] when the snapshot does not say its master user.
pub fn decide_start(
    operation: &OperationId,
    target: &TemporaryTarget,
    settings: &RestoreSettings,
    (snapshot_id, snapshot): (&SnapshotId, Observed<SnapshotFacts>),
    source: Option<&DatabaseFacts>,
    existing: Observed<DatabaseFacts>,
    now: Timestamp,
) -> Result<StartStep> {
    if let Some(instance) = existing.into_option()? {
        return ours(instance, operation).map(|_| StartStep::Started);
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
    let username = snapshot.master_username.clone().ok_or_else(|| {
        DrError::new(ErrorName::CredentialsMissing, format!("{}: it has no master user", what()))
    })?;
    let mut lease = labels::mark(Role::Temporary, operation, Some(&snapshot.database));
    labels::expire(&mut lease, Some(now + settings.timeout + LEASE));
    // A source that was upgraded since has a parameter group of another family, which RDS would refuse.
    let parameter_group = source
        .filter(|source| source.engine == snapshot.engine)
        .filter(|source| {
            source.major_version().map(|major| major.to_string()) == major(&snapshot.engine_version)
        })
        .and_then(|source| source.parameter_group.clone());
    let request = RestoreRequest {
        snapshot: snapshot_id.clone(),
        id: target.instance_id.clone(),
        instance_class: settings
            .instance_class
            .clone()
            .or_else(|| source.map(|source| source.instance_class.clone())),
        subnet_group: settings.subnet_group.clone(),
        security_group_ids: settings.security_group_ids.clone(),
        parameter_group,
        option_group: snapshot.option_group.clone(),
        port: snapshot.port,
        tags: lease.clone(),
    };
    Ok(StartStep::Restore { username, lease, request: Box::new(request) })
}

fn major(version: &str) -> Option<String> {
    version.split('.').next().filter(|major| !major.is_empty()).map(str::to_owned)
}

/// What to do while the restore goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckStep {
    /// Come back later.
    Wait {
        /// The instance's status, for people.
        status: String,
        /// When.
        check_again_in_seconds: u32,
    },
    /// It became available: set the password of the secret, then remember both by these tags. A crash in between
    /// sets the same password again, which changes nothing.
    SetPassword {
        /// The instance's ARN.
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
    },
}

/// Decides what a look at the instance means.
///
/// # Errors
/// [`ErrorName::TargetNotOurs`], [`ErrorName::RestoreIncompatible`], [`ErrorName::KeyNotAccessible`],
/// [`ErrorName::InsufficientCapacity`], [`ErrorName::RestoreFailed`] for the terminal statuses, and
/// [`ErrorName::RestoreTimeout`].
pub fn decide_check(
    operation: &OperationId,
    target: &TemporaryTarget,
    seen: Observed<DatabaseFacts>,
    started_at: Timestamp,
    timeout: SignedDuration,
    now: Timestamp,
) -> Result<CheckStep> {
    let id = &target.instance_id;
    let age = now.duration_since(started_at);
    let wait = |status: &str| CheckStep::Wait {
        status: status.to_owned(),
        check_again_in_seconds: check_again_in(started_at, now, 5, 60),
    };
    let Some(instance) = seen.into_option()? else {
        if age <= SETTLING {
            return Ok(wait("unknown"));
        }
        let text = format!("waiting for `{id}`: it does not exist (any more)");
        return Err(DrError::new(ErrorName::RestoreFailed, text));
    };
    let instance = ours(instance, operation)?;
    let left = Leftovers::Remaining(vec![instance.arn.clone()]);
    if let Some(name) = terminal(&instance.status) {
        let text = format!("waiting for `{id}` in {}: its status is `{}`", instance.region, instance.status);
        return Err(DrError::new(name, text).with_leftovers(left));
    }
    let remembered = instance.tags.get(labels::PASSWORD_SET).and_then(|text| text.parse::<Timestamp>().ok());
    match (instance.status.as_str(), remembered, instance.endpoint) {
        ("available", None, _) => Ok(CheckStep::SetPassword {
            arn: instance.arn,
            remember: Tags::from([(labels::PASSWORD_SET.to_owned(), now.to_string())]),
        }),
        ("available", Some(available_at), Some(endpoint)) if !instance.password_pending => {
            Ok(CheckStep::Ready {
                endpoint,
                time_to_available_seconds: available_at.duration_since(started_at).as_secs().max(0),
            })
        }
        _ if age > timeout => Err(DrError::new(
            ErrorName::RestoreTimeout,
            format!(
                "waiting for `{id}` in {}: after {} minutes it is `{}`",
                instance.region,
                timeout.as_mins(),
                instance.status
            ),
        )
        .with_leftovers(left)),
        // Nearly there: no need to let the pause grow.
        (status, Some(_), _) => Ok(CheckStep::Wait { status: status.to_owned(), check_again_in_seconds: 5 }),
        (status, None, _) => Ok(wait(status)),
    }
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
    DeleteInstance,
    /// The deletion goes on: come back later.
    Wait,
    /// The instance is gone: delete its secret, if it is this operation's; then all is done.
    DeleteSecret,
}

/// Decides the next step of a disposal. The secret goes last: until the instance is gone its password may be wanted.
///
/// # Errors
/// [`ErrorName::TargetNotOurs`] for anything without our lease; [`ErrorName::DisposalFailed`] when the instance
/// outlives its lease.
pub fn decide_disposal(
    operation: &OperationId,
    target: &TemporaryTarget,
    seen: Observed<DatabaseFacts>,
    now: Timestamp,
) -> Result<DisposeStep> {
    let Some(instance) = seen.into_option()? else { return Ok(DisposeStep::DeleteSecret) };
    let instance = ours(instance, operation)?;
    let expired = instance
        .tags
        .get(labels::EXPIRES_AT)
        .and_then(|text| text.parse::<Timestamp>().ok())
        .is_some_and(|expires_at| now > expires_at + LEASE);
    match instance.status.as_str() {
        "deleting" if expired => Err(DrError::new(
            ErrorName::DisposalFailed,
            format!(
                "deleting `{}` in {}: it is still `deleting` long after its lease",
                instance.id, instance.region
            ),
        )
        .with_leftovers(Leftovers::Orphaned(vec![instance.arn, target.secret_id.clone()]))),
        "deleting" => Ok(DisposeStep::Wait),
        _ => Ok(DisposeStep::DeleteInstance),
    }
}

/// The instance, if it is this operation's temporary one by its tags and by its name.
fn ours(instance: DatabaseFacts, operation: &OperationId) -> Result<DatabaseFacts> {
    let leased = labels::is_of(&instance.tags, Role::Temporary, operation)
        && instance.tags.contains_key(labels::EXPIRES_AT)
        && instance.id.as_str().starts_with(TemporaryTarget::PREFIX);
    if leased {
        Ok(instance)
    } else {
        let text = format!("looking at instance `{}` in {}", instance.id, instance.region);
        Err(DrError::new(ErrorName::TargetNotOurs, text))
    }
}

/// Whether an instance whose name was taken when the restore was asked for is this operation's own.
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

//! What is judged instance by instance: status, replication, storage, certificate, point-in-time recovery, settings.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::{
    CERTIFICATE_CRITICAL, Code, Component, InstanceSeen, RegionSeen, STORAGE_CRITICAL_PERCENT, Severity,
    Work, spoken,
};
use crate::ids::Region;
use crate::labels::{self, Role};

/// Nothing is wrong in these, and RDS serves the database.
const WORKING: [&str; 2] = ["available", "storage-optimization"];
/// In these RDS is about something; each ends by itself.
/// Source: Amazon RDS User Guide, "Viewing Amazon RDS DB instance status".
const BUSY: [&str; 25] = [
    "backing-up",
    "configuring-activity-stream",
    "configuring-associated-roles",
    "configuring-enhanced-monitoring",
    "configuring-iam-database-auth",
    "configuring-log-exports",
    "converting-to-vpc",
    "creating",
    "delete-precheck",
    "failing-over",
    "maintenance",
    "migrating",
    "modifying",
    "moving-to-vpc",
    "promoting",
    "rebooting",
    "resetting-master-credentials",
    "renaming",
    "scaling-compute",
    "starting",
    "storage-config-upgrade",
    "storage-initialization",
    "switchover",
    "syncing",
    "upgrading",
];
/// In these it serves nobody, or not for long.
const DOWN: [&str; 19] = [
    "deleting",
    "failed",
    "inaccessible-encryption-credentials",
    "inaccessible-encryption-credentials-recoverable",
    "incompatible-create",
    "incompatible-credentials",
    "incompatible-dr",
    "incompatible-network",
    "incompatible-option-group",
    "incompatible-parameters",
    "incompatible-restore",
    "insufficient-capacity",
    "insufficient-resource-limits",
    "read-replica-degraded",
    "restore-error",
    "stopped",
    "stopping",
    "storage-full",
    "terminated",
];
/// For so long after its creation CloudWatch may know nothing of an instance.
const UNMEASURED: SignedDuration = SignedDuration::from_mins(20);
const GIB: f64 = 1_073_741_824.0;

pub(super) fn assess(work: &mut Work<'_>) {
    for (region, seen) in work.regions() {
        match &seen.instances {
            Ok(instances) => {
                for component in [Component::Database, Component::Recovery, Component::Settings] {
                    work.looked(component, &region);
                }
                for instance in instances.iter().filter(|instance| {
                    work.expected.scope.has_database(&instance.id) && !is_temporary(instance)
                }) {
                    status(work, &region, instance);
                    recovery(work, &region, instance);
                    settings(work, &region, instance);
                }
                measured(work, &region, seen, instances);
                certificates(work, &region, seen, instances);
            }
            Err(error) => {
                for component in
                    [Component::Database, Component::Replication, Component::Storage, Component::Certificates]
                {
                    work.could_not_look(component, &region, "the Region's instances", error);
                }
            }
        }
    }
    missing(work);
}

pub(super) fn is_temporary(instance: &InstanceSeen) -> bool {
    labels::has(&instance.tags, labels::ROLE, Role::Temporary.as_str())
}

/// Databases that are named, in the configuration or in the request, and that the home Region does not have.
fn missing(work: &mut Work<'_>) {
    let home = work.expected.home.clone();
    let Some(Ok(instances)) = work.seen.regions.get(&home).map(|seen| seen.instances.as_ref()) else {
        return;
    };
    if !work.expected.scope.has_region(&home) {
        return;
    }
    let mut named = work.expected.databases.clone();
    if let super::Scope::Databases(ids) = &work.expected.scope {
        named.extend(ids.iter().cloned());
    }
    // A replica in another Region may be asked for by name, too.
    let elsewhere = |id: &str| {
        let lists = work.seen.regions.values().filter_map(|seen| seen.instances.as_ref().ok());
        lists.flatten().any(|instance| instance.id == id)
    };
    let gone: Vec<String> = named
        .into_iter()
        .filter(|id| work.expected.scope.has_database(id))
        .filter(|id| !instances.iter().any(|instance| instance.id == *id) && !elsewhere(id))
        .collect();
    for id in gone {
        let message = format!("there is no database `{id}` in {home}");
        work.find(Severity::Critical, Component::Database, &home, &id, Code::DatabaseMissing, message);
    }
}

fn status(work: &mut Work<'_>, region: &Region, instance: &InstanceSeen) {
    let status = instance.status.as_str();
    let (severity, code) = if WORKING.contains(&status) {
        return;
    } else if BUSY.contains(&status) {
        (Severity::Info, Code::DatabaseBusy)
    } else if DOWN.contains(&status) {
        (Severity::Critical, Code::DatabaseDown)
    } else {
        (Severity::Warning, Code::DatabaseStatusUnknown)
    };
    let hint = match status {
        "stopped" => " (RDS starts it again after 7 days)",
        "inaccessible-encryption-credentials-recoverable" => " (recoverable for 7 days, by enabling its key)",
        _ => "",
    };
    let message = format!("database `{}` in {region} is `{status}`{hint}", instance.id);
    work.find(severity, Component::Database, region, &instance.id, code, message);
}

fn recovery(work: &mut Work<'_>, region: &Region, instance: &InstanceSeen) {
    // A replica and a cluster's member are restored through their source and their cluster.
    if instance.replica_of.is_some() || instance.cluster.is_some() {
        return;
    }
    let id = &instance.id;
    if instance.backup_retention_days == 0 {
        let message =
            format!("database `{id}` in {region} has no automated backups, so no point-in-time recovery");
        work.find(Severity::Info, Component::Recovery, region, id, Code::RecoveryOff, message);
        return;
    }
    let (true, Some(latest)) = (instance.status == "available", instance.latest_restorable_time) else {
        return;
    };
    let lag = work.now.duration_since(latest);
    let limit = work.expected.thresholds.recovery_lag;
    if lag <= limit {
        return;
    }
    let severity = if lag > limit * 4 { Severity::Critical } else { Severity::Warning };
    let message =
        format!("database `{id}` in {region} can be restored to {latest} at the latest, {} ago", spoken(lag));
    work.find(severity, Component::Recovery, region, id, Code::RecoveryLag, message);
}

fn settings(work: &mut Work<'_>, region: &Region, instance: &InstanceSeen) {
    let id = &instance.id;
    if instance.publicly_accessible {
        let message = format!("database `{id}` in {region} has a public address");
        work.find(Severity::Warning, Component::Settings, region, id, Code::PubliclyAccessible, message);
    }
    if instance.cluster.is_none() && !instance.deletion_protection {
        let message = format!("database `{id}` in {region} can be deleted by one call");
        work.find(Severity::Info, Component::Settings, region, id, Code::DeletionProtectionOff, message);
    }
    if !instance.encrypted {
        let message = format!("database `{id}` in {region} is not encrypted");
        work.find(Severity::Info, Component::Settings, region, id, Code::Unencrypted, message);
    }
}

/// What only CloudWatch knows: lag and free storage.
fn measured(work: &mut Work<'_>, region: &Region, seen: &RegionSeen, instances: &[InstanceSeen]) {
    let measures = match &seen.measures {
        Ok(measures) => measures,
        Err(error) => {
            for component in [Component::Replication, Component::Storage] {
                work.could_not_look(component, region, "CloudWatch's metrics", error);
            }
            // What RDS itself says of replication needs no metrics.
            for instance in instances.iter().filter(|one| work.expected.scope.has_database(&one.id)) {
                stopped_replication(work, region, instance);
            }
            return;
        }
    };
    work.looked(Component::Replication, region);
    work.looked(Component::Storage, region);
    let readers: BTreeSet<&str> =
        instances.iter().flat_map(|cluster| &cluster.readers).map(String::as_str).collect();
    for instance in instances {
        if !work.expected.scope.has_database(&instance.id) || is_temporary(instance) {
            continue;
        }
        let measure = measures.get(&instance.id).copied().unwrap_or_default();
        // A reader of a cluster follows its writer, which RDS names nowhere.
        let reads_from = instance.cluster.as_ref().filter(|_| readers.contains(instance.id.as_str()));
        if let Some(source) = instance.replica_of.as_ref().or(reads_from) {
            replication(work, region, instance, source, measure.lag_seconds);
        }
        storage(work, region, instance, measure.free_bytes);
    }
}

/// Whether RDS says that replication does not go on, and the finding about it.
fn stopped_replication(work: &mut Work<'_>, region: &Region, instance: &InstanceSeen) -> bool {
    let Some(status) = instance.replication.iter().find(|status| !status.normal) else { return false };
    let message = format!(
        "replica `{}` in {region} is not replicating: `{}` {}",
        instance.id, status.status, status.message
    );
    let subject = &instance.id;
    work.find(Severity::Critical, Component::Replication, region, subject, Code::ReplicationStopped, message);
    true
}

fn replication(
    work: &mut Work<'_>,
    region: &Region,
    instance: &InstanceSeen,
    source: &str,
    lag: Option<f64>,
) {
    if stopped_replication(work, region, instance) {
        return;
    }
    let (id, limit) = (&instance.id, work.expected.thresholds.replica_lag.as_secs_f64());
    match lag {
        None if !is_measured(work, instance) => {}
        None => {
            let message = format!("nothing is known of the lag of replica `{id}` in {region}");
            let code = Code::ReplicationLagUnknown;
            work.find(Severity::Warning, Component::Replication, region, id, code, message);
        }
        // -1 is "not replicating", not "no lag".
        Some(lag) if lag < 0.0 => {
            let message = format!("replica `{id}` in {region} is not replicating (its lag is {lag})");
            let code = Code::ReplicationStopped;
            work.find(Severity::Critical, Component::Replication, region, id, code, message);
        }
        Some(lag) => {
            let from = region_of(source).unwrap_or_else(|| region.clone());
            let worst = work.gauges.lag_seconds.entry((from, region.clone())).or_insert(lag);
            *worst = worst.max(lag);
            if lag > limit {
                let message =
                    format!("replica `{id}` in {region} lags {lag:.0} s behind, of {limit:.0} s allowed");
                let code = Code::ReplicationLag;
                work.find(Severity::Critical, Component::Replication, region, id, code, message);
            }
        }
    }
}

/// The Region in an ARN.
pub(super) fn region_of(source: &str) -> Option<Region> {
    let mut parts = source.split(':');
    (parts.next() == Some("arn")).then(|| parts.nth(2)).flatten().and_then(|text| Region::parse(text).ok())
}

/// Whether CloudWatch should know something about it by now.
fn is_measured(work: &Work<'_>, instance: &InstanceSeen) -> bool {
    WORKING.contains(&instance.status.as_str())
        && instance.created_at.is_some_and(|created| work.now.duration_since(created) > UNMEASURED)
}

fn storage(work: &mut Work<'_>, region: &Region, instance: &InstanceSeen, free: Option<f64>) {
    // A cluster's storage grows by itself and belongs to the cluster.
    if instance.cluster.is_some() || instance.allocated_storage_gb <= 0 {
        return;
    }
    let id = &instance.id;
    let Some(free) = free else {
        if is_measured(work, instance) {
            let message = format!("nothing is known of the free storage of database `{id}` in {region}");
            work.find(Severity::Warning, Component::Storage, region, id, Code::StorageUnknown, message);
        }
        return;
    };
    let allocated = f64::from(instance.allocated_storage_gb) * GIB;
    // What autoscaling may still add is room, too.
    let room =
        instance.max_allocated_storage_gb.map_or(allocated, |most| (f64::from(most) * GIB).max(allocated));
    let used = (allocated - free).clamp(0.0, allocated);
    let percent = used / room * 100.0;
    let worst = work.gauges.storage_percent.entry(region.clone()).or_insert(percent);
    *worst = worst.max(percent);
    let limit = work.expected.thresholds.storage_percent;
    if percent <= f64::from(limit) {
        return;
    }
    let critical = percent > f64::from(STORAGE_CRITICAL_PERCENT.max(limit));
    let severity = if critical { Severity::Critical } else { Severity::Warning };
    let grows = match instance.max_allocated_storage_gb {
        Some(most) if most > instance.allocated_storage_gb => format!(", which may grow to {most} GiB"),
        _ => String::new(),
    };
    let message = format!(
        "database `{id}` in {region} has used {percent:.0} % of its storage ({:.1} of {} GiB{grows})",
        used / GIB,
        instance.allocated_storage_gb
    );
    work.find(severity, Component::Storage, region, id, Code::StorageNearlyFull, message);
}

fn certificates(work: &mut Work<'_>, region: &Region, seen: &RegionSeen, instances: &[InstanceSeen]) {
    let authorities = match &seen.certificates {
        Ok(authorities) => authorities,
        Err(error) => {
            return work.could_not_look(
                Component::Certificates,
                region,
                "the certificate authorities",
                error,
            );
        }
    };
    work.looked(Component::Certificates, region);
    for instance in instances {
        let (id, Some(authority)) = (&instance.id, &instance.ca_certificate) else { continue };
        if !work.expected.scope.has_database(id) || is_temporary(instance) {
            continue;
        }
        let Some(valid_till) = authorities.get(authority) else {
            let message =
                format!("nothing is known of the authority `{authority}` of database `{id}` in {region}");
            work.find(
                Severity::Warning,
                Component::Certificates,
                region,
                id,
                Code::CertificateUnknown,
                message,
            );
            continue;
        };
        let left = valid_till.duration_since(work.now);
        if left >= work.expected.thresholds.certificate {
            continue;
        }
        let severity = if left < CERTIFICATE_CRITICAL { Severity::Critical } else { Severity::Warning };
        let when = if left.is_negative() { "expired" } else { "expires" };
        let message =
            format!("the authority `{authority}` of database `{id}` in {region} {when} at {valid_till}");
        work.find(severity, Component::Certificates, region, id, Code::CertificateExpires, message);
    }
}

//! What belongs to no database: keys, quotas, leases, breakers and the emergency stop.

use jiff::Timestamp;

use super::{
    Code, Component, LEASE_GRACE, QUOTA_CRITICAL_PERCENT, RegionSeen, Severity, Work, databases, spoken,
};
use crate::control::BreakerStatus;
use crate::ids::Region;
use crate::labels;
use crate::observed::{KeyFacts, Observed, Tags};

/// The quotas that a backup, a copy or a restore runs into. Source: Amazon RDS API Reference, `AccountQuota`.
const QUOTAS: [&str; 5] =
    ["DBInstances", "AllocatedStorage", "ManualSnapshots", "DBClusters", "ManualClusterSnapshots"];

pub(super) fn assess(work: &mut Work<'_>) {
    if !work.expected.scope.is_wide() {
        return;
    }
    for (region, seen) in work.regions() {
        keys(work, &region, seen);
        quotas(work, &region, seen);
        temporary_instances(work, &region, seen);
    }
    at_home(work);
}

fn keys(work: &mut Work<'_>, region: &Region, seen: &RegionSeen) {
    let mut all = true;
    for (id, key) in &seen.keys {
        let (id, under) = (id.as_str(), &key.purpose);
        let (code, message) = match &key.facts {
            Observed::Found(facts) if facts.state == "Enabled" => continue,
            Observed::Found(facts) => state_of_key(region, id, under, facts),
            Observed::Missing => {
                (Code::KeyMissing, format!("key `{id}` ({under}) does not exist in {region}"))
            }
            Observed::Unreachable(error) => {
                all = false;
                work.could_not_look(Component::Keys, region, id, error);
                continue;
            }
        };
        work.find(Severity::Critical, Component::Keys, region, id, code, message);
    }
    // Which keys matter follows from the snapshots and the databases.
    if all && seen.points.is_ok() && seen.instances.is_ok() {
        work.looked(Component::Keys, region);
    }
}

fn state_of_key(region: &Region, id: &str, under: &str, facts: &KeyFacts) -> (Code, String) {
    match facts.state.as_str() {
        "PendingDeletion" | "PendingReplicaDeletion" => {
            let when = facts.deletion_date.map(|at| format!(" at {at}")).unwrap_or_default();
            (
                Code::KeyPendingDeletion,
                format!("key `{id}` ({under}) in {region} is going to be deleted{when}"),
            )
        }
        "Disabled" => (Code::KeyDisabled, format!("key `{id}` ({under}) in {region} is disabled")),
        other => (Code::KeyUnusable, format!("key `{id}` ({under}) in {region} is `{other}`")),
    }
}

fn quotas(work: &mut Work<'_>, region: &Region, seen: &RegionSeen) {
    let quotas = match &seen.quotas {
        Ok(quotas) => quotas,
        Err(error) => return work.could_not_look(Component::Quotas, region, "the account's quotas", error),
    };
    work.looked(Component::Quotas, region);
    let limit = work.expected.thresholds.quota_percent;
    for quota in quotas.iter().filter(|quota| quota.max > 0 && QUOTAS.contains(&quota.name.as_str())) {
        let above =
            |percent: u32| quota.used.saturating_mul(100) >= quota.max.saturating_mul(i64::from(percent));
        if !above(limit) {
            continue;
        }
        let critical = above(QUOTA_CRITICAL_PERCENT.max(limit));
        let severity = if critical { Severity::Critical } else { Severity::Warning };
        let (name, used, max) = (&quota.name, quota.used, quota.max);
        let message = format!("{used} of {max} of the quota `{name}` in {region} are used");
        work.find(severity, Component::Quotas, region, name, Code::QuotaNearlyUsed, message);
    }
}

/// When a temporary resource should have been gone, if that is longer ago than the grace.
fn overdue(tags: &Tags, now: Timestamp) -> Option<Timestamp> {
    let expiry = tags.get(labels::EXPIRES_AT)?.parse::<Timestamp>().ok()?;
    (now > expiry + LEASE_GRACE).then_some(expiry)
}

fn of_operation(tags: &Tags) -> &str {
    tags.get(labels::OPERATION_ID).map_or("an unknown operation", String::as_str)
}

fn temporary_instances(work: &mut Work<'_>, region: &Region, seen: &RegionSeen) {
    let Ok(instances) = &seen.instances else { return };
    if *region != work.expected.home {
        // At home the locks and the secrets count, too.
        work.looked(Component::Leases, region);
    }
    for instance in instances.iter().filter(|instance| databases::is_temporary(instance)) {
        let Some(expiry) = overdue(&instance.tags, work.now) else { continue };
        let message = format!(
            "temporary instance `{}` of {} in {region} should have been gone at {expiry}",
            instance.id,
            of_operation(&instance.tags)
        );
        work.find(Severity::Warning, Component::Leases, region, &instance.id, Code::LeaseExpired, message);
    }
}

fn at_home(work: &mut Work<'_>) {
    let Some(seen) = &work.seen.home else { return };
    let home = work.expected.home.clone();
    leases(work, &home, seen);
    match &seen.breakers {
        Ok(breakers) => {
            for breaker in breakers.iter().filter(|breaker| breaker.status != BreakerStatus::Closed) {
                let since = breaker.opened_at.map(|at| format!(" since {at}")).unwrap_or_default();
                let message = format!(
                    "{} in {home} refuses operations{since}, after {} failures",
                    breaker.operation_id,
                    breaker.failures.len()
                );
                let subject = &breaker.operation_id;
                work.find(Severity::Critical, Component::Control, &home, subject, Code::BreakerOpen, message);
            }
        }
        Err(error) => work.could_not_look(Component::Control, &home, "the circuit breakers", error),
    }
    match &seen.stop {
        Ok(Some(stop)) if stop.in_force => {
            let message =
                format!("{} set the emergency stop in {home} at {} ({})", stop.by, stop.at, stop.reason);
            let subject = &stop.operation_id;
            work.find(Severity::Warning, Component::Control, &home, subject, Code::EmergencyStop, message);
        }
        Ok(_) => {}
        Err(error) => work.could_not_look(Component::Control, &home, "the emergency stop", error),
    }
    if seen.breakers.is_ok() && seen.stop.is_ok() {
        work.looked(Component::Control, &home);
    }
}

fn leases(work: &mut Work<'_>, home: &Region, seen: &super::HomeSeen) {
    let now = work.now;
    match &seen.locks {
        Ok(locks) => {
            for lock in locks.iter().filter(|lock| lock.lease_until < now) {
                let message = format!(
                    "the lock of `{}` in {home}, held by {} since {}, expired {} ago",
                    lock.resource_id,
                    lock.owner,
                    lock.started_at,
                    spoken(now.duration_since(lock.lease_until))
                );
                let subject = &lock.operation_id;
                work.find(Severity::Warning, Component::Leases, home, subject, Code::LockExpired, message);
            }
        }
        Err(error) => work.could_not_look(Component::Leases, home, "the locks", error),
    }
    match &seen.secrets {
        Ok(secrets) => {
            for secret in secrets {
                let Some(expiry) = overdue(&secret.tags, now) else { continue };
                let message = format!(
                    "secret `{}` of {} in {home} should have been gone at {expiry}",
                    secret.name,
                    of_operation(&secret.tags)
                );
                work.find(
                    Severity::Warning,
                    Component::Leases,
                    home,
                    &secret.name,
                    Code::LeaseExpired,
                    message,
                );
            }
        }
        Err(error) => work.could_not_look(Component::Leases, home, "the temporary secrets", error),
    }
    let instances = work.seen.regions.get(home).is_some_and(|seen| seen.instances.is_ok());
    if seen.locks.is_ok() && seen.secrets.is_ok() && instances {
        work.looked(Component::Leases, home);
    }
}

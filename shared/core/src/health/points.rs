//! What is judged by recovery points: the age of backups, verdicts, copies in other Regions, and what would be left
//! if the home Region died now.
//!
//! Expected are backups of the databases that are named, that have a snapshot of ours, or that say how old it may be
//! ([`BACKUP_AGE_HOURS`]). Of every other one it is only noted that nothing is expected.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::databases::{is_temporary, region_of};
use super::{
    BACKUP_AGE_HOURS, COPY_REGIONS, Code, Component, InstanceSeen, Point, Recoverable, RegionSeen, Scope,
    Severity, Source, Work, spoken,
};
use crate::ids::{KmsKeyId, Region};
use crate::labels::{Proof, Role};
use crate::observed::Observed;
use crate::proof::judgement::Level;

/// A database that must have backups.
struct Covered<'a> {
    id: String,
    instance: Option<&'a InstanceSeen>,
    limit: SignedDuration,
    targets: Vec<Region>,
}

impl Covered<'_> {
    fn is_younger_than_its_limit(&self, now: Timestamp) -> bool {
        let created = self.instance.and_then(|instance| instance.created_at);
        created.is_some_and(|created| now.duration_since(created) <= self.limit)
    }
}

pub(super) fn assess(work: &mut Work<'_>) -> Vec<Recoverable> {
    let home = work.expected.home.clone();
    for (region, seen) in work.regions() {
        let component = if region == home { Component::Backup } else { Component::Copies };
        if let Err(error) = &seen.points {
            work.could_not_look(component, &region, "the Region's snapshots", error);
        } else {
            work.looked(component, &region);
            if region == home {
                work.looked(Component::Proof, &region);
            }
        }
    }
    let mut recoverable = Vec::new();
    for database in covered(work) {
        let at_home =
            if work.expected.scope.has_region(&home) { points_of(work, &home, &database.id) } else { None };
        if let Some(points) = &at_home {
            backups(work, &database, points);
            verdicts(work, &database, points);
            depth(work, &database, points);
        }
        copies(work, &database, at_home.as_deref());
        // Without a look at the other Regions nothing can be said.
        if !work.expected.targets.is_empty() && !matches!(work.expected.scope, Scope::Region(_)) {
            recoverable.push(if_home_died(work, &database, at_home.as_deref()));
        }
    }
    work.gauges.rpo_seconds = recoverable
        .iter()
        .filter_map(|one| one.rpo_seconds)
        .max()
        .map(|seconds| SignedDuration::from_secs(seconds).as_secs_f64());
    recoverable
}

/// The databases that must have backups. Of the others it is noted that nothing is expected.
fn covered<'a>(work: &mut Work<'a>) -> Vec<Covered<'a>> {
    let home = work.expected.home.clone();
    let lists = work.seen.regions.values().filter_map(|seen| seen.points.as_ref().ok());
    let with_points: BTreeSet<&str> = lists.flatten().map(|point| point.database.as_str()).collect();
    let Some(instances) = work.seen.regions.get(&home).and_then(|seen| seen.instances.as_ref().ok()) else {
        // The home Region's databases are not known: those that are named or have points are the ones that matter.
        let named = work.expected.databases.iter().map(String::as_str);
        let ids: BTreeSet<&str> =
            named.chain(with_points).filter(|id| work.expected.scope.has_database(id)).collect();
        let (limit, targets) = (work.expected.thresholds.backup_age, work.expected.targets.clone());
        return ids
            .into_iter()
            .map(|id| Covered { id: id.to_owned(), instance: None, limit, targets: targets.clone() })
            .collect();
    };
    let mut covered = Vec::new();
    for instance in instances.iter().filter(|one| work.expected.scope.has_database(&one.id)) {
        // A replica's source is what is backed up, and so is a member's cluster.
        if is_temporary(instance) || instance.replica_of.is_some() || instance.cluster.is_some() {
            continue;
        }
        let expects = work.expected.databases.contains(&instance.id)
            || with_points.contains(instance.id.as_str())
            || instance.tags.contains_key(BACKUP_AGE_HOURS);
        if expects {
            let (limit, targets) = (limit(work, instance), targets(work, instance));
            covered.push(Covered { id: instance.id.clone(), instance: Some(instance), limit, targets });
        } else if work.expected.scope.has_region(&home) {
            let message =
                format!("no backup of database `{}` in {home} is expected, and there is none", instance.id);
            work.find(
                Severity::Info,
                Component::Backup,
                &home,
                &instance.id,
                Code::BackupNotExpected,
                message,
            );
        }
    }
    covered
}

fn limit(work: &mut Work<'_>, instance: &InstanceSeen) -> SignedDuration {
    let installed = work.expected.thresholds.backup_age;
    let Some(text) = instance.tags.get(BACKUP_AGE_HOURS) else { return installed };
    match text.trim().parse::<u16>() {
        Ok(hours) if (1..=8_760).contains(&hours) => SignedDuration::from_hours(i64::from(hours)),
        _ => {
            malformed(work, instance, BACKUP_AGE_HOURS, "1 to 8760");
            installed
        }
    }
}

fn targets(work: &mut Work<'_>, instance: &InstanceSeen) -> Vec<Region> {
    let Some(text) = instance.tags.get(COPY_REGIONS) else { return work.expected.targets.clone() };
    if text.trim() == "none" {
        return Vec::new();
    }
    let named: Result<Vec<Region>, _> = text.split_whitespace().map(Region::parse).collect();
    match named {
        Ok(named)
            if !named.is_empty() && named.iter().all(|region| work.expected.targets.contains(region)) =>
        {
            named
        }
        _ => {
            malformed(work, instance, COPY_REGIONS, "`none`, or target Regions separated by spaces");
            work.expected.targets.clone()
        }
    }
}

fn malformed(work: &mut Work<'_>, instance: &InstanceSeen, tag: &str, rule: &str) {
    let home = work.expected.home.clone();
    let message = format!("the tag `{tag}` of database `{}` in {home} is not {rule}", instance.id);
    work.find(Severity::Warning, Component::Settings, &home, &instance.id, Code::TagMalformed, message);
}

/// Our snapshots of a database in a Region; `None` when they are not known.
fn points_of<'a>(work: &Work<'a>, region: &Region, database: &str) -> Option<Vec<&'a Point>> {
    let points = work.seen.regions.get(region)?.points.as_ref().ok()?;
    Some(points.iter().filter(|point| point.database == database).collect())
}

fn newest<'a>(points: &[&'a Point]) -> Option<(&'a Point, Timestamp)> {
    let usable = points.iter().copied().filter(|point| point.is_recovery_point());
    usable.filter_map(|point| Some((point, point.taken_at?))).max_by_key(|(_, taken_at)| *taken_at)
}

fn severity_of_age(age: SignedDuration, limit: SignedDuration) -> Option<Severity> {
    match age {
        age if age > limit * 2 => Some(Severity::Critical),
        age if age > limit => Some(Severity::Warning),
        _ => None,
    }
}

fn note_age(work: &mut Work<'_>, region: &Region, age: SignedDuration) {
    let age = age.as_secs_f64();
    let worst = work.gauges.backup_age_seconds.entry(region.clone()).or_insert(age);
    *worst = worst.max(age);
}

fn backups(work: &mut Work<'_>, database: &Covered<'_>, points: &[&Point]) {
    let (home, id, now) = (work.expected.home.clone(), database.id.as_str(), work.now);
    let Some((point, taken_at)) = newest(points) else {
        let new = database.is_younger_than_its_limit(now);
        let severity = if new { Severity::Info } else { Severity::Critical };
        let message = format!("database `{id}` in {home} has no proven backup");
        return work.find(severity, Component::Backup, &home, id, Code::BackupMissing, message);
    };
    let age = now.duration_since(taken_at);
    note_age(work, &home, age);
    if let Some(severity) = severity_of_age(age, database.limit) {
        let message = format!(
            "the newest proven backup of `{id}` in {home}, `{}`, is {} old, of {} allowed",
            point.id,
            spoken(age),
            spoken(database.limit)
        );
        work.find(severity, Component::Backup, &home, id, Code::BackupOld, message);
    }
}

fn verdicts(work: &mut Work<'_>, database: &Covered<'_>, points: &[&Point]) {
    let (home, id) = (work.expected.home.clone(), database.id.as_str());
    let proof_of = |wanted: &[Proof]| {
        let of = points.iter().filter(|point| point.proof.is_some_and(|proof| wanted.contains(&proof)));
        of.filter_map(|point| Some((*point, point.taken_at?))).max_by_key(|(_, taken_at)| *taken_at)
    };
    let examined = proof_of(&[Proof::Proven, Proof::Unproven]);
    if let Some((point, taken_at)) = examined.filter(|(point, _)| point.proof == Some(Proof::Unproven)) {
        let message = format!(
            "the newest backup of `{id}` in {home} that was examined, `{}` of {taken_at}, is not what its source was",
            point.id
        );
        work.find(Severity::Critical, Component::Proof, &home, id, Code::ProofFailed, message);
    }
    let Some((point, taken_at)) = proof_of(&[Proof::Pending]) else { return };
    let age = work.now.duration_since(taken_at);
    if age > database.limit && examined.is_none_or(|(_, before)| taken_at > before) {
        let message =
            format!("backup `{}` of `{id}` in {home} waits for its proof since {}", point.id, spoken(age));
        work.find(Severity::Warning, Component::Proof, &home, id, Code::ProofOutstanding, message);
    }
}

/// Whether the newest proven backup was compared with its source. One that was asked for no deeper (`quick`), or whose
/// depth nobody recorded, is only noted; one that could not be compared, though it was restored, is a warning.
fn depth(work: &mut Work<'_>, database: &Covered<'_>, points: &[&Point]) {
    let Some((point, _)) = newest(points) else { return };
    let (severity, how) = match point.level {
        Some(Level::Content) => return,
        Some(Level::Structure) => {
            (Severity::Warning, "by its structure only (`structure`): it was compared with nothing")
        }
        Some(Level::Quick) => (Severity::Info, "from outside only (`quick`): it was not restored"),
        None => (Severity::Info, "to a depth that is not recorded"),
    };
    let (home, id) = (work.expected.home.clone(), database.id.as_str());
    let message = format!("the newest backup of `{id}` in {home}, `{}`, is proven {how}", point.id);
    work.find(severity, Component::Proof, &home, id, Code::ProofShallow, message);
}

/// Whether a copy may still be on its way: nothing that is proven at home is older than the limit.
fn may_be_on_its_way(database: &Covered<'_>, at_home: Option<&[&Point]>, now: Timestamp) -> bool {
    let proven = at_home.unwrap_or_default().iter().filter(|point| point.is_recovery_point());
    let oldest = proven.filter_map(|point| point.taken_at).min();
    match oldest {
        Some(oldest) => now.duration_since(oldest) <= database.limit,
        None => database.is_younger_than_its_limit(now),
    }
}

fn copies(work: &mut Work<'_>, database: &Covered<'_>, at_home: Option<&[&Point]>) {
    let id = database.id.as_str();
    for region in database.targets.iter().filter(|region| work.expected.scope.has_region(region)) {
        let Some(points) = points_of(work, region, id) else { continue };
        let points: Vec<&Point> = points.into_iter().filter(|point| point.role == Role::Copy).collect();
        let Some((point, taken_at)) = newest(&points) else {
            let waits = may_be_on_its_way(database, at_home, work.now);
            let severity = if waits { Severity::Info } else { Severity::Warning };
            let message = format!("there is no proven copy of a backup of `{id}` in {region}");
            work.find(severity, Component::Copies, region, id, Code::CopyMissing, message);
            continue;
        };
        let age = work.now.duration_since(taken_at);
        note_age(work, region, age);
        if let Some(severity) = severity_of_age(age, database.limit) {
            let message = format!(
                "the newest proven copy of `{id}` in {region}, `{}`, is {} old, of {} allowed",
                point.id,
                spoken(age),
                spoken(database.limit)
            );
            work.find(severity, Component::Copies, region, id, Code::CopyOld, message);
        }
    }
}

/// Whether a key is known not to work. One that was not looked at may work.
fn is_locked_away(seen: &RegionSeen, key: Option<&String>) -> bool {
    let key = key.and_then(|key| KmsKeyId::parse(key.clone()).ok()).and_then(|key| seen.keys.get(&key));
    match key.map(|key| &key.facts) {
        Some(Observed::Found(facts)) => facts.state != "Enabled",
        Some(Observed::Missing) => true,
        Some(Observed::Unreachable(_)) | None => false,
    }
}

fn if_home_died(work: &mut Work<'_>, database: &Covered<'_>, at_home: Option<&[&Point]>) -> Recoverable {
    let (home, id, now) = (work.expected.home.clone(), database.id.as_str(), work.now);
    let mut ways: BTreeMap<i64, Source> = BTreeMap::new();
    let mut not_looked_at = Vec::new();
    for (region, seen) in work.regions().into_iter().filter(|(region, _)| *region != home) {
        match points_of(work, &region, id) {
            Some(points) => {
                let usable: Vec<&Point> = points
                    .into_iter()
                    .filter(|point| !is_locked_away(seen, point.kms_key_id.as_ref()))
                    .collect();
                if let Some((point, taken_at)) = newest(&usable) {
                    let (kind, region, id) = ("copy", region.clone(), point.id.clone());
                    let (taken_at_known, proof_level) = (Some(taken_at), point.level);
                    let source = Source { kind, region, id, taken_at: taken_at_known, proof_level };
                    ways.entry(now.duration_since(taken_at).as_secs()).or_insert(source);
                }
            }
            None => not_looked_at.push(region.clone()),
        }
        if let Some((replica, lag)) = best_replica(work, database, &region, seen) {
            let source = Source { kind: "replica", region, id: replica, taken_at: None, proof_level: None };
            ways.entry(lag).or_insert(source);
        }
    }
    let best = ways.into_iter().next();
    if best.is_none() && not_looked_at.is_empty() && !database.targets.is_empty() {
        let waits = may_be_on_its_way(database, at_home, now);
        let severity = if waits { Severity::Info } else { Severity::Critical };
        let message = format!("if {home} died now, nothing of database `{id}` could be recovered elsewhere");
        work.find(severity, Component::Copies, &home, id, Code::NothingElsewhere, message);
    }
    if not_looked_at.is_empty() {
        work.looked(Component::Copies, &home);
    }
    let (rpo_seconds, from) = best.map_or((None, None), |(lag, source)| (Some(lag), Some(source)));
    Recoverable { database: database.id.clone(), from, rpo_seconds, not_looked_at }
}

/// The replica of the database in that Region that lags least and does replicate.
fn best_replica(
    work: &Work<'_>,
    database: &Covered<'_>,
    region: &Region,
    seen: &RegionSeen,
) -> Option<(String, i64)> {
    let (instances, measures) = (seen.instances.as_ref().ok()?, seen.measures.as_ref().ok()?);
    let home = &work.expected.home;
    let of_it = |instance: &&InstanceSeen| {
        let source = instance.replica_of.as_deref();
        source.is_some_and(|source| {
            region_of(source).as_ref() == Some(home)
                && source.rsplit(':').next() == Some(database.id.as_str())
        })
    };
    let replicating = |instance: &InstanceSeen| {
        let lag = measures.get(&instance.id)?.lag_seconds?;
        let well = lag >= 0.0 && instance.replication.iter().all(|status| status.normal);
        (well && instance.status == "available").then(|| (instance.id.clone(), whole_seconds(lag)))
    };
    debug_assert_ne!(region, home, "a replica at home dies with it");
    instances.iter().filter(of_it).filter_map(replicating).min_by_key(|(_, lag)| *lag)
}

/// Seconds, rounded up, within what an integer holds.
#[expect(clippy::cast_possible_truncation, reason = "clamped on the same line")]
fn whole_seconds(seconds: f64) -> i64 {
    seconds.ceil().clamp(0.0, 1e15) as i64
}

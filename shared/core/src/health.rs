//! The state of health: what was seen, judged into findings, each with what is wrong, where, and what to do.
//!
//! [`assess`] is pure: it takes what was seen and the time, and returns every finding, the state of each component,
//! and what could be recovered if the home Region died now. "I could not look" is a finding of its own
//! ([`Code::Unreachable`]), never "healthy" and never "missing". When people are told is decided in [`alerts`].

pub mod alerts;
mod databases;
mod finding;
mod installation;
mod points;
mod seen;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

pub use finding::{Code, Component, Finding, Severity, State};
pub use seen::{
    Expected, HomeSeen, InstanceSeen, KeySeen, Measure, Point, Quota, RegionSeen, ReplicationStatus,
    SecretSeen, Seen,
};

use crate::error::DrError;
use crate::ids::{KmsKeyId, Region};
use crate::proof::judgement::Level;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Everything.
    #[default]
    All,
    /// Everything in one Region.
    Region(Region),
    /// These databases, and nothing that does not belong to one.
    Databases(BTreeSet<String>),
}

impl Scope {
    /// The word for people: `all`, `region us-east-1`, `databases a, b`.
    pub fn describe(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Region(region) => format!("region {region}"),
            Self::Databases(ids) => {
                format!("databases {}", ids.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn has_region(&self, region: &Region) -> bool {
        !matches!(self, Self::Region(only) if only != region)
    }

    fn has_database(&self, id: &str) -> bool {
        !matches!(self, Self::Databases(ids) if !ids.contains(id))
    }

    /// Whether what belongs to no database (quotas, keys, locks) is looked at.
    pub fn is_wide(&self) -> bool {
        !matches!(self, Self::Databases(_))
    }
}

/// From when on something is a finding. Every bound is inclusive on the good side: exactly 12 hours are not over 12.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// Age of the newest recovery point, and of the newest copy; twice as much is critical. A database's tag
    /// [`BACKUP_AGE_HOURS`] says otherwise for itself.
    pub backup_age: SignedDuration,
    /// Used storage in per cent of what the volume may grow to; [`STORAGE_CRITICAL_PERCENT`] is critical.
    pub storage_percent: u32,
    /// A replica's lag; more is critical.
    pub replica_lag: SignedDuration,
    /// Use of a quota in per cent; [`QUOTA_CRITICAL_PERCENT`] is critical.
    pub quota_percent: u32,
    /// Time left until a certificate expires; [`CERTIFICATE_CRITICAL`] is critical.
    pub certificate: SignedDuration,
    /// How far point-in-time recovery may be behind; four times as much is critical.
    pub recovery_lag: SignedDuration,
}

/// Used storage from which on the finding is critical, per cent.
pub const STORAGE_CRITICAL_PERCENT: u32 = 95;
/// Used quota from which on the finding is critical, per cent.
pub const QUOTA_CRITICAL_PERCENT: u32 = 95;
/// Time left to a certificate at which the finding becomes critical.
pub const CERTIFICATE_CRITICAL: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long after its expiry a temporary resource may still be on its way out.
pub const LEASE_GRACE: SignedDuration = SignedDuration::from_mins(15);
/// On a database: hours after which its newest recovery point is too old, 1 to 8,760, instead of the installation's.
pub const BACKUP_AGE_HOURS: &str = "lifeboat:backup-age-hours";
/// On a database: the Regions in which copies are expected, separated by spaces, or `none`.
pub const COPY_REGIONS: &str = "lifeboat:copy-regions";

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            backup_age: SignedDuration::from_hours(12),
            storage_percent: 85,
            replica_lag: SignedDuration::from_mins(5),
            quota_percent: 80,
            certificate: SignedDuration::from_hours(90 * 24),
            recovery_lag: SignedDuration::from_mins(15),
        }
    }
}

/// What was looked at with success: only there can a finding be over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Looked {
    /// The component.
    pub component: Component,
    /// The Region.
    pub region: Region,
    /// The subject; `None` is every subject.
    pub subject: Option<String>,
}

/// What could be recovered of one database if the home Region died now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recoverable {
    /// The database.
    pub database: String,
    /// The best way back; absent when there is none that is known of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Source>,
    /// What would be lost, in seconds of changes; absent without a way back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo_seconds: Option<i64>,
    /// Regions that could not be looked at: there may be more than this says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_looked_at: Vec<Region>,
}

/// Where a database could come back from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// `copy` or `replica`.
    pub kind: &'static str,
    /// The Region it is in.
    pub region: Region,
    /// The snapshot's or the replica's identifier.
    pub id: String,
    /// When the copy's data was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Timestamp>,
    /// How deep the copy, or what it is a copy of, was proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof_level: Option<Level>,
}

/// Values for metrics: the worst of each kind. No identifier is in them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gauges {
    /// Age of the newest recovery point in the home Region and of the newest copy in each other one, seconds, for the
    /// database that is worst off there.
    pub backup_age_seconds: BTreeMap<Region, f64>,
    /// Lag of the worst replica, seconds, by the Regions of source and replica.
    pub lag_seconds: BTreeMap<(Region, Region), f64>,
    /// Used storage of the fullest database, per cent.
    pub storage_percent: BTreeMap<Region, f64>,
    /// What the worst-off database would lose if the home Region died now, seconds.
    pub rpo_seconds: Option<f64>,
}

/// The whole judgement.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What was looked at with success.
    pub looked: BTreeSet<Looked>,
    /// The components within the scope.
    pub components: BTreeMap<Component, State>,
    /// The worst of them.
    pub state: State,
    /// If the home Region died now.
    pub recoverable: Vec<Recoverable>,
    /// Values for metrics.
    pub gauges: Gauges,
}

impl Assessment {
    /// Whether the subject of a finding with this component and Region was looked at.
    pub fn covers(&self, component: Component, region: &Region, subject: &str) -> bool {
        let all = Looked { component, region: region.clone(), subject: None };
        let one = Looked { subject: Some(subject.to_owned()), ..all.clone() };
        self.looked.contains(&all) || self.looked.contains(&one)
    }

    /// How many findings have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// How many looks failed.
    pub fn unreachable(&self) -> usize {
        self.findings.iter().filter(|finding| finding.code == Code::Unreachable).count()
    }
}

/// What is being put together.
struct Work<'a> {
    expected: &'a Expected,
    seen: &'a Seen,
    now: Timestamp,
    findings: Vec<Finding>,
    looked: BTreeSet<Looked>,
    touched: BTreeSet<Component>,
    gauges: Gauges,
}

impl<'a> Work<'a> {
    fn find(
        &mut self,
        severity: Severity,
        component: Component,
        region: &Region,
        subject: &str,
        code: Code,
        message: impl AsRef<str>,
    ) {
        let message = message.as_ref();
        let region = region.clone();
        let subject = subject.to_owned();
        let cut = message.char_indices().nth(LONGEST_MESSAGE).map(|(at, _)| at);
        let message = cut.map_or(message, |at| &message[..at]).to_owned();
        self.findings.push(Finding {
            severity,
            component,
            region,
            subject,
            code,
            message,
            action: code.action(),
        });
    }

    /// A look that succeeded, at everything of a component in a Region, or at one subject where the scope is narrow.
    fn looked(&mut self, component: Component, region: &Region) {
        self.touched.insert(component);
        match &self.expected.scope {
            Scope::Databases(ids) => {
                let of =
                    |id: &String| Looked { component, region: region.clone(), subject: Some(id.clone()) };
                self.looked.extend(ids.iter().map(of));
            }
            _ => {
                self.looked.insert(Looked { component, region: region.clone(), subject: None });
            }
        }
    }

    fn could_not_look(&mut self, component: Component, region: &Region, subject: &str, error: &DrError) {
        self.touched.insert(component);
        let message =
            format!("{subject} could not be looked at in {region}: {} ({})", error.what(), error.name());
        self.find(Severity::Warning, component, region, subject, Code::Unreachable, message);
    }

    /// The Regions within the scope.
    fn regions(&self) -> Vec<(Region, &'a RegionSeen)> {
        let within = self.seen.regions.iter().filter(|(region, _)| self.expected.scope.has_region(region));
        within.map(|(region, seen)| (region.clone(), seen)).collect()
    }
}

/// The longest message, in characters.
const LONGEST_MESSAGE: usize = 500;

/// Judges what was seen.
pub fn assess(expected: &Expected, seen: &Seen, now: Timestamp) -> Assessment {
    let mut work = Work {
        expected,
        seen,
        now,
        findings: Vec::new(),
        looked: BTreeSet::new(),
        touched: BTreeSet::new(),
        gauges: Gauges::default(),
    };
    databases::assess(&mut work);
    let recoverable = points::assess(&mut work);
    installation::assess(&mut work);

    let Work { mut findings, looked, touched, gauges, .. } = work;
    findings.sort_by(|a, b| {
        (b.severity, a.component, &a.region, &a.subject, a.code).cmp(&(
            a.severity,
            b.component,
            &b.region,
            &b.subject,
            b.code,
        ))
    });
    let mut components: BTreeMap<Component, State> =
        touched.into_iter().map(|component| (component, State::Healthy)).collect();
    for finding in &findings {
        let state = components.entry(finding.component).or_insert(State::Healthy);
        *state = (*state).max(State::with(finding.severity));
    }
    let state = components.values().copied().max().unwrap_or(State::Healthy);
    Assessment { findings, looked, components, state, recoverable, gauges }
}

/// The keys that matter in each Region, with what is under them: the configured ones, those of recovery points, and
/// those of databases; at most [`MOST_KEYS`] a Region, in this order. `seen` need not have looked at keys yet.
pub fn keys_that_matter(
    scope: &Scope,
    seen: &BTreeMap<Region, RegionSeen>,
    configured: &[(Region, KmsKeyId, &str)],
) -> BTreeMap<Region, BTreeMap<KmsKeyId, String>> {
    let mut keys: BTreeMap<Region, BTreeMap<KmsKeyId, String>> = BTreeMap::new();
    let mut add = |region: &Region, key: KmsKeyId, purpose: &str| {
        let of_region = keys.entry(region.clone()).or_default();
        if of_region.len() < MOST_KEYS {
            of_region.entry(key).or_insert_with(|| purpose.to_owned());
        }
    };
    for (region, key, purpose) in configured.iter().filter(|(region, ..)| seen.contains_key(region)) {
        add(region, key.clone(), purpose);
    }
    for (region, of_region) in seen.iter().filter(|(region, _)| scope.has_region(region)) {
        let points = of_region.points.iter().flatten().filter(|point| point.is_recovery_point());
        let of_points =
            points.filter_map(|point| point.kms_key_id.as_ref()).map(|key| (key, "recovery points"));
        let databases = of_region.instances.iter().flatten();
        let of_databases = databases.filter_map(|one| one.kms_key_id.as_ref()).map(|key| (key, "databases"));
        for (key, purpose) in of_points.chain(of_databases) {
            if let Ok(key) = KmsKeyId::parse(key.clone()) {
                add(region, key, purpose);
            }
        }
    }
    keys
}

/// The most keys that are looked at in one Region.
pub const MOST_KEYS: usize = 100;

/// A duration as people say it: `45 s`, `12 min`, `13 h`, `9 days`.
fn spoken(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;

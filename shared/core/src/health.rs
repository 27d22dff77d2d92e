//! The state of health: what was seen, judged into findings, each with what is wrong, where, and what to do.
//!
//! [`assess`] is pure: it takes what was seen and the time, and returns every finding, the state of each component,
//! and what could be recovered if the home Region died now. "I could not look" is a finding of its own
//! ([`Code::Unreachable`]), never "healthy" and never "missing". When people are told is decided in [`alerts`].

pub mod alerts;
mod databases;
mod installation;
mod points;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::control::{Breaker, EmergencyStop, Lock};
use crate::error::{DrError, Result};
use crate::ids::{KmsKeyId, Region};
use crate::labels::{self, Proof, Role};
use crate::observed::{KeyFacts, Observed, Tags};
use crate::proof::judgement::Level;

/// How bad a finding is. The order is from harmless to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nobody is told.
    Info,
    /// A person should look at it.
    Warning,
    /// A person must act now.
    Critical,
}

impl Severity {
    /// The word in answers, in the table and in alerts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a component, or the whole, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing but information.
    Healthy,
    /// Warnings, or parts that could not be looked at.
    Degraded,
    /// Something critical.
    Failed,
}

impl State {
    /// The value of `dr_system_health`: 1, 0.5 or 0.
    pub const fn value(self) -> f64 {
        match self {
            Self::Healthy => 1.0,
            Self::Degraded => 0.5,
            Self::Failed => 0.0,
        }
    }

    /// The word in answers, in the table and in alerts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }

    const fn with(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Healthy,
            Severity::Warning => Self::Degraded,
            Severity::Critical => Self::Failed,
        }
    }
}

macro_rules! components {
    ($($(#[$meta:meta])* $variant:ident, $word:literal;)+) => {
        /// A part of the system that is healthy or not by itself; a dimension of `dr_system_health`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Component { $($(#[$meta])* $variant,)+ }

        impl Component {
            /// Every component.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word in answers, metrics and the table.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

components! {
    /// Instances and their status.
    Database, "database";
    /// Read replicas and their lag.
    Replication, "replication";
    /// Room on the databases' volumes.
    Storage, "storage";
    /// Recovery points in the home Region and their age.
    Backup, "backup";
    /// Verdicts on recovery points.
    Proof, "proof";
    /// Copies in other Regions.
    Copies, "copies";
    /// KMS keys.
    Keys, "keys";
    /// Quotas of RDS against their use.
    Quotas, "quotas";
    /// Locks and temporary resources past their time.
    Leases, "leases";
    /// Certificates of the databases' servers.
    Certificates, "certificates";
    /// Point-in-time recovery.
    Recovery, "recovery";
    /// Circuit breakers and the emergency stop.
    Control, "control";
    /// Settings of databases that make a disaster likelier or worse.
    Settings, "settings";
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! codes {
    ($($variant:ident, $word:literal, $action:literal;)+) => {
        /// What is wrong, as a word that never changes: alerts, runbooks and other machines go by it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Code { $(#[doc = $action] $variant,)+ }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// What to do, in one sentence or two.
            pub const fn action(self) -> &'static str {
                match self { $(Self::$variant => $action,)+ }
            }
        }
    };
}

codes! {
    Unreachable, "unreachable",
        "Nothing is known about it until it can be looked at: read the error, and check the function's role and network.";
    DatabaseDown, "database-down",
        "Look at the instance's events and start or repair it; its recovery points stay usable.";
    DatabaseMissing, "database-missing",
        "Find out who deleted or renamed it; restore it from its newest recovery point if that was not meant.";
    DatabaseBusy, "database-busy",
        "Nothing, if the change is meant; look again if it stays that way.";
    DatabaseStatusUnknown, "database-status-unknown",
        "Look the status up in the RDS User Guide, and tell Lifeboat's maintainers.";
    ReplicationStopped, "replication-stopped",
        "Do not fail over to this replica. Look at its replication status and events; rebuild it if it cannot go on.";
    ReplicationLag, "replication-lag",
        "Look for long transactions and a replica that is too small; a failover to it loses what lags.";
    ReplicationLagUnknown, "replication-lag-unknown",
        "CloudWatch has no recent lag of it: look at the replica itself before relying on it.";
    StorageNearlyFull, "storage-nearly-full",
        "Give the instance more storage, or raise the limit of its storage autoscaling.";
    StorageUnknown, "storage-unknown",
        "CloudWatch has no recent FreeStorageSpace of it: look at the instance's monitoring.";
    BackupMissing, "backup-missing",
        "Start a backup now, and look at why none succeeded.";
    BackupOld, "backup-old",
        "Start a backup now; look at the schedule and the last operations of this database.";
    BackupNotExpected, "backup-not-expected",
        "Put it under a schedule if it matters; otherwise nothing.";
    ProofFailed, "proof-failed",
        "Follow the runbook \"A validation failed\". Do not recover from that snapshot.";
    ProofOutstanding, "proof-outstanding",
        "Look at the operation that made the snapshot; prove it by itself with ProveBackup.";
    ProofShallow, "proof-shallow",
        "Do not take it for fully proven: look why there was nothing to compare with (the backup's frame), and back up with depth `full`.";
    CopyMissing, "copy-missing",
        "Look at the last operations' copies to this Region, mend the cause, and start a backup.";
    CopyOld, "copy-old",
        "Look at the last operations' copies to this Region, mend the cause, and start a backup.";
    NothingElsewhere, "nothing-elsewhere",
        "If this Region died now, this database would be lost: start a backup with copies now.";
    KeyMissing, "key-missing",
        "What is encrypted under it cannot be read. Name an existing key for new copies.";
    KeyDisabled, "key-disabled",
        "Enable the key: until then nothing under it can be restored.";
    KeyPendingDeletion, "key-pending-deletion",
        "Cancel the deletion now (kms cancel-key-deletion, then enable-key): everything under the key would be lost.";
    KeyUnusable, "key-unusable",
        "Look at the key's state; until it is enabled nothing under it can be restored.";
    QuotaNearlyUsed, "quota-nearly-used",
        "Delete what is no longer needed, or ask AWS for a higher quota (Service Quotas).";
    LockExpired, "lock-expired",
        "Look whether the holder's execution still runs; the next backup takes the lock over.";
    LeaseExpired, "lease-expired",
        "It costs money and holds data: look at the operation that it carries, then delete it by hand.";
    CertificateExpires, "certificate-expires",
        "Choose a newer certificate authority for the instance (rds modify-db-instance --ca-certificate-identifier).";
    CertificateUnknown, "certificate-unknown",
        "RDS does not list the instance's certificate authority: look at it by hand.";
    RecoveryOff, "recovery-off",
        "Set a backup retention period if minutes of loss matter; otherwise nothing.";
    RecoveryLag, "recovery-lag",
        "Look at the instance's load and events: its logs are not archived as they should be.";
    BreakerOpen, "breaker-open",
        "Look at the recent failures of this kind; one trial is let through after the reset time.";
    EmergencyStop, "emergency-stop",
        "No operation begins. Lift it (update_state liftEmergencyStop) when it is safe.";
    PubliclyAccessible, "publicly-accessible",
        "Make it private (rds modify-db-instance --no-publicly-accessible) unless it is meant.";
    DeletionProtectionOff, "deletion-protection-off",
        "Turn it on (rds modify-db-instance --deletion-protection).";
    Unencrypted, "unencrypted",
        "Its snapshots at home are not encrypted either; only a restore of an encrypted copy changes that.";
    TagMalformed, "tag-malformed",
        "Correct the tag; until then the installation's own setting applies.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What part of the system.
    pub component: Component,
    /// Where.
    pub region: Region,
    /// What thing: a database's identifier, a key's ARN, a quota's name.
    pub subject: String,
    /// What is wrong, as a word.
    pub code: Code,
    /// What is wrong, and where, for people.
    pub message: String,
    /// What to do.
    pub action: &'static str,
}

impl Finding {
    /// What tells this finding from every other one, whatever its severity.
    pub fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.component, self.region, self.subject, self.code)
    }
}

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

/// A database, as far as its health depends on it, from `DescribeDBInstances`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSeen {
    /// Its identifier.
    pub id: String,
    /// Its ARN.
    pub arn: String,
    /// Its status.
    pub status: String,
    /// Such as `postgres`.
    pub engine: String,
    /// GiB.
    pub allocated_storage_gb: i32,
    /// What storage autoscaling may grow it to, GiB; absent where it is off.
    pub max_allocated_storage_gb: Option<i32>,
    /// Whether its storage is encrypted.
    pub encrypted: bool,
    /// ARN of its key.
    pub kms_key_id: Option<String>,
    /// The cluster that it is a member of.
    pub cluster: Option<String>,
    /// Of a cluster, the members that do not write.
    pub readers: Vec<String>,
    /// What it is a read replica of: an identifier in its own Region, an ARN in another.
    pub replica_of: Option<String>,
    /// What RDS says about its replication.
    pub replication: Vec<ReplicationStatus>,
    /// Identifier of its certificate authority.
    pub ca_certificate: Option<String>,
    /// Days of automated backups; 0 turns point-in-time recovery off.
    pub backup_retention_days: i32,
    /// Latest moment to which it could be restored.
    pub latest_restorable_time: Option<Timestamp>,
    /// Whether it has a public address.
    pub publicly_accessible: bool,
    /// Whether it is protected from deletion.
    pub deletion_protection: bool,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Its tags.
    pub tags: Tags,
}

/// One of an instance's `StatusInfos`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationStatus {
    /// Whether all is well.
    pub normal: bool,
    /// `replicating`, `error`, `stopped`, `terminated`, …
    pub status: String,
    /// What went wrong, in the engine's words.
    pub message: String,
}

/// A snapshot of ours, as far as recovery depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its identifier.
    pub id: String,
    /// The database it was taken of.
    pub database: String,
    /// A backup or a copy.
    pub role: Role,
    /// Its status.
    pub status: String,
    /// When its data was taken (`OriginalSnapshotCreateTime`), never when a copy was made.
    pub taken_at: Option<Timestamp>,
    /// The verdict on it.
    pub proof: Option<Proof>,
    /// How deep the proof went; absent where that is not recorded.
    pub level: Option<Level>,
    /// ARN of its key.
    pub kms_key_id: Option<String>,
}

impl Point {
    /// Reads a snapshot; `None` when it is not one of ours.
    pub fn read(
        id: &str,
        status: &str,
        taken_at: Option<Timestamp>,
        kms_key_id: Option<&str>,
        tags: &Tags,
    ) -> Option<Self> {
        let role = [Role::Backup, Role::Copy]
            .into_iter()
            .find(|role| labels::has(tags, labels::ROLE, role.as_str()))?;
        let proof = [Proof::Pending, Proof::Proven, Proof::Unproven]
            .into_iter()
            .find(|proof| labels::has(tags, labels::PROOF, proof.as_str()));
        Some(Self {
            id: id.to_owned(),
            database: tags.get(labels::DATABASE)?.clone(),
            role,
            status: status.to_owned(),
            taken_at,
            proof,
            level: tags.get(labels::PROOF_LEVEL).and_then(|level| Level::parse(level)),
            kms_key_id: kms_key_id.map(str::to_owned),
        })
    }

    /// Whether one could recover from it.
    pub fn is_recovery_point(&self) -> bool {
        self.status == "available" && self.proof == Some(Proof::Proven) && self.taken_at.is_some()
    }
}

/// A quota, from `DescribeAccountAttributes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Such as `ManualSnapshots`.
    pub name: String,
    /// How much is used.
    pub used: i64,
    /// How much there is.
    pub max: i64,
}

/// What CloudWatch says of one database.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measure {
    /// Newest `FreeStorageSpace`, bytes.
    pub free_bytes: Option<f64>,
    /// Newest `ReplicaLag`, or `AuroraReplicaLag` of a reader of an Aurora cluster, seconds; below 0 is "not
    /// replicating".
    pub lag_seconds: Option<f64>,
}

/// A key, and what for.
#[derive(Debug)]
pub struct KeySeen {
    /// What is under it, for people.
    pub purpose: String,
    /// The key.
    pub facts: Observed<KeyFacts>,
}

/// A temporary secret of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSeen {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Tags,
}

/// What was seen in one Region. An error is a look that failed.
#[derive(Debug)]
pub struct RegionSeen {
    /// Its instances.
    pub instances: Result<Vec<InstanceSeen>>,
    /// Our snapshots in it.
    pub points: Result<Vec<Point>>,
    /// Its quotas.
    pub quotas: Result<Vec<Quota>>,
    /// Its certificate authorities, by identifier, with the end of their validity.
    pub certificates: Result<BTreeMap<String, Timestamp>>,
    /// What CloudWatch says of its databases, by identifier.
    pub measures: Result<BTreeMap<String, Measure>>,
    /// The keys that matter in it.
    pub keys: BTreeMap<KmsKeyId, KeySeen>,
}

/// What was seen at home only.
#[derive(Debug)]
pub struct HomeSeen {
    /// The locks.
    pub locks: Result<Vec<Lock>>,
    /// The breakers.
    pub breakers: Result<Vec<Breaker>>,
    /// The emergency stop.
    pub stop: Result<Option<EmergencyStop>>,
    /// Our temporary secrets.
    pub secrets: Result<Vec<SecretSeen>>,
}

/// What is known beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The Region of the installation.
    pub home: Region,
    /// The Regions that copies go to.
    pub targets: Vec<Region>,
    /// Databases that must be there and must have backups.
    pub databases: BTreeSet<String>,
    /// What is looked at.
    pub scope: Scope,
    /// From when on something is a finding.
    pub thresholds: Thresholds,
}

/// All that was seen.
#[derive(Debug)]
pub struct Seen {
    /// By Region: the home Region and those that copies go to.
    pub regions: BTreeMap<Region, RegionSeen>,
    /// At home; absent where the scope leaves it out.
    pub home: Option<HomeSeen>,
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

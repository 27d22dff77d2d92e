//! What is looked at, as it was seen, and what is known beforehand.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Scope, Thresholds};
use crate::control::{Breaker, EmergencyStop, Lock};
use crate::error::Result;
use crate::ids::{KmsKeyId, Region};
use crate::labels::{self, Proof, Role};
use crate::observed::{KeyFacts, Observed, Tags};
use crate::proof::judgement::Level;

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

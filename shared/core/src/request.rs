//! What users ask for: the inputs of the state machines.
//!
//! Everything is strict: an unknown field is a fault, because a misspelt `deleteAfterDays` must not silently mean
//! "keep for ever".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{DrError, ErrorName, Result};
use crate::ids::{DatabaseId, KmsKeyId, OperationId, Region, SnapshotId};
use crate::observed::DatabaseKind;
use crate::recovery::RecoverySelector;

/// How deep a backup is validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidationDepth {
    /// Restored, examined and compared with a frame of the source.
    #[default]
    Full,
    /// Looked at from outside: status, size, encryption, engine, age, tags. Proves that there is a snapshot, not
    /// what is in it.
    Quick,
}

/// Where the credentials of the source database are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Credentials {
    /// A secret of Secrets Manager (name or ARN) with `username` and `password`.
    SecretId(String),
    /// A database user with the role `rds_iam`; an authentication token is made for it (valid 15 minutes).
    IamUser(String),
}

/// How a backup is validated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ValidationOptions {
    /// How deep.
    pub depth: ValidationDepth,
    /// Credentials of the source; by default the instance's managed secret or its tag `lifeboat:secret-id`.
    pub credentials: Option<Credentials>,
    /// A read replica to read the frame from, instead of the writer. The heartbeat still goes to the writer.
    pub frame_from: Option<DatabaseId>,
    /// Upper limit for reading the source, in MiB a second over all connections; none by default. 1 to 100,000.
    pub max_read_mebibytes_per_second: Option<u32>,
    /// Connections that read in parallel, on the source and on the restore. 1 to 8.
    pub connections: u8,
    /// Prove every foreign key again over all rows.
    pub foreign_keys: bool,
    /// Prove every unique constraint again over all rows.
    pub unique_constraints: bool,
    /// Bounds for the newest row of the heartbeat: an older restore is not proven. Seconds.
    pub max_rpo_seconds: Option<u32>,
}

impl Default for ValidationOptions {
    fn default() -> Self {
        Self {
            depth: ValidationDepth::Full,
            credentials: None,
            frame_from: None,
            max_read_mebibytes_per_second: None,
            connections: 2,
            foreign_keys: false,
            unique_constraints: false,
            max_rpo_seconds: None,
        }
    }
}

impl ValidationOptions {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ErrorName::InvalidInput`] naming the field.
    pub fn check(&self) -> Result<()> {
        self.check_in("validation")
    }

    /// The same for a request that has these options in another member.
    ///
    /// # Errors
    /// [`ErrorName::InvalidInput`] naming the field.
    pub fn check_in(&self, member: &str) -> Result<()> {
        let fault = |field: &str, rule: &str| {
            let what = format!("reading the request: `{member}.{field}` {rule}");
            Err(DrError::new(ErrorName::InvalidInput, what))
        };
        if !(1..=8).contains(&self.connections) {
            return fault("connections", "must be 1 to 8");
        }
        if self.max_read_mebibytes_per_second.is_some_and(|rate| !(1..=100_000).contains(&rate)) {
            return fault("maxReadMebibytesPerSecond", "must be 1 to 100000");
        }
        if self.max_rpo_seconds == Some(0) {
            return fault("maxRpoSeconds", "must be at least 1");
        }
        Ok(())
    }
}

/// Finds a database by a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// The tag that exactly one database carries.
    pub tag: Tag,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tag {
    /// Its key: 1 to 128 characters.
    pub key: String,
    /// Its value: at most 256 characters.
    pub value: String,
}

/// How long a backup is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lifecycle {
    /// After how many days retention may delete the snapshot and its copies; 1 to 3,650. Kept for ever when absent.
    pub delete_after_days: Option<u32>,
    /// After how many days an export to S3 may move to Glacier; 1 to 3,650. RDS snapshots themselves have no such
    /// tier; recorded for retention, which makes the export.
    pub transition_to_glacier_days: Option<u32>,
}

/// The input of `backup_orchestration`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupRequest {
    /// The database; this or `selector`.
    #[serde(default)]
    pub database: Option<DatabaseId>,
    /// Whether `database` names an instance or a cluster; needed only where both exist under that name.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// Finds the database; this or `database`.
    #[serde(default)]
    pub selector: Option<Selector>,
    /// Whether the backup is copied to other Regions.
    #[serde(default = "yes")]
    pub cross_region_backup: bool,
    /// Where to; by default all of `DR_TARGET_REGIONS`.
    #[serde(default)]
    pub target_regions: Option<Vec<Region>>,
    /// Keys for the copies by Region, where they differ from the configured ones.
    #[serde(default)]
    pub encryption_keys: BTreeMap<Region, KmsKeyId>,
    /// Tags for the snapshot and its copies.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// How long it is kept.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// How it is validated.
    #[serde(default)]
    pub validation: ValidationOptions,
    /// Accepted for callers that ask for it: RDS compresses nothing on request, so it changes nothing.
    #[serde(default)]
    pub compression_enabled: Option<bool>,
}

impl Default for BackupRequest {
    /// What a request is in which nothing is said.
    fn default() -> Self {
        Self {
            database: None,
            database_kind: None,
            selector: None,
            cross_region_backup: yes(),
            target_regions: None,
            encryption_keys: BTreeMap::new(),
            tags: BTreeMap::new(),
            lifecycle: Lifecycle::default(),
            validation: ValidationOptions::default(),
            compression_enabled: None,
        }
    }
}

/// The input of `prove_backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProofRequest {
    /// The snapshot, in the Region of the state machine; this or `selector`.
    #[serde(default)]
    pub snapshot_id: Option<SnapshotId>,
    /// Finds the snapshot in the Region of the state machine; this or `snapshotId`.
    #[serde(default)]
    pub selector: Option<RecoverySelector>,
    /// The database that it was taken of; learnt from the snapshot when absent.
    #[serde(default)]
    pub database: Option<DatabaseId>,
    /// Whether it is a snapshot of an instance or of a cluster; needed only where both exist under that name.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// The operation that framed the source, for a comparison of contents. For a snapshot of ours, and for a copy of
    /// one, it is its backup's where that made a frame. Without one only the structure is proven.
    #[serde(default)]
    pub frame_operation_id: Option<OperationId>,
    /// The backup that this proof is part of; it then does the alerting.
    #[serde(default)]
    pub parent_operation_id: Option<OperationId>,
    /// How it is validated.
    #[serde(default)]
    pub validation: ValidationOptions,
}

fn yes() -> bool {
    true
}

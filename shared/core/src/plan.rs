//! What an operation will do, decided at its beginning and written down before anything is created.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::error::{DrError, ErrorName, Result};
use crate::ids::{DatabaseId, KmsKeyId, OperationId, Region, SnapshotId};
use crate::observed::DatabaseKind;
use crate::recovery::RecoverySelector;
use crate::request::{BackupRequest, ProofRequest, Selector, ValidationDepth, ValidationOptions};

/// Tags per RDS resource: 50, of which we keep ten for ourselves.
const MOST_USER_TAGS: usize = 40;

/// Where the operation runs, and what the installation is configured for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The Region of the functions and of the databases.
    pub region: Region,
    /// The account, 12 digits.
    pub account: String,
    /// The Regions that copies may go to, in order.
    pub target_regions: Vec<Region>,
    /// One key for each of them.
    pub target_keys: BTreeMap<Region, KmsKeyId>,
}

/// A Region that a backup is copied to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The Region.
    pub region: Region,
    /// The key of that Region under which the copy is encrypted.
    pub kms_key_id: KmsKeyId,
}

/// What a backup will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupPlan {
    /// The operation.
    pub operation_id: OperationId,
    /// Always `backup`.
    pub kind: String,
    /// When the execution started.
    pub started_at: Timestamp,
    /// The home Region.
    pub region: Region,
    /// The account.
    pub account: String,
    /// The database; `None` until a selector is resolved.
    pub database: Option<DatabaseId>,
    /// Whether that is an instance or a cluster, where the request says so.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// How to find the database, when it is not named.
    pub selector: Option<Selector>,
    /// The snapshot to create; `None` until the database is known.
    pub snapshot_id: Option<SnapshotId>,
    /// Where it is copied to.
    pub targets: Vec<Target>,
    /// Tags for the snapshot and its copies.
    pub tags: BTreeMap<String, String>,
    /// From when retention may delete it.
    pub expires_at: Option<Timestamp>,
    /// How it is validated.
    pub validation: ValidationOptions,
    /// Whether the database's lock is held.
    pub locked: bool,
}

/// The names of a temporary restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemporaryTarget {
    /// The instance; the cluster that it is made in, where it needs one, has the same name.
    pub instance_id: DatabaseId,
    /// The secret with its fresh password.
    pub secret_id: String,
}

impl TemporaryTarget {
    /// What every temporary instance's identifier begins with; IAM allows deletion under it only.
    pub const PREFIX: &'static str = "lifeboat-tmp-";

    /// The names that belong to an operation.
    ///
    /// # Errors
    /// None in practice: an operation's digits always make a legal identifier.
    pub fn of(operation: &OperationId) -> Result<Self> {
        Ok(Self {
            instance_id: DatabaseId::parse(format!("{}{}", Self::PREFIX, operation.digits()))?,
            secret_id: format!("lifeboat/tmp/{}", operation.digits()),
        })
    }
}

/// What a proof will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProofPlan {
    /// The operation.
    pub operation_id: OperationId,
    /// Always `proof`.
    pub kind: String,
    /// When the execution started.
    pub started_at: Timestamp,
    /// The Region of the snapshot.
    pub region: Region,
    /// The snapshot; `None` until a selector is resolved.
    pub snapshot_id: Option<SnapshotId>,
    /// How to find the snapshot, when it is not named.
    #[serde(default)]
    pub selector: Option<RecoverySelector>,
    /// The database that it was taken of, if it was named.
    pub database: Option<DatabaseId>,
    /// Whether that is an instance or a cluster, where the request says so.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// The frame to compare with.
    pub frame_operation_id: Option<OperationId>,
    /// The first proof that found the snapshot, or the one that it is a copy of, proven: its restore and this one must
    /// hold the same.
    #[serde(default)]
    pub earlier_operation_id: Option<OperationId>,
    /// The backup that this proof is part of.
    pub parent_operation_id: Option<OperationId>,
    /// The backup that the snapshot is of, or is a copy of: the proof then labels the snapshot. `None` for a proof that
    /// is part of a backup, which labels its snapshot itself, and for a snapshot that is not ours.
    #[serde(default)]
    pub label_operation_id: Option<OperationId>,
    /// How deep.
    pub depth: ValidationDepth,
    /// The temporary restore.
    pub target: TemporaryTarget,
    /// How it is validated.
    pub validation: ValidationOptions,
}

/// Plans a backup.
///
/// # Errors
/// [`ErrorName::InvalidInput`], [`ErrorName::RegionUnknown`], [`ErrorName::KeyWrongRegion`] or
/// [`ErrorName::KeyMissing`], each naming the field or the Region.
pub fn plan_backup(
    operation: &OperationId,
    request: &BackupRequest,
    installation: &Installation,
    started_at: Timestamp,
) -> Result<BackupPlan> {
    let invalid =
        |text: String| DrError::new(ErrorName::InvalidInput, format!("reading the backup request: {text}"));
    match (&request.database, &request.selector) {
        (Some(_), Some(_)) => return Err(invalid("give `database` or `selector`, not both".into())),
        (None, None) => return Err(invalid("`database` or `selector` is missing".into())),
        _ => {}
    }
    request.validation.check()?;
    check_tags(&request.tags)?;
    for (field, days) in [
        ("lifecycle.deleteAfterDays", request.lifecycle.delete_after_days),
        ("lifecycle.transitionToGlacierDays", request.lifecycle.transition_to_glacier_days),
    ] {
        if days.is_some_and(|days| !(1..=3_650).contains(&days)) {
            return Err(invalid(format!("`{field}` must be 1 to 3650")));
        }
    }
    let expires_at = request
        .lifecycle
        .delete_after_days
        .map(|days| started_at + SignedDuration::from_hours(24 * i64::from(days)));

    let mut plan = BackupPlan {
        operation_id: operation.clone(),
        kind: "backup".to_owned(),
        started_at,
        region: installation.region.clone(),
        account: installation.account.clone(),
        database: None,
        database_kind: request.database_kind,
        selector: request.selector.clone(),
        snapshot_id: None,
        targets: plan_targets(request, installation)?,
        tags: request.tags.clone(),
        expires_at,
        validation: request.validation.clone(),
        locked: false,
    };
    if let Some(database) = &request.database {
        plan = plan.with_database(database)?;
    }
    Ok(plan)
}

impl BackupPlan {
    /// The plan for this database, with the name of its snapshot.
    ///
    /// # Errors
    /// None in practice: a legal database identifier gives a legal snapshot identifier.
    pub fn with_database(mut self, database: &DatabaseId) -> Result<Self> {
        let moment = self.started_at.to_zoned(TimeZone::UTC).strftime("%Y%m%d-%H%M%S").to_string();
        let digits = &self.operation_id.digits()[..8];
        // Whether it is a cluster is not known yet, and the names of cluster snapshots are short. Nothing is ever
        // read from a name, so that a database's long one may be cut.
        let room = SnapshotId::CLUSTER_MAX - "lifeboat---".len() - moment.len() - digits.len();
        let name = database.as_str();
        let name = name[..name.len().min(room)].trim_end_matches('-');
        self.snapshot_id = Some(SnapshotId::parse(format!("lifeboat-{name}-{moment}-{digits}"))?);
        self.database = Some(database.clone());
        Ok(self)
    }
}

fn plan_targets(request: &BackupRequest, installation: &Installation) -> Result<Vec<Target>> {
    if !request.cross_region_backup {
        if request.target_regions.as_ref().is_some_and(|regions| !regions.is_empty()) {
            return Err(DrError::new(
                ErrorName::InvalidInput,
                "reading the backup request: `targetRegions` are named, but `crossRegionBackup` is false",
            ));
        }
        return Ok(Vec::new());
    }
    let regions = request.target_regions.as_ref().unwrap_or(&installation.target_regions);
    if let Some(stray) = request.encryption_keys.keys().find(|region| !regions.contains(region)) {
        return Err(DrError::new(
            ErrorName::InvalidInput,
            format!("reading the backup request: `encryptionKeys.{stray}` is for a Region that is no target"),
        ));
    }
    let mut seen = BTreeSet::new();
    regions
        .iter()
        .map(|region| {
            let say = |what: &str| format!("planning the copy to {region} (of `targetRegions`): {what}");
            if *region == installation.region {
                return Err(DrError::new(
                    ErrorName::InvalidInput,
                    say("it is the Region of the database itself"),
                ));
            }
            if !seen.insert(region) {
                return Err(DrError::new(ErrorName::InvalidInput, say("it is named twice")));
            }
            if !installation.target_regions.contains(region) {
                return Err(DrError::new(
                    ErrorName::RegionUnknown,
                    say("it is not one of DR_TARGET_REGIONS"),
                ));
            }
            let key = request.encryption_keys.get(region).or_else(|| installation.target_keys.get(region));
            let Some(key) = key else {
                return Err(DrError::new(
                    ErrorName::KeyMissing,
                    say("DR_TARGET_KMS_KEY_IDS has no key for it"),
                ));
            };
            if key.region().is_some_and(|of_key| of_key != *region) {
                return Err(DrError::new(
                    ErrorName::KeyWrongRegion,
                    say(&format!("{key} belongs elsewhere")),
                ));
            }
            Ok(Target { region: region.clone(), kms_key_id: key.clone() })
        })
        .collect()
}

/// Checks tags against the rules of RDS: keys of 1 to 128 characters, values of at most 256, both of letters,
/// digits, spaces and `_ . : / = + - @`; none that begins with `aws:` (reserved by AWS) or `lifeboat:` (by us).
///
/// # Errors
/// [`ErrorName::InvalidInput`] naming the tag's key.
pub fn check_tags(tags: &BTreeMap<String, String>) -> Result<()> {
    let fault = |key: &str, rule: &str| {
        let key: String = key.chars().take(128).collect();
        Err(DrError::new(ErrorName::InvalidInput, format!("reading the request: tag `{key}` {rule}")))
    };
    let legal = |text: &str| text.chars().all(|c| c.is_alphanumeric() || " _.:/=+-@".contains(c));
    if tags.len() > MOST_USER_TAGS {
        return Err(DrError::new(
            ErrorName::InvalidInput,
            format!("reading the request: `tags` are {}; {MOST_USER_TAGS} are possible", tags.len()),
        ));
    }
    for (key, value) in tags {
        let lower = key.to_lowercase();
        if lower.starts_with("aws:") || lower.starts_with("lifeboat:") {
            return fault(key, "begins with a reserved prefix (`aws:` or `lifeboat:`)");
        }
        if key.trim().is_empty() || key.chars().count() > 128 || !legal(key) {
            return fault(key, "has an illegal key: 1 to 128 letters, digits, spaces and _.:/=+-@");
        }
        if value.chars().count() > 256 || !legal(value) {
            return fault(key, "has an illegal value: at most 256 letters, digits, spaces and _.:/=+-@");
        }
    }
    Ok(())
}

/// Plans a proof.
///
/// # Errors
/// [`ErrorName::InvalidInput`] for options out of bounds.
pub fn plan_proof(
    operation: &OperationId,
    request: &ProofRequest,
    installation: &Installation,
    started_at: Timestamp,
) -> Result<ProofPlan> {
    request.validation.check()?;
    let invalid =
        |text: &str| Err(DrError::new(ErrorName::InvalidInput, format!("reading the proof request: {text}")));
    match (&request.snapshot_id, &request.selector) {
        (Some(_), Some(_)) => return invalid("give `snapshotId` or `selector`, not both"),
        (None, None) => return invalid("`snapshotId` or `selector` is missing"),
        (None, Some(_)) if request.parent_operation_id.is_some() => {
            return invalid("a proof that is part of a backup names its `snapshotId`");
        }
        (None, Some(_)) if request.database.is_some() || request.frame_operation_id.is_some() => {
            return invalid("`database` and `frameOperationId` follow from what `selector` finds");
        }
        (None, Some(selector)) => selector.check()?,
        (Some(_), None) => {}
    }
    Ok(ProofPlan {
        operation_id: operation.clone(),
        kind: "proof".to_owned(),
        started_at,
        region: installation.region.clone(),
        snapshot_id: request.snapshot_id.clone(),
        selector: request.selector.clone(),
        database: request.database.clone(),
        database_kind: request.database_kind,
        frame_operation_id: request.frame_operation_id.clone(),
        earlier_operation_id: None,
        parent_operation_id: request.parent_operation_id.clone(),
        label_operation_id: None,
        depth: request.validation.depth,
        target: TemporaryTarget::of(operation)?,
        validation: request.validation.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::{Value, json};

    fn region(name: &str) -> Region {
        Region::parse(name).unwrap()
    }

    fn installation() -> Installation {
        Installation {
            region: region("us-east-1"),
            account: "123456789012".into(),
            target_regions: vec![region("us-west-2"), region("eu-west-1"), region("ap-south-1")],
            target_keys: BTreeMap::from([
                (region("us-west-2"), KmsKeyId::parse("arn:aws:kms:us-west-2:123456789012:key/w").unwrap()),
                (region("eu-west-1"), KmsKeyId::parse("alias/backup").unwrap()),
            ]),
        }
    }

    fn plan(request: Value) -> Result<BackupPlan> {
        let request: BackupRequest = crate::input::parse("the request", request)?;
        let id = OperationId::parse("backup-0123456789abcdef").unwrap();
        plan_backup(&id, &request, &installation(), "2026-01-02T03:04:05Z".parse().unwrap())
    }

    #[test]
    fn the_snapshot_is_named_after_database_time_and_operation() {
        let plan = plan(json!({"database": "orders", "targetRegions": []})).unwrap();
        assert_eq!(plan.snapshot_id.unwrap().as_str(), "lifeboat-orders-20260102-030405-01234567");
        assert!(plan.targets.is_empty());
    }

    #[test]
    fn the_snapshots_name_fits_a_cluster_snapshot_whatever_the_databases() {
        let longest = format!("{}-{}", "a".repeat(28), "b".repeat(34));
        for (database, expected) in [
            (longest.as_str(), "lifeboat-aaaaaaaaaaaaaaaaaaaaaaaaaaaa-20260102-030405-01234567"),
            ("a", "lifeboat-a-20260102-030405-01234567"),
        ] {
            let plan = plan(json!({"database": database, "targetRegions": []})).unwrap();
            let name = plan.snapshot_id.unwrap();
            assert_eq!(name.as_str(), expected);
            assert!(name.as_str().len() <= SnapshotId::CLUSTER_MAX);
        }
    }

    #[test]
    fn each_target_gets_its_own_regions_key() {
        let request = json!({
            "database": "orders", "targetRegions": ["eu-west-1", "us-west-2"],
            "encryptionKeys": {"us-west-2": "alias/special"},
            "lifecycle": {"deleteAfterDays": 2}
        });
        let plan = plan(request).unwrap();
        let targets: Vec<_> =
            plan.targets.iter().map(|t| (t.region.as_str(), t.kms_key_id.as_str())).collect();
        assert_eq!(targets, [("eu-west-1", "alias/backup"), ("us-west-2", "alias/special")]);
        assert_eq!(plan.expires_at.unwrap().to_string(), "2026-01-04T03:04:05Z");
    }

    #[test]
    fn a_selector_leaves_database_and_snapshot_open() {
        let request =
            json!({"selector": {"tag": {"key": "tier", "value": "gold"}}, "crossRegionBackup": false});
        let open = plan(request).unwrap();
        assert_eq!((open.database.clone(), open.snapshot_id.clone()), (None, None));
        let closed = open.with_database(&DatabaseId::parse("orders").unwrap()).unwrap();
        assert!(closed.snapshot_id.unwrap().as_str().starts_with("lifeboat-orders-"));
    }

    #[test]
    fn bad_requests_are_refused_by_name() {
        use ErrorName as E;
        for (request, name) in [
            (json!({}), E::InvalidInput),
            (json!({"database": ""}), E::InvalidInput),
            (json!({"database": "UPPER"}), E::InvalidInput),
            (json!({"database": 7}), E::InvalidInput),
            (json!({"database": "a", "retention": 7}), E::InvalidInput),
            (json!({"database": "a", "selector": {"tag": {"key": "a", "value": "b"}}}), E::InvalidInput),
            (json!({"database": "a", "targetRegions": ["us-east-1"]}), E::InvalidInput),
            (json!({"database": "a", "targetRegions": ["us-west-2", "us-west-2"]}), E::InvalidInput),
            (json!({"database": "a", "targetRegions": ["nowhere"]}), E::InvalidInput),
            (json!({"database": "a", "targetRegions": ["sa-east-1"]}), E::RegionUnknown),
            (json!({"database": "a", "targetRegions": ["ap-south-1"]}), E::KeyMissing),
            (
                json!({"database": "a", "targetRegions": ["us-west-2"],
                "encryptionKeys": {"us-west-2": "arn:aws:kms:eu-west-1:1:key/1"}}),
                E::KeyWrongRegion,
            ),
            (
                json!({"database": "a", "targetRegions": ["us-west-2"],
                "encryptionKeys": {"eu-west-1": "alias/x"}}),
                E::InvalidInput,
            ),
            (
                json!({"database": "a", "crossRegionBackup": false, "targetRegions": ["us-west-2"]}),
                E::InvalidInput,
            ),
            (json!({"database": "a", "targetRegions": [], "tags": {"aws:x": "1"}}), E::InvalidInput),
            (json!({"database": "a", "targetRegions": [], "tags": {"Lifeboat:x": "1"}}), E::InvalidInput),
            (json!({"database": "a", "targetRegions": [], "tags": {"x": "a\nb"}}), E::InvalidInput),
            (
                json!({"database": "a", "targetRegions": [], "lifecycle": {"deleteAfterDays": 0}}),
                E::InvalidInput,
            ),
            (
                json!({"database": "a", "targetRegions": [], "validation": {"connections": 9}}),
                E::InvalidInput,
            ),
            (json!({"database": "a", "targetRegions": [], "validation": {"depth": "deep"}}), E::InvalidInput),
        ] {
            assert_eq!(plan(request.clone()).unwrap_err().name(), name, "{request}");
        }
    }
}

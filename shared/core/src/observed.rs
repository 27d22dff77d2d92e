//! What was seen of the world: facts about databases, snapshots and keys, as the services report them.
//!
//! Statuses are open strings: RDS adds new ones, and an unknown one means "not there yet", never a fault of
//! reading. Nothing in here is inferred from a name.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{DrError, ErrorName, Result};
use crate::ids::{DatabaseId, Region, SnapshotId};
use crate::labels;

/// The outcome of looking at something. "I could not look" is not "it is missing".
#[derive(Debug)]
pub enum Observed<T> {
    /// It is there.
    Found(T),
    /// The service said that it does not exist.
    Missing,
    /// It is not known whether it exists: the call failed.
    Unreachable(DrError),
}

impl<T> Observed<T> {
    /// The thing, or nothing when it is missing.
    ///
    /// # Errors
    /// The error that kept us from looking.
    pub fn into_option(self) -> Result<Option<T>> {
        match self {
            Self::Found(found) => Ok(Some(found)),
            Self::Missing => Ok(None),
            Self::Unreachable(error) => Err(error),
        }
    }

    /// The thing, which must be there.
    ///
    /// # Errors
    /// `missing()`, or the error that kept us from looking.
    pub fn found_or_else(self, missing: impl FnOnce() -> DrError) -> Result<T> {
        self.into_option()?.ok_or_else(missing)
    }
}

/// Tags of a resource.
pub type Tags = BTreeMap<String, String>;

/// Where a database listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Host name or address.
    pub address: String,
    /// TCP port.
    pub port: u16,
}

/// What a database is to RDS. Instances and clusters have snapshots of their own kinds, and names of their own: an
/// instance and a cluster may have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseKind {
    /// A DB instance that is no member of a cluster.
    #[default]
    Instance,
    /// An Aurora cluster or a Multi-AZ DB cluster.
    Cluster,
}

impl std::fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Instance => "instance",
            Self::Cluster => "cluster",
        })
    }
}

/// A member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The instance.
    pub id: DatabaseId,
    /// Whether it is the one that writes.
    pub writer: bool,
}

/// Bounds of an Aurora Serverless v2 member's capacity, in halves of a capacity unit: RDS counts in steps of 0.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scaling {
    /// At least; 0 to 512.
    pub min_half_units: u32,
    /// At most; 2 to 512.
    pub max_half_units: u32,
}

/// A DB instance, from `DescribeDBInstances`, or a DB cluster, from `DescribeDBClusters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "RDS reports these as independent yes-or-no facts")]
pub struct DatabaseFacts {
    /// What it is.
    #[serde(default)]
    pub kind: DatabaseKind,
    /// Its identifier.
    pub id: DatabaseId,
    /// Its ARN.
    pub arn: String,
    /// The Region it is in.
    pub region: Region,
    /// `DbiResourceId` or `DbClusterResourceId`: stays the same when the instance is renamed; what `rds-db:connect` names.
    pub resource_id: Option<String>,
    /// Such as `postgres`.
    pub engine: String,
    /// Such as `16.4`.
    pub engine_version: String,
    /// Such as `available`.
    pub status: String,
    /// Whether its storage is encrypted.
    pub encrypted: bool,
    /// ARN of the key of its storage.
    pub kms_key_id: Option<String>,
    /// GiB; RDS says 1 of every Aurora cluster.
    pub allocated_storage_gb: i32,
    /// Such as `db.m7g.large`; that of a Multi-AZ DB cluster's members; empty for an Aurora cluster, whose members have
    /// classes of their own.
    pub instance_class: String,
    /// Such as `gp3`.
    pub storage_type: Option<String>,
    /// Name of its subnet group.
    pub subnet_group: Option<String>,
    /// Name of its parameter group; a cluster's is a cluster parameter group.
    pub parameter_group: Option<String>,
    /// Name of its option group.
    pub option_group: Option<String>,
    /// Its VPC security groups.
    pub security_group_ids: Vec<String>,
    /// Whether it has a standby in another zone.
    pub multi_az: bool,
    /// Whether it accepts IAM tokens.
    pub iam_authentication: bool,
    /// Name of the master user.
    pub master_username: Option<String>,
    /// ARN of the secret that RDS manages for the master user.
    pub master_user_secret_arn: Option<String>,
    /// Name of the database that was made with the instance.
    pub database_name: Option<String>,
    /// Where it listens; a cluster's writer endpoint. Absent until it first becomes available.
    pub endpoint: Option<Endpoint>,
    /// Identifier of the cluster that it is a member of.
    pub cluster: Option<String>,
    /// A cluster's members.
    #[serde(default)]
    pub members: Vec<Member>,
    /// Bounds for a cluster's serverless members.
    #[serde(default)]
    pub scaling: Option<Scaling>,
    /// Identifier or ARN of the instance or cluster that it is a read replica of.
    pub replica_of: Option<String>,
    /// Identifier of the CA that signed its certificate.
    pub ca_certificate: Option<String>,
    /// A new master password is not applied yet.
    pub password_pending: bool,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Latest moment to which it could be restored.
    pub latest_restorable_time: Option<Timestamp>,
    /// Its tags.
    pub tags: Tags,
}

impl DatabaseFacts {
    /// The engine's major version: `16` of `16.4`.
    pub fn major_version(&self) -> Option<u32> {
        self.engine_version.split('.').next()?.parse().ok()
    }

    /// The member of a cluster that writes.
    pub fn writer(&self) -> Option<&DatabaseId> {
        self.members.iter().find(|member| member.writer).map(|member| &member.id)
    }
}

/// A DB snapshot, from `DescribeDBSnapshots`, or a DB cluster snapshot, from `DescribeDBClusterSnapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotFacts {
    /// Its identifier.
    pub id: SnapshotId,
    /// Its ARN.
    pub arn: String,
    /// The Region it is in.
    pub region: Region,
    /// Identifier of the instance or the cluster that it was taken of.
    pub database: String,
    /// Which of the two that was.
    #[serde(default)]
    pub database_kind: DatabaseKind,
    /// Such as `available`.
    pub status: String,
    /// Progress of its creation or copy, 0 to 100.
    pub percent: i32,
    /// `manual`, `automated`, `shared`, `public` or `awsbackup`.
    pub kind: String,
    /// Such as `postgres`.
    pub engine: String,
    /// Such as `16.4`.
    pub engine_version: String,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// ARN of its key.
    pub kms_key_id: Option<String>,
    /// Storage allocated by the instance or the Multi-AZ DB cluster, GiB; of Aurora it says nothing.
    pub size_gb: i32,
    /// When this snapshot, or this copy, was made. Not an age: see `original_created_at`.
    pub created_at: Option<Timestamp>,
    /// When the data was taken; a copy keeps its original's. RDS does not report it of cluster snapshots.
    pub original_created_at: Option<Timestamp>,
    /// When the database was frozen for it (`SnapshotDatabaseTime`).
    pub database_time: Option<Timestamp>,
    /// Name of the option group it was taken with.
    pub option_group: Option<String>,
    /// Name of the master user in it.
    pub master_username: Option<String>,
    /// Port of the instance it was taken of.
    pub port: Option<u16>,
    /// ARN of the snapshot that it is a copy of, as RDS says it.
    pub source_arn: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

impl SnapshotFacts {
    /// When the data in it was taken: never the creation time of a copy. RDS does not report it of a cluster
    /// snapshot's copy: there it is read from the tag that we wrote on it.
    pub fn taken_at(&self) -> Option<Timestamp> {
        let ours = || self.tags.get(labels::TAKEN_AT).and_then(|text| text.parse().ok());
        match &self.source_arn {
            None => self.original_created_at.or(self.created_at),
            Some(_) => self.original_created_at.or_else(ours),
        }
    }

    /// Whether it is of an Aurora cluster.
    pub fn is_aurora(&self) -> bool {
        Engine::of_name(&self.engine).is_some_and(Engine::is_aurora)
    }
}

/// A KMS key, from `DescribeKey`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyFacts {
    /// Its ARN, also when it was asked for by alias.
    pub arn: String,
    /// Such as `Enabled`.
    pub state: String,
    /// Such as `ENCRYPT_DECRYPT`.
    pub usage: Option<String>,
    /// Such as `SYMMETRIC_DEFAULT`.
    pub spec: Option<String>,
    /// `CUSTOMER` or `AWS`.
    pub manager: Option<String>,
    /// When it is going to be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_date: Option<Timestamp>,
}

/// The ARN of a DB snapshot or a DB cluster snapshot, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotArn {
    text: String,
    region: Region,
    account: String,
    kind: DatabaseKind,
    id: SnapshotId,
}

impl SnapshotArn {
    /// Parses `arn:PARTITION:rds:REGION:ACCOUNT:snapshot:ID`, or `cluster-snapshot` for `snapshot`. The id of an automated snapshot contains a colon.
    ///
    /// # Errors
    /// [`ErrorName::InvalidInput`] with the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self> {
        Self::try_from(text.to_owned()).map_err(|rule| {
            DrError::new(ErrorName::InvalidInput, format!("reading a snapshot's ARN: {rule}"))
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The Region that the snapshot is in.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The account that owns the snapshot.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// What the snapshot is of.
    pub fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// The snapshot's identifier.
    pub fn id(&self) -> &SnapshotId {
        &self.id
    }
}

impl TryFrom<String> for SnapshotArn {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        let parts: Vec<&str> = text.splitn(7, ':').collect();
        let (region, account, kind, id) = match parts[..] {
            ["arn", _, "rds", region, account, "snapshot", id] => {
                (region, account, DatabaseKind::Instance, id)
            }
            ["arn", _, "rds", region, account, "cluster-snapshot", id] => {
                (region, account, DatabaseKind::Cluster, id)
            }
            _ => {
                let rule =
                    "it is written `arn:aws:rds:REGION:ACCOUNT:snapshot:ID`, or with `cluster-snapshot`";
                return Err(rule.to_owned());
            }
        };
        let (region, account) = (Region::try_from(region.to_owned())?, account.to_owned());
        let id = SnapshotId::try_from(id.to_owned())?;
        Ok(Self { text, region, account, kind, id })
    }
}

impl From<SnapshotArn> for String {
    fn from(arn: SnapshotArn) -> Self {
        arn.text
    }
}

impl std::fmt::Display for SnapshotArn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_arn_of_an_automated_snapshot_keeps_its_colon() {
        let arn =
            SnapshotArn::parse("arn:aws:rds:us-east-1:000000000000:snapshot:rds:orders-2026-01-02-03-04")
                .unwrap();
        assert_eq!(arn.id().as_str(), "rds:orders-2026-01-02-03-04");
        assert_eq!(arn.region().as_str(), "us-east-1");
        assert_eq!((arn.account(), arn.kind()), ("000000000000", DatabaseKind::Instance));
        let cluster =
            SnapshotArn::parse("arn:aws:rds:us-east-1:123456789012:cluster-snapshot:shop-1").unwrap();
        assert_eq!((cluster.account(), cluster.kind()), ("123456789012", DatabaseKind::Cluster));
        for bad in [
            "",
            "orders",
            "arn:aws:rds:us-east-1:000000000000:db:orders",
            "arn:aws:rds:nowhere:000000000000:snapshot:orders",
            "arn:aws:rds:us-east-1:000000000000:snapshot:",
            "arn:aws:ec2:us-east-1:000000000000:snapshot:orders",
        ] {
            assert_eq!(SnapshotArn::parse(bad).unwrap_err().name(), ErrorName::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn the_age_of_a_cluster_snapshots_copy_is_read_from_our_tag() {
        let mut copy = crate::fixtures::snapshot("available");
        copy.database_kind = DatabaseKind::Cluster;
        copy.original_created_at = None;
        assert_eq!(copy.taken_at(), copy.created_at);
        copy.source_arn = Some("arn:aws:rds:us-east-1:000000000000:cluster-snapshot:shop-1".into());
        assert_eq!(copy.taken_at(), None);
        copy.tags.insert(labels::TAKEN_AT.into(), "2026-01-02T02:00:00Z".into());
        assert_eq!(copy.taken_at(), Some(crate::fixtures::at("2026-01-02T02:00:00Z")));
    }

    #[test]
    fn could_not_look_stays_apart_from_missing() {
        let gone = || DrError::new(ErrorName::SnapshotMissing, "reading a snapshot");
        assert_eq!(Observed::Found(1).found_or_else(gone).unwrap(), 1);
        assert_eq!(
            Observed::<u8>::Missing.found_or_else(gone).unwrap_err().name(),
            ErrorName::SnapshotMissing
        );
        let unreachable = Observed::<u8>::Unreachable(DrError::new(ErrorName::AwsUnreachable, "looking"));
        assert_eq!(unreachable.found_or_else(gone).unwrap_err().name(), ErrorName::AwsUnreachable);
    }
}

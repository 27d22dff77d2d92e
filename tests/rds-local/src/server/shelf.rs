//! The two kinds of snapshots, of instances and of clusters: what differs between them in names, errors and limits.

use std::collections::BTreeMap;

use super::cloud::Config;
use super::fault::Fault;
use super::model::{Instance, Region, Snapshot};
use super::render;
use super::xml::Xml;

/// Which kind an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shelf {
    /// DB snapshots.
    Instances,
    /// DB cluster snapshots.
    Clusters,
}

impl Shelf {
    fn pick<T>(self, instances: T, clusters: T) -> T {
        match self {
            Self::Instances => instances,
            Self::Clusters => clusters,
        }
    }

    /// Parameter with the snapshot's identifier.
    pub(super) fn id_parameter(self) -> &'static str {
        self.pick("DBSnapshotIdentifier", "DBClusterSnapshotIdentifier")
    }

    /// Parameter with the identifier of the snapshot to copy.
    pub(super) fn source_parameter(self) -> &'static str {
        self.pick("SourceDBSnapshotIdentifier", "SourceDBClusterSnapshotIdentifier")
    }

    /// Parameter with the identifier of the copy.
    pub(super) fn target_parameter(self) -> &'static str {
        self.pick("TargetDBSnapshotIdentifier", "TargetDBClusterSnapshotIdentifier")
    }

    /// Parameter with the identifier of what is snapshotted.
    pub(super) fn owner_parameter(self) -> &'static str {
        self.pick("DBInstanceIdentifier", "DBClusterIdentifier")
    }

    /// Parameter with the resource id of what is snapshotted.
    pub(super) fn resource_parameter(self) -> &'static str {
        self.pick("DbiResourceId", "DbClusterResourceId")
    }

    /// Kind of resource in a snapshot's ARN.
    pub(super) fn arn_kind(self) -> &'static str {
        self.pick("snapshot", "cluster-snapshot")
    }

    /// Kind of resource in the ARN of what is snapshotted.
    pub(super) fn owner_arn_kind(self) -> &'static str {
        self.pick("db", "cluster")
    }

    /// Name of the filter for what is snapshotted.
    pub(super) fn owner_filter(self) -> &'static str {
        self.pick("db-instance-id", "db-cluster-id")
    }

    /// Name of the filter for snapshots.
    pub(super) fn id_filter(self) -> &'static str {
        self.pick("db-snapshot-id", "db-cluster-snapshot-id")
    }

    /// Characters that an identifier may have at most: those of cluster snapshots are as short as instances'.
    pub(super) fn longest_id(self) -> usize {
        self.pick(255, 63)
    }

    /// Names of the lists in answers.
    pub(super) fn elements(self) -> (&'static str, &'static str) {
        self.pick(("DBSnapshots", "DBSnapshot"), ("DBClusterSnapshots", "DBClusterSnapshot"))
    }

    pub(super) fn of(self, region: &Region) -> &BTreeMap<String, Snapshot> {
        match self {
            Self::Instances => &region.snapshots,
            Self::Clusters => &region.cluster_snapshots,
        }
    }

    pub(super) fn of_mut(self, region: &mut Region) -> &mut BTreeMap<String, Snapshot> {
        match self {
            Self::Instances => &mut region.snapshots,
            Self::Clusters => &mut region.cluster_snapshots,
        }
    }

    /// What is snapshotted.
    pub(super) fn owner<'a>(self, region: &'a mut Region, id: &str) -> Result<&'a mut Instance, Fault> {
        match self {
            Self::Instances => match region.instances.get_mut(id) {
                // Neither Aurora nor Multi-AZ clusters let their members be snapshotted by themselves.
                Some(Instance { cluster: Some(cluster), .. }) => Err(Fault::value(format!(
                    "The specified instance is a member of a cluster and a snapshot cannot be created directly. \
                     Please use the CreateDBClusterSnapshot API for {cluster} instead."
                ))),
                Some(instance) => Ok(instance),
                None => Err(Fault::instance_not_found(id)),
            },
            Self::Clusters => region
                .clusters
                .get_mut(id)
                .map(|cluster| &mut cluster.core)
                .ok_or_else(|| Fault::cluster_not_found(id)),
        }
    }

    pub(super) fn quota(self, config: &Config) -> usize {
        self.pick(config.snapshot_quota, config.cluster_snapshot_quota)
    }

    pub(super) fn copy_slots(self, config: &Config) -> usize {
        self.pick(config.copy_slots, config.cluster_copy_slots)
    }

    pub(super) fn not_found(self, id: &str) -> Fault {
        match self {
            Self::Instances => Fault::snapshot_not_found(id),
            Self::Clusters => {
                let message = format!("DBClusterSnapshot not found: {id}");
                Fault::new("DBClusterSnapshotNotFoundFault", 404, message)
            }
        }
    }

    pub(super) fn exists(self, id: &str) -> Fault {
        let code = self.pick("DBSnapshotAlreadyExists", "DBClusterSnapshotAlreadyExistsFault");
        let message =
            format!("Cannot create the snapshot because a snapshot with the identifier {id} already exists.");
        Fault::new(code, 400, message)
    }

    pub(super) fn state(self, id: &str, status: &str, wanted: &str) -> Fault {
        let code = self.pick("InvalidDBSnapshotState", "InvalidDBClusterSnapshotStateFault");
        Fault::new(code, 400, format!("Snapshot {id} is {status}, which does not allow to {wanted}."))
    }

    pub(super) fn owner_state(self, id: &str, status: &str, wanted: &str) -> Fault {
        match self {
            Self::Instances => Fault::instance_state(id, status, wanted),
            Self::Clusters => Fault::cluster_state(id, status, wanted),
        }
    }

    /// One snapshot as an element's content.
    pub(super) fn render(self, xml: &mut Xml, region: &Region, snapshot: &Snapshot) {
        match self {
            Self::Instances => render::snapshot(xml, region, snapshot),
            Self::Clusters => render::cluster_snapshot(xml, region, snapshot),
        }
    }

    /// One snapshot as the whole content of a result.
    pub(super) fn result(self, region: &Region, snapshot: &Snapshot) -> String {
        let mut xml = Xml::new();
        xml.within(self.elements().1, |xml| self.render(xml, region, snapshot));
        xml.done()
    }

    /// Notes an event about a snapshot.
    pub(super) fn event(
        self,
        region: &mut Region,
        id: &str,
        category: &'static str,
        message: impl Into<String>,
    ) {
        let arn = region.arn(self.arn_kind(), id);
        region.event(self.pick("db-snapshot", "db-cluster-snapshot"), id, arn, category, message.into());
    }
}

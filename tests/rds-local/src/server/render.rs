//! Instances, snapshots and groups as XML, with the members that the service model names.

use super::engine::is_aurora;
use super::model::{
    Cluster, Instance, OptionGroup, ParameterGroup, Pending, Region, Settings, Snapshot, SubnetGroup,
};
use super::params::Tag;
use super::xml::Xml;

pub(super) const VPC: &str = "vpc-00000000";

pub(super) fn tags(xml: &mut Xml, tags: &[Tag]) {
    xml.list("TagList", "Tag", tags, |xml, tag| {
        xml.put("Key", &tag.key).put("Value", &tag.value);
    });
}

/// The content of a `DBInstance` element.
pub(super) fn instance(xml: &mut Xml, region: &Region, instance: &Instance) {
    let settings = &instance.settings;
    let replication = region.replication.get(&instance.id);
    xml.put("DBInstanceIdentifier", &instance.id)
        .put("DBInstanceClass", &settings.class)
        .put("Engine", &settings.engine)
        .put("DBInstanceStatus", &instance.status)
        .put("MasterUsername", &settings.master_username)
        .put_some("DBName", settings.database.as_ref())
        .put_some("DBClusterIdentifier", instance.cluster.as_ref());
    if let Some(port) = instance.port {
        xml.within("Endpoint", |xml| {
            xml.put("Address", "127.0.0.1").put("Port", port).put("HostedZoneId", "Z2R2ITUGPM61AM");
        });
    }
    xml.put("AllocatedStorage", settings.allocated_storage)
        .put_time("InstanceCreateTime", instance.created)
        .put("PreferredBackupWindow", &settings.backup_window)
        .put("BackupRetentionPeriod", settings.backup_retention)
        .within("DBSecurityGroups", |_| {})
        .list("VpcSecurityGroups", "VpcSecurityGroupMembership", &settings.security_groups, |xml, group| {
            xml.put("VpcSecurityGroupId", group).put("Status", "active");
        })
        .within("DBParameterGroups", |xml| {
            xml.within("DBParameterGroup", |xml| {
                xml.put("DBParameterGroupName", &settings.parameter_group)
                    .put("ParameterApplyStatus", "in-sync");
            });
        })
        .put("AvailabilityZone", &settings.zone);
    if let Some(group) = region.subnet_groups.get(&settings.subnet_group) {
        xml.within("DBSubnetGroup", |xml| subnet_group(xml, region, group));
    }
    xml.put("PreferredMaintenanceWindow", &settings.maintenance_window)
        .within("PendingModifiedValues", |xml| pending(xml, &instance.pending));
    if settings.backup_retention > 0 && instance.created.is_some() {
        // WAL archiving is not here yet; what AWS promises, within the last five minutes, is what is shown.
        xml.put_time("LatestRestorableTime", Some(jiff::Timestamp::now()));
    }
    xml.put("MultiAZ", settings.multi_az)
        .put("EngineVersion", &settings.version)
        .put("AutoMinorVersionUpgrade", settings.auto_minor_upgrade)
        .within("ReadReplicaDBInstanceIdentifiers", |xml| {
            for replica in region.replicas.get(&instance.id).into_iter().flatten() {
                xml.put("ReadReplicaDBInstanceIdentifier", replica);
            }
        })
        .put_some("ReadReplicaSourceDBInstanceIdentifier", replication.map(|replication| &replication.source))
        .put("LicenseModel", "postgresql-license")
        .put_some("Iops", settings.iops)
        .within("OptionGroupMemberships", |xml| {
            xml.within("OptionGroupMembership", |xml| {
                xml.put("OptionGroupName", &settings.option_group).put("Status", "in-sync");
            });
        })
        .put_some("SecondaryAvailabilityZone", instance.standby_zone.as_ref())
        .put("PubliclyAccessible", settings.public)
        .put("StorageType", &settings.storage_type)
        .put("DbInstancePort", 0);
    storage(xml, settings, settings.kms_key.as_deref(), "StorageEncrypted");
    xml.put("DbiResourceId", &instance.resource_id)
        .put("CACertificateIdentifier", &settings.ca)
        .within("DomainMemberships", |_| {})
        .put("CopyTagsToSnapshot", settings.copy_tags_to_snapshot)
        .put("MonitoringInterval", settings.monitoring_interval)
        .put("DBInstanceArn", region.arn("db", &instance.id))
        .put("IAMDatabaseAuthenticationEnabled", settings.iam_authentication)
        .put("PerformanceInsightsEnabled", false)
        .put("DeletionProtection", settings.deletion_protection)
        .within("AssociatedRoles", |_| {})
        .put_some("MaxAllocatedStorage", settings.max_allocated_storage)
        .put("CustomerOwnedIpEnabled", false)
        .put("NetworkType", "IPV4")
        .put("ActivityStreamStatus", "stopped")
        .put("BackupTarget", "region")
        .put_time("AutomaticRestartTime", instance.restarts)
        .put("DedicatedLogVolume", false)
        .put("EngineLifecycleSupport", "open-source-rds-extended-support");
    xml.within("CertificateDetails", |xml| {
        xml.put("CAIdentifier", &settings.ca);
    });
    if let Some(secret) = &instance.secret {
        xml.within("MasterUserSecret", |xml| {
            xml.put("SecretArn", &secret.arn)
                .put("SecretStatus", "active")
                .put_some("KmsKeyId", secret.kms_key.as_ref());
        });
    }
    xml.list("StatusInfos", "DBInstanceStatusInfo", replication, |xml, replication| {
        xml.put("StatusType", "read replication")
            .put("Normal", replication.normal)
            .put("Status", &replication.status)
            .put("Message", &replication.message);
    });
    tags(xml, &instance.tags);
}

fn pending(xml: &mut Xml, pending: &Pending) {
    xml.put_some("DBInstanceClass", pending.class.as_ref())
        .put_some("AllocatedStorage", pending.allocated_storage)
        .put_some("MasterUserPassword", pending.password.then_some("****"))
        .put_some("MultiAZ", pending.multi_az)
        .put_some("Iops", pending.iops)
        .put_some("DBInstanceIdentifier", pending.identifier.as_ref())
        .put_some("StorageType", pending.storage_type.as_ref());
}

fn storage(xml: &mut Xml, settings: &Settings, key: Option<&str>, flag: &str) {
    xml.put(flag, key.is_some()).put_some("KmsKeyId", key);
    if settings.storage_type == "gp3" {
        xml.put("StorageThroughput", 125);
    }
}

/// The content of a `DBSnapshot` element.
pub(super) fn snapshot(xml: &mut Xml, region: &Region, snapshot: &Snapshot) {
    let settings = &snapshot.settings;
    let finished = snapshot.status != "creating";
    xml.put("DBSnapshotIdentifier", &snapshot.id)
        .put("DBInstanceIdentifier", &snapshot.instance_id)
        // As on AWS, a snapshot that is being created has no times yet.
        .put_time("SnapshotCreateTime", snapshot.created.filter(|_| finished))
        .put("Engine", &settings.engine)
        .put("AllocatedStorage", settings.allocated_storage)
        .put("Status", &snapshot.status)
        .put("Port", snapshot.port)
        .put("AvailabilityZone", &settings.zone)
        .put("VpcId", VPC)
        .put_time("InstanceCreateTime", snapshot.instance_created)
        .put("MasterUsername", &settings.master_username)
        .put("EngineVersion", &settings.version)
        .put("LicenseModel", "postgresql-license")
        .put("SnapshotType", snapshot.kind.name())
        .put_some("Iops", settings.iops)
        .put("OptionGroupName", &settings.option_group)
        .put("PercentProgress", snapshot.progress);
    if let Some(source) = &snapshot.source {
        xml.put("SourceRegion", &source.region).put("SourceDBSnapshotIdentifier", &source.arn);
    }
    xml.put("StorageType", &settings.storage_type);
    storage(xml, settings, snapshot.kms_key.as_deref(), "Encrypted");
    xml.put("DBSnapshotArn", region.arn("snapshot", &snapshot.id))
        .put("IAMDatabaseAuthenticationEnabled", settings.iam_authentication)
        .within("ProcessorFeatures", |_| {})
        .put("DbiResourceId", &snapshot.resource_id);
    tags(xml, &snapshot.tags);
    xml.put_time("OriginalSnapshotCreateTime", snapshot.original.filter(|_| finished))
        .put_time("SnapshotDatabaseTime", snapshot.original.filter(|_| finished))
        .put("SnapshotTarget", "region")
        .put("DedicatedLogVolume", false);
}

/// The content of a `DBCluster` element. Writer and reader endpoint are two names of one address.
pub(super) fn cluster(xml: &mut Xml, region: &Region, cluster: &Cluster) {
    let (core, settings) = (&cluster.core, &cluster.core.settings);
    xml.put("DBClusterIdentifier", &core.id)
        .put("DBClusterArn", region.arn("cluster", &core.id))
        .put("DbClusterResourceId", &core.resource_id)
        .put("Status", &core.status)
        .put("Engine", &settings.engine)
        .put("EngineVersion", &settings.version)
        .put("EngineMode", "provisioned")
        .put("MasterUsername", &settings.master_username)
        .put_some("DatabaseName", settings.database.as_ref())
        .put("AllocatedStorage", settings.allocated_storage)
        .put("MultiAZ", cluster.members.len() > 1)
        .put("DBSubnetGroup", &settings.subnet_group)
        .put("DBClusterParameterGroup", &settings.parameter_group)
        .put("BackupRetentionPeriod", settings.backup_retention)
        .put("PreferredBackupWindow", &settings.backup_window)
        .put("PreferredMaintenanceWindow", &settings.maintenance_window)
        .put_time("ClusterCreateTime", core.created)
        .put_time("AutomaticRestartTime", core.restarts)
        .put("StorageType", &settings.storage_type)
        .put_some("Iops", settings.iops);
    if let Some(port) = core.port {
        xml.put("Endpoint", "127.0.0.1").put("ReaderEndpoint", "localhost").put("Port", port);
    }
    if !cluster.is_aurora() {
        xml.put("DBClusterInstanceClass", &settings.class);
    }
    if core.created.is_some() {
        xml.put_time("LatestRestorableTime", Some(jiff::Timestamp::now()));
    }
    let members = cluster.members.iter().enumerate();
    xml.list("DBClusterMembers", "DBClusterMember", members, |xml, (number, member)| {
        xml.put("DBInstanceIdentifier", member)
            .put("IsClusterWriter", number == 0)
            .put("DBClusterParameterGroupStatus", "in-sync")
            .put("PromotionTier", 1);
    })
    .list("VpcSecurityGroups", "VpcSecurityGroupMembership", &settings.security_groups, |xml, group| {
        xml.put("VpcSecurityGroupId", group).put("Status", "active");
    });
    if let Some(scaling) = cluster.scaling {
        xml.within("ServerlessV2ScalingConfiguration", |xml| {
            xml.put("MinCapacity", scaling.least).put("MaxCapacity", scaling.most);
        });
    }
    if core.pending.password {
        xml.within("PendingModifiedValues", |xml| {
            xml.put("MasterUserPassword", "****");
        });
    }
    if let Some(secret) = &core.secret {
        xml.within("MasterUserSecret", |xml| {
            xml.put("SecretArn", &secret.arn)
                .put("SecretStatus", "active")
                .put_some("KmsKeyId", secret.kms_key.as_ref());
        });
    }
    xml.put("StorageEncrypted", settings.kms_key.is_some())
        .put_some("KmsKeyId", settings.kms_key.as_ref())
        .put("IAMDatabaseAuthenticationEnabled", settings.iam_authentication)
        .put("DeletionProtection", settings.deletion_protection)
        .put("CopyTagsToSnapshot", settings.copy_tags_to_snapshot)
        .put("CrossAccountClone", false)
        .put("HttpEndpointEnabled", false)
        .put("ActivityStreamStatus", "stopped")
        .put("NetworkType", "IPV4");
    tags(xml, &core.tags);
}

/// The content of a `DBClusterSnapshot` element: it has neither the original's creation time nor the database's.
pub(super) fn cluster_snapshot(xml: &mut Xml, region: &Region, snapshot: &Snapshot) {
    let settings = &snapshot.settings;
    let finished = snapshot.status != "creating";
    // Aurora's volume has no allocated size, and its snapshots no port.
    let aurora = is_aurora(&settings.engine);
    xml.put("DBClusterSnapshotIdentifier", &snapshot.id)
        .put("DBClusterSnapshotArn", region.arn("cluster-snapshot", &snapshot.id))
        .put("DBClusterIdentifier", &snapshot.instance_id)
        .put("DbClusterResourceId", &snapshot.resource_id)
        .put_time("SnapshotCreateTime", snapshot.created.filter(|_| finished))
        .put_time("ClusterCreateTime", snapshot.instance_created)
        .put("Engine", &settings.engine)
        .put("EngineMode", "provisioned")
        .put("EngineVersion", &settings.version)
        .put("AllocatedStorage", if aurora { 0 } else { settings.allocated_storage })
        .put("Status", &snapshot.status)
        .put("Port", if aurora { 0 } else { snapshot.port })
        .put("VpcId", VPC)
        .put("MasterUsername", &settings.master_username)
        .put("LicenseModel", "postgresql-license")
        .put("SnapshotType", snapshot.kind.name())
        .put("PercentProgress", snapshot.progress)
        .put("StorageType", &settings.storage_type)
        .put("StorageEncrypted", snapshot.kms_key.is_some())
        .put_some("KmsKeyId", snapshot.kms_key.as_ref())
        .put_some("SourceDBClusterSnapshotArn", snapshot.source.as_ref().map(|source| &source.arn))
        .put("IAMDatabaseAuthenticationEnabled", settings.iam_authentication);
    tags(xml, &snapshot.tags);
}

/// A cluster as the whole content of a result.
pub(super) fn cluster_result(region: &Region, what: &Cluster) -> String {
    let mut xml = Xml::new();
    xml.within("DBCluster", |xml| cluster(xml, region, what));
    xml.done()
}

/// The content of a `DBSubnetGroup` element.
pub(super) fn subnet_group(xml: &mut Xml, region: &Region, group: &SubnetGroup) {
    xml.put("DBSubnetGroupName", &group.name)
        .put("DBSubnetGroupDescription", &group.description)
        .put("VpcId", VPC)
        .put("SubnetGroupStatus", "Complete")
        .list("Subnets", "Subnet", &group.subnets, |xml, (subnet, zone)| {
            xml.put("SubnetIdentifier", subnet)
                .within("SubnetAvailabilityZone", |xml| {
                    xml.put("Name", zone);
                })
                .within("SubnetOutpost", |_| {})
                .put("SubnetStatus", "Active");
        })
        .put("DBSubnetGroupArn", region.arn("subgrp", &group.name));
}

/// The content of a `DBParameterGroup` or `DBClusterParameterGroup` element.
pub(super) fn parameter_group(xml: &mut Xml, region: &Region, group: &ParameterGroup, cluster: bool) {
    let (element, kind) =
        if cluster { ("DBClusterParameterGroup", "cluster-pg") } else { ("DBParameterGroup", "pg") };
    xml.put(&format!("{element}Name"), &group.name)
        .put("DBParameterGroupFamily", &group.family)
        .put("Description", &group.description)
        .put(&format!("{element}Arn"), region.arn(kind, &group.name));
}

/// The content of an `OptionGroup` element.
pub(super) fn option_group(xml: &mut Xml, region: &Region, group: &OptionGroup) {
    xml.put("OptionGroupName", &group.name)
        .put("OptionGroupDescription", &group.description)
        .put("EngineName", &group.engine)
        .put("MajorEngineVersion", &group.major)
        .within("Options", |_| {})
        .put("AllowsVpcAndNonVpcInstanceMemberships", true)
        .put("OptionGroupArn", region.arn("og", &group.name));
}

/// An instance as the whole content of a result.
pub(super) fn instance_result(region: &Region, what: &Instance) -> String {
    let mut xml = Xml::new();
    xml.within("DBInstance", |xml| instance(xml, region, what));
    xml.done()
}

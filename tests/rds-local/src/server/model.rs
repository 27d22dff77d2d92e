//! What a Region holds: instances, snapshots, groups, events.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex as AsyncMutex, RwLock};

use super::engine::{self, Server};
use super::ids;
use super::params::Tag;
use super::proxy::Endpoint;

/// The settings of an instance that a snapshot remembers and a restore may override.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the API")]
pub(super) struct Settings {
    pub(super) engine: String,
    pub(super) version: String,
    pub(super) class: String,
    pub(super) master_username: String,
    pub(super) database: Option<String>,
    /// Gibibytes.
    pub(super) allocated_storage: u32,
    pub(super) max_allocated_storage: Option<u32>,
    pub(super) storage_type: String,
    pub(super) iops: Option<u32>,
    /// The key's ARN where storage is encrypted.
    pub(super) kms_key: Option<String>,
    pub(super) option_group: String,
    pub(super) parameter_group: String,
    pub(super) subnet_group: String,
    pub(super) security_groups: Vec<String>,
    pub(super) zone: String,
    pub(super) multi_az: bool,
    pub(super) public: bool,
    pub(super) iam_authentication: bool,
    pub(super) deletion_protection: bool,
    pub(super) copy_tags_to_snapshot: bool,
    pub(super) auto_minor_upgrade: bool,
    /// Days; 0 turns automated backups off.
    pub(super) backup_retention: u32,
    pub(super) backup_window: String,
    pub(super) maintenance_window: String,
    pub(super) ca: String,
    pub(super) monitoring_interval: u32,
}

/// A master password that Secrets Manager holds.
#[derive(Debug, Clone)]
pub(super) struct MasterSecret {
    pub(super) arn: String,
    pub(super) kms_key: Option<String>,
}

/// Changes that are accepted and not yet made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) class: Option<String>,
    pub(super) allocated_storage: Option<u32>,
    pub(super) storage_type: Option<String>,
    pub(super) iops: Option<u32>,
    pub(super) multi_az: Option<bool>,
    pub(super) identifier: Option<String>,
    /// A new password is on its way; shown as asterisks.
    pub(super) password: bool,
}

/// A DB instance with, in time, a server behind it. Also what a DB cluster is made of: see [`Cluster`].
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) resource_id: String,
    pub(super) status: String,
    /// Grows with each operation; a task that finds another number has been overtaken and leaves the status alone.
    pub(super) epoch: u64,
    pub(super) settings: Settings,
    pub(super) pending: Pending,
    /// The zone of the standby, where there is one.
    pub(super) standby_zone: Option<String>,
    /// When RDS starts it again, while it is stopped.
    pub(super) restarts: Option<Timestamp>,
    /// The cluster that it is a member of; such an instance has an endpoint and no server of its own.
    pub(super) cluster: Option<String>,
    pub(super) secret: Option<MasterSecret>,
    pub(super) tags: Vec<Tag>,
    /// When it became available first.
    pub(super) created: Option<Timestamp>,
    /// The endpoint's port, once there has been one.
    pub(super) port: Option<u16>,
    pub(super) dir: PathBuf,
    /// Held by whatever works on the server or its files.
    pub(super) machine: Arc<AsyncMutex<Machine>>,
}

impl Instance {
    /// Sets the status. RDS starts a stopped database again seven days later; nothing here lives as long.
    pub(super) fn set_status(&mut self, status: &str) {
        const LONGEST_STOP: SignedDuration = SignedDuration::from_hours(7 * 24);
        status.clone_into(&mut self.status);
        let restart = || Timestamp::now().checked_add(LONGEST_STOP).ok();
        self.restarts = (status == "stopped").then(restart).flatten();
    }
}

/// A DB cluster: one server that all its members lead to. There is no replication inside: a reader reads what the
/// writer wrote.
pub(super) struct Cluster {
    /// Identifier, status, settings, files and server. Its class is `DBClusterInstanceClass`, empty for Aurora.
    pub(super) core: Instance,
    /// Its members: the writer first, the others in the order of their creation or of their last failover.
    pub(super) members: Vec<String>,
    /// Capacity of Serverless v2 members.
    pub(super) scaling: Option<Scaling>,
}

impl Cluster {
    /// Whether it is of Aurora: members come and go by themselves. Else it is a Multi-AZ DB cluster, whose three
    /// members are RDS's.
    pub(super) fn is_aurora(&self) -> bool {
        engine::is_aurora(&self.core.settings.engine)
    }
}

/// `ServerlessV2ScalingConfiguration`, in Aurora capacity units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scaling {
    pub(super) least: f64,
    pub(super) most: f64,
}

/// The server of an instance and the way to it.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) server: Option<Box<dyn Server>>,
    pub(super) endpoint: Option<Endpoint>,
    /// The port that the server itself listens on.
    pub(super) backend: Option<u16>,
    /// Set when the instance is being deleted: a start that comes late must not begin.
    pub(super) condemned: bool,
}

/// Who took a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A user, or a copy; it stays until it is deleted and counts against the quota.
    Manual,
    /// RDS; it goes with its instance.
    Automated,
    /// AWS Backup; only AWS Backup deletes it.
    AwsBackup,
}

impl Kind {
    /// As in `SnapshotType`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Automated => "automated",
            Self::AwsBackup => "awsbackup",
        }
    }

    /// As a sentence begins.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Manual => "Manual",
            Self::Automated => "Automated",
            Self::AwsBackup => "AWS Backup",
        }
    }
}

/// A DB snapshot or a DB cluster snapshot: a physical copy of an instance's or a cluster's files.
pub(super) struct Snapshot {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// The instance or the cluster.
    pub(super) instance_id: String,
    pub(super) resource_id: String,
    pub(super) status: String,
    /// 0 to 100.
    pub(super) progress: u32,
    pub(super) settings: Settings,
    /// TCP port of the instance.
    pub(super) port: u16,
    pub(super) instance_created: Option<Timestamp>,
    /// When the snapshot, or this copy of it, was made.
    pub(super) created: Option<Timestamp>,
    /// When the data was frozen; a copy keeps it.
    pub(super) original: Option<Timestamp>,
    /// Encrypted under which key.
    pub(super) kms_key: Option<String>,
    /// Source Region and ARN of a copy.
    pub(super) source: Option<Source>,
    pub(super) tags: Vec<Tag>,
    pub(super) dir: PathBuf,
    /// Read by whatever copies the files, written by what changes or removes them.
    pub(super) files: Arc<RwLock<()>>,
}

/// Where a copied snapshot comes from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) region: String,
    pub(super) arn: String,
}

#[derive(Debug, Clone)]
pub(super) struct SubnetGroup {
    pub(super) name: String,
    pub(super) description: String,
    /// Subnet and its zone.
    pub(super) subnets: Vec<(String, String)>,
    pub(super) tags: Vec<Tag>,
}

#[derive(Debug, Clone)]
pub(super) struct ParameterGroup {
    pub(super) name: String,
    pub(super) family: String,
    pub(super) description: String,
    pub(super) tags: Vec<Tag>,
}

#[derive(Debug, Clone)]
pub(super) struct OptionGroup {
    pub(super) name: String,
    pub(super) engine: String,
    pub(super) major: String,
    pub(super) description: String,
    pub(super) tags: Vec<Tag>,
}

/// An entry of `DescribeEvents`.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) time: Timestamp,
    /// "db-instance", "db-snapshot", "db-cluster" or "db-cluster-snapshot".
    pub(super) source_type: &'static str,
    pub(super) source: String,
    pub(super) arn: String,
    pub(super) category: &'static str,
    pub(super) message: String,
}

/// What a test has ordered an instance to say of its replication. Nothing is replicated.
#[derive(Debug, Clone)]
pub(super) struct Replication {
    /// Identifier of the source in the same Region, or ARN of one in another.
    pub(super) source: String,
    /// Such as `replicating` or `error`.
    pub(super) status: String,
    /// Whether all is well.
    pub(super) normal: bool,
    /// What went wrong.
    pub(super) message: String,
}

/// Everything in one Region.
pub(super) struct Region {
    pub(super) name: String,
    pub(super) account: String,
    pub(super) instances: BTreeMap<String, Instance>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    pub(super) clusters: BTreeMap<String, Cluster>,
    pub(super) cluster_snapshots: BTreeMap<String, Snapshot>,
    pub(super) subnet_groups: BTreeMap<String, SubnetGroup>,
    pub(super) parameter_groups: BTreeMap<String, ParameterGroup>,
    pub(super) cluster_parameter_groups: BTreeMap<String, ParameterGroup>,
    pub(super) option_groups: BTreeMap<String, OptionGroup>,
    pub(super) events: Vec<Event>,
    /// By the instance's identifier.
    pub(super) replication: BTreeMap<String, Replication>,
    /// By the source's identifier: identifiers of its replicas in this Region, ARNs of those in others.
    pub(super) replicas: BTreeMap<String, BTreeSet<String>>,
}

impl Region {
    /// A Region with the default groups that every account has.
    pub(super) fn new(name: &str, account: &str, engines: &[(String, String)]) -> Self {
        let mut region = Self {
            name: name.to_owned(),
            account: account.to_owned(),
            instances: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            clusters: BTreeMap::new(),
            cluster_snapshots: BTreeMap::new(),
            subnet_groups: BTreeMap::new(),
            parameter_groups: BTreeMap::new(),
            cluster_parameter_groups: BTreeMap::new(),
            option_groups: BTreeMap::new(),
            events: Vec::new(),
            replication: BTreeMap::new(),
            replicas: BTreeMap::new(),
        };
        let subnets =
            ["a", "b", "c"].map(|zone| (format!("subnet-0000000{zone}"), format!("{name}{zone}"))).to_vec();
        let default =
            SubnetGroup { name: "default".into(), description: "default".into(), subnets, tags: Vec::new() };
        region.subnet_groups.insert("default".into(), default);
        for (engine, version) in engines {
            let (family, major) =
                (engine::family(engine, version), engine::major(engine, version).to_owned());
            let name = format!("default.{family}");
            let description = format!("Default parameter group for {family}");
            let group = ParameterGroup { name: name.clone(), family, description, tags: Vec::new() };
            region.cluster_parameter_groups.insert(name.clone(), group.clone());
            region.parameter_groups.insert(name, group);
            let name = engine::option_group(engine, version);
            let description = format!("Default option group for {engine} {major}");
            let group = OptionGroup {
                name: name.clone(),
                engine: engine.clone(),
                major,
                description,
                tags: Vec::new(),
            };
            region.option_groups.insert(name, group);
        }
        region
    }

    pub(super) fn arn(&self, kind: &str, name: &str) -> String {
        ids::arn(&self.name, &self.account, kind, name)
    }

    /// The instance, or what a cluster is made of.
    pub(super) fn instance_by_resource(&mut self, resource_id: &str) -> Option<&mut Instance> {
        let clusters = self.clusters.values_mut().map(|cluster| &mut cluster.core);
        self.instances.values_mut().chain(clusters).find(|instance| instance.resource_id == resource_id)
    }

    /// Every snapshot, of instances and of clusters.
    pub(super) fn all_snapshots(&mut self) -> impl Iterator<Item = &mut Snapshot> {
        self.snapshots.values_mut().chain(self.cluster_snapshots.values_mut())
    }

    /// The zone that is chosen where none is asked for.
    pub(super) fn default_zone(&self) -> String {
        format!("{}a", self.name)
    }

    /// The zones of a subnet group, in its order; those of the Region where there is no such group.
    pub(super) fn zones(&self, subnet_group: &str) -> Vec<String> {
        match self.subnet_groups.get(subnet_group) {
            Some(group) => group.subnets.iter().map(|(_, zone)| zone.clone()).collect(),
            None => ["a", "b", "c"].map(|zone| format!("{}{zone}", self.name)).to_vec(),
        }
    }

    /// Where the standby of an instance is put: in the first other zone of its subnet group. `None` without Multi-AZ.
    pub(super) fn standby_zone(&self, settings: &Settings) -> Option<String> {
        let mut zones = self.zones(&settings.subnet_group).into_iter();
        settings.multi_az.then(|| zones.find(|zone| *zone != settings.zone)).flatten()
    }

    /// The security group that is used where none is given.
    #[expect(clippy::unused_self, reason = "on AWS it is one of the Region")]
    pub(super) fn default_security_group(&self) -> String {
        "sg-00000000".to_owned()
    }

    /// Notes an event about an instance or a cluster, if it is still there.
    pub(super) fn resource_event(
        &mut self,
        resource: &str,
        category: &'static str,
        message: impl Into<String>,
    ) {
        let Some(id) = self.instance_by_resource(resource).map(|instance| instance.id.clone()) else {
            return;
        };
        let (source, kind) =
            if ids::is_cluster(resource) { ("db-cluster", "cluster") } else { ("db-instance", "db") };
        let arn = self.arn(kind, &id);
        self.event(source, &id, arn, category, message.into());
    }

    /// Notes an event.
    pub(super) fn event(
        &mut self,
        source_type: &'static str,
        id: &str,
        arn: String,
        category: &'static str,
        message: String,
    ) {
        /// AWS keeps events for 14 days; here the newest ones of a run are enough.
        const KEPT: usize = 5000;
        if self.events.len() >= KEPT {
            self.events.remove(0);
        }
        self.events.push(Event {
            time: Timestamp::now(),
            source_type,
            source: id.to_owned(),
            arn,
            category,
            message,
        });
    }
}

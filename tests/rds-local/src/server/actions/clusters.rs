//! DB clusters: one server that all members lead to. `CreateDBCluster`, `RestoreDBClusterFromSnapshot`,
//! `ModifyDBCluster`, `DeleteDBCluster`, and members of Aurora clusters through `CreateDBInstance`.
//!
//! An Aurora cluster accepts connections while it has a member; members of a Multi-AZ DB cluster come and go with it.
//! Nothing is replicated inside a cluster. What fails over, stops and starts it is in `cluster_life`.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::create::{
    Birth, check_groups, check_master, check_retention, choose_version, group_name, keep_password,
    new_password, secret_content,
};
use super::lifecycle::Task;
use super::modify::carry_out;
use super::snapshots::{self, Shot};
use super::{Call, keys, machine};
use crate::host::MasterUser;
use crate::server::cloud::{Cloud, Config, blocking};
use crate::server::engine::{self, Engine};
use crate::server::fault::{Answer, Fault};
use crate::server::faults::Outcome;
use crate::server::ids;
use crate::server::model::{
    Cluster, Instance, Kind, Machine, MasterSecret, Pending, Region, Scaling, Settings,
};
use crate::server::params::{Params, Tag};
use crate::server::render;
use crate::server::shelf::Shelf;

/// The class of members whose capacity follows the load.
const SERVERLESS: &str = "db.serverless";
/// Members of a Multi-AZ DB cluster: a writer and two readers.
const MULTI_AZ_MEMBERS: usize = 3;
/// Smallest storage of a Multi-AZ DB cluster here, in GiB.
const SMALLEST_STORAGE: u32 = 20;

/// Creates a cluster. An Aurora cluster has no members yet.
pub(super) async fn create(call: &Call) -> Answer {
    let params = &call.params;
    let id = ids::instance("DBClusterIdentifier", params.required("DBClusterIdentifier")?)?;
    let engine = call.cloud.engine(params.required("Engine")?)?;
    let version = choose_version(&*engine, params.get("EngineVersion"))?;
    let master_username = params.required("MasterUsername")?.to_owned();
    check_master(&master_username)?;
    let managed = params.flag("ManageMasterUserPassword")?.unwrap_or(false);
    let password = match (managed, params.text("MasterUserPassword")) {
        (true, Some(_)) => {
            let message = "You can't specify MasterUserPassword when ManageMasterUserPassword is enabled.";
            return Err(Fault::combination(message));
        }
        (true, None) => new_password(),
        (false, Some(password)) => password,
        (false, None) => return Err(Fault::missing("MasterUserPassword")),
    };
    ids::password(&password)?;
    let kms_key = match (params.flag("StorageEncrypted")?.unwrap_or(false), params.get("KmsKeyId")) {
        (true, Some(key)) => Some(keys::resolve(call, key).await?),
        (true, None) => Some(keys::managed(call)),
        (false, Some(_)) => {
            return Err(Fault::combination("KmsKeyId is given, but StorageEncrypted is not enabled."));
        }
        (false, None) => None,
    };
    let database = params.text("DatabaseName").filter(|name| !name.is_empty());
    let settings = settings(call, engine.name(), version, master_username, database, kms_key)?;
    let scaling = scaling(params)?;
    admit(call, &id, &settings)?;
    let secret = if managed { Some(keep_password(call, &settings, &password).await?) } else { None };
    let master =
        MasterUser { name: settings.master_username.clone(), password, database: settings.database.clone() };
    let checksums = call.cloud.config().initdb_checksums;
    let tags = params.tags()?.unwrap_or_default();
    let fill =
        move |engine: &dyn Engine, version: &str, dir: &Path| engine.create(version, dir, checksums, master);
    insert(call, NewCluster { id, settings, tags, secret, scaling }, async move |engine, version, dir| {
        blocking(move || fill(&*engine, &version, &dir)).await
    })
}

/// Restores a cluster from a cluster snapshot. As on AWS an Aurora cluster comes without members.
pub(super) async fn restore(call: &Call) -> Answer {
    let params = &call.params;
    let id = ids::instance("DBClusterIdentifier", params.required("DBClusterIdentifier")?)?;
    let named = params.required("SnapshotIdentifier")?;
    let snapshot_id = snapshots::id_or_arn(call, Shelf::Clusters, named)?;
    let tags = params.tags()?.unwrap_or_default();
    let (source, dir, files) = call.cloud.region(&call.region, |region| {
        let snapshot =
            region.cluster_snapshots.get(&snapshot_id).ok_or_else(|| Shelf::Clusters.not_found(named))?;
        if snapshot.status != "available" {
            return Err(Shelf::Clusters.state(&snapshot.id, &snapshot.status, "restore from it"));
        }
        let mut settings = snapshot.settings.clone();
        settings.kms_key.clone_from(&snapshot.kms_key);
        Ok((settings, snapshot.dir.clone(), Arc::clone(&snapshot.files)))
    })?;
    let engine = params.required("Engine")?;
    if engine != source.engine {
        let message = format!("A snapshot of {} cannot be restored to {engine}.", source.engine);
        return Err(Fault::combination(message));
    }
    if let Some(version) = params.get("EngineVersion").filter(|version| *version != source.version) {
        let message = format!("A snapshot of {} cannot be restored as {version} here.", source.version);
        return Err(Fault::combination(message));
    }
    let kms_key = match params.get("KmsKeyId").filter(|key| !key.is_empty()) {
        Some(key) => Some(keys::resolve(call, key).await?),
        None => source.kms_key.clone(),
    };
    let mut settings =
        settings(call, engine, source.version, source.master_username, source.database, kms_key)?;
    if !engine::is_aurora(engine) {
        settings.allocated_storage = source.allocated_storage;
    }
    let scaling = scaling(params)?;
    admit(call, &id, &settings)?;
    // The files are held from here on: a snapshot that is deleted now goes away after the copy.
    let held = files.read_owned().await;
    let new = NewCluster { id, settings, tags, secret: None, scaling };
    insert(call, new, async move |engine, version, to| {
        let copied = blocking(move || engine.copy(&version, &dir, &to)).await;
        drop(held);
        copied
    })
}

/// The settings that a request names, over those that are given.
fn settings(
    call: &Call,
    engine: &str,
    version: String,
    master_username: String,
    database: Option<String>,
    kms_key: Option<String>,
) -> Result<Settings, Fault> {
    let params = &call.params;
    let aurora = engine::is_aurora(engine);
    let class = params.text("DBClusterInstanceClass").filter(|class| !class.is_empty());
    let storage = params.number("AllocatedStorage")?;
    let (class, storage) = match (aurora, class) {
        (true, Some(_)) => {
            return Err(Fault::combination("DBClusterInstanceClass is only for Multi-AZ DB clusters."));
        }
        (true, None) if storage.is_some() => {
            return Err(Fault::combination("AllocatedStorage is only for Multi-AZ DB clusters."));
        }
        // Aurora's storage grows by itself; RDS always says 1.
        (true, None) => (String::new(), 1),
        (false, None) => {
            let message = "DBClusterInstanceClass is required for a Multi-AZ DB cluster.";
            return Err(Fault::combination(message));
        }
        (false, Some(class)) if !ids::is_class(&class) => {
            return Err(Fault::value(format!("Invalid DB Instance class: {class}")));
        }
        (false, Some(class)) => (class, storage.unwrap_or(SMALLEST_STORAGE).max(SMALLEST_STORAGE)),
    };
    let retention = params.number("BackupRetentionPeriod")?.unwrap_or(1);
    check_retention(retention)?;
    if retention == 0 {
        return Err(Fault::value("Invalid backup retention period: 0. Must be between 1 and 35."));
    }
    let (zone, security_group) =
        call.cloud.region(&call.region, |region| (region.default_zone(), region.default_security_group()));
    let family = engine::family(engine, &version);
    let option_group = engine::option_group(engine, &version);
    Ok(Settings {
        engine: engine.to_owned(),
        version,
        class,
        master_username,
        database,
        allocated_storage: storage,
        max_allocated_storage: None,
        storage_type: params
            .text("StorageType")
            .unwrap_or_else(|| if aurora { "aurora" } else { "io1" }.to_owned()),
        iops: params.number("Iops")?,
        kms_key,
        option_group: params.text("OptionGroupName").unwrap_or(option_group),
        parameter_group: group_name(params.get("DBClusterParameterGroupName"))
            .unwrap_or(format!("default.{family}")),
        subnet_group: group_name(params.get("DBSubnetGroupName")).unwrap_or_else(|| "default".to_owned()),
        security_groups: params.list("VpcSecurityGroupIds").unwrap_or_else(|| vec![security_group]),
        zone,
        multi_az: !aurora,
        public: params.flag("PubliclyAccessible")?.unwrap_or(false),
        iam_authentication: params.flag("EnableIAMDatabaseAuthentication")?.unwrap_or(false),
        deletion_protection: params.flag("DeletionProtection")?.unwrap_or(false),
        copy_tags_to_snapshot: params.flag("CopyTagsToSnapshot")?.unwrap_or(false),
        auto_minor_upgrade: true,
        backup_retention: retention,
        backup_window: params.text("PreferredBackupWindow").unwrap_or_else(|| "03:00-03:30".to_owned()),
        maintenance_window: params
            .text("PreferredMaintenanceWindow")
            .unwrap_or_else(|| "sun:04:00-sun:04:30".to_owned()),
        ca: "rds-ca-rsa2048-g1".to_owned(),
        monitoring_interval: 0,
    })
}

/// `ServerlessV2ScalingConfiguration`: 0 to 256 capacity units in steps of a half, at least 1 at most.
fn scaling(params: &Params) -> Result<Option<Scaling>, Fault> {
    let read = |name: &str| {
        let full = format!("ServerlessV2ScalingConfiguration.{name}");
        let wrong =
            || Fault::value(format!("Serverless v2 {name} is not a capacity: 0 to 256 in steps of 0.5"));
        let fits = |units: &f64| (0.0..=256.0).contains(units) && (units * 2.0).fract() == 0.0;
        params.get(&full).map(|text| text.parse::<f64>().ok().filter(fits).ok_or_else(wrong)).transpose()
    };
    match (read("MinCapacity")?, read("MaxCapacity")?) {
        (Some(least), Some(most)) if least <= most && most >= 1.0 => Ok(Some(Scaling { least, most })),
        (None, None) => Ok(None),
        _ => Err(Fault::value("Serverless v2 capacity needs a minimum and a maximum that is not below it.")),
    }
}

/// Refuses a name that is taken, groups that are not there, and a cluster or its members too many.
fn admit(call: &Call, id: &str, settings: &Settings) -> Result<(), Fault> {
    let config = call.cloud.config();
    call.cloud.region(&call.region, |region| room_for(region, id, settings, &config))
}

fn room_for(region: &Region, id: &str, settings: &Settings, config: &Config) -> Result<(), Fault> {
    if region.clusters.contains_key(id) {
        return Err(Fault::cluster_exists());
    }
    // The groups of clusters are of another kind: looked up where instances' are, but in their own list.
    check_groups(region, settings, true)?;
    if region.clusters.len() >= config.cluster_quota {
        return Err(Fault::cluster_quota());
    }
    let members = if engine::is_aurora(&settings.engine) { 0 } else { MULTI_AZ_MEMBERS };
    if region.instances.len() + members > config.instance_quota {
        return Err(Fault::instance_quota());
    }
    if member_names(id, members).iter().any(|name| region.instances.contains_key(name)) {
        return Err(Fault::instance_exists());
    }
    Ok(())
}

fn member_names(id: &str, number: usize) -> Vec<String> {
    (1..=number).map(|number| format!("{id}-instance-{number}")).collect()
}

/// A cluster that is about to come into being.
struct NewCluster {
    id: String,
    settings: Settings,
    tags: Vec<Tag>,
    secret: Option<MasterSecret>,
    scaling: Option<Scaling>,
}

/// Puts the cluster into its Region as `creating`, with its members where they are RDS's, and leaves the work to a
/// task. Answers with the cluster as it is now.
fn insert<F, W>(call: &Call, new: NewCluster, fill: F) -> Answer
where
    F: FnOnce(Arc<dyn Engine>, String, std::path::PathBuf) -> W + Send + 'static,
    W: Future<Output = Result<(), String>> + Send,
{
    let engine = call.cloud.engine(&new.settings.engine)?;
    let resource_id = ids::cluster_resource_id();
    let dir = call.cloud.place(&call.region, "clusters", &resource_id);
    let config = call.cloud.config();
    let machine: Arc<tokio::sync::Mutex<Machine>> = Arc::default();
    let mut cluster = Cluster {
        core: Instance {
            id: new.id.clone(),
            resource_id: resource_id.clone(),
            status: "creating".to_owned(),
            epoch: 0,
            settings: new.settings.clone(),
            pending: Pending::default(),
            standby_zone: None,
            restarts: None,
            cluster: None,
            secret: new.secret,
            tags: new.tags,
            created: None,
            port: None,
            dir: dir.clone(),
            machine: Arc::clone(&machine),
        },
        members: Vec::new(),
        scaling: new.scaling,
    };
    let aurora = cluster.is_aurora();
    let answer = call.cloud.region(&call.region, |region| {
        room_for(region, &new.id, &new.settings, &config)?;
        if !aurora {
            cluster.members = member_names(&new.id, MULTI_AZ_MEMBERS);
            let zones = region.zones(&new.settings.subnet_group);
            for (name, zone) in cluster.members.iter().zip(zones.into_iter().cycle()) {
                let settings = Settings { zone, multi_az: false, ..new.settings.clone() };
                region.instances.insert(name.clone(), member_of(&cluster.core, name, settings));
            }
        }
        let answer = render::cluster_result(region, &cluster);
        region.clusters.insert(new.id.clone(), cluster);
        Ok(answer)
    })?;
    if call.outcome == Some(Outcome::NeverAvailable) {
        return Ok(answer);
    }
    let birth = Birth {
        cloud: Arc::clone(&call.cloud),
        region: call.region.clone(),
        resource_id,
        machine,
        settings: new.settings.clone(),
        dir,
        opens: !aurora,
        begun: Instant::now(),
    };
    if call.outcome == Some(Outcome::IncompatibleNetwork) {
        tokio::spawn(birth.end_in("incompatible-network"));
        return Ok(answer);
    }
    let (cloud, region, id) = (Arc::clone(&call.cloud), call.region.clone(), new.id);
    tokio::spawn(async move {
        let filled = async move |dir| fill(engine, new.settings.version, dir).await;
        birth.run(filled).await;
        for name in member_names(&id, if aurora { 0 } else { MULTI_AZ_MEMBERS }) {
            join(&cloud, &region, &id, &name).await;
        }
    });
    Ok(answer)
}

/// A member that is `creating`. Its own machine gets an endpoint and no server.
fn member_of(cluster: &Instance, name: &str, settings: Settings) -> Instance {
    Instance {
        id: name.to_owned(),
        resource_id: ids::resource_id(),
        status: "creating".to_owned(),
        epoch: 0,
        settings,
        pending: Pending::default(),
        standby_zone: None,
        restarts: None,
        cluster: Some(cluster.id.clone()),
        secret: None,
        tags: Vec::new(),
        created: None,
        port: None,
        dir: cluster.dir.join("no-files-of-its-own").join(name),
        machine: Arc::default(),
    }
}

/// `CreateDBInstance` with `DBClusterIdentifier`: another member of an Aurora cluster.
pub(super) fn create_member(call: &Call, cluster_id: &str) -> Answer {
    let params = &call.params;
    let id = ids::instance("DBInstanceIdentifier", params.required("DBInstanceIdentifier")?)?;
    let class = params.required("DBInstanceClass")?.to_owned();
    if !ids::is_class(&class) {
        return Err(Fault::value(format!("Invalid DB Instance class: {class}")));
    }
    let engine = params.required("Engine")?;
    let tags = params.tags()?.unwrap_or_default();
    for of_the_cluster in ["MasterUsername", "MasterUserPassword", "AllocatedStorage", "KmsKeyId"] {
        if params.get(of_the_cluster).is_some() {
            return Err(Fault::combination(format!(
                "The requested DB Instance will be a member of a DB Cluster. Set {of_the_cluster} for the DB Cluster."
            )));
        }
    }
    let cluster_id = cluster_id.to_ascii_lowercase();
    let quota = call.cloud.config().instance_quota;
    let public = params.flag("PubliclyAccessible")?.unwrap_or(false);
    let answer = call.cloud.region(&call.region, |region| {
        let cluster = region.clusters.get(&cluster_id).ok_or_else(|| Fault::cluster_not_found(&cluster_id))?;
        if !cluster.is_aurora() {
            return Err(Fault::combination("The members of a Multi-AZ DB cluster are made by RDS."));
        }
        if engine != cluster.core.settings.engine {
            let message = format!("The engine of the cluster is {}.", cluster.core.settings.engine);
            return Err(Fault::combination(message));
        }
        if cluster.core.status != "available" {
            return Err(Fault::cluster_state(&cluster_id, &cluster.core.status, "create a member"));
        }
        if class == SERVERLESS && cluster.scaling.is_none() {
            let message = "Set the Serverless v2 scaling configuration on the parent DB cluster before creating a \
                           Serverless v2 DB instance.";
            return Err(Fault::new("InvalidDBClusterStateFault", 400, message));
        }
        if region.instances.contains_key(&id) {
            return Err(Fault::instance_exists());
        }
        if region.instances.len() >= quota {
            return Err(Fault::instance_quota());
        }
        let family = engine::family(engine, &cluster.core.settings.version);
        let number = cluster.members.len();
        let zone = region.zones(&cluster.core.settings.subnet_group).into_iter().cycle().nth(number);
        let settings = Settings {
            class,
            zone: params
                .text("AvailabilityZone")
                .or(zone)
                .unwrap_or_else(|| cluster.core.settings.zone.clone()),
            public,
            deletion_protection: false,
            auto_minor_upgrade: params.flag("AutoMinorVersionUpgrade")?.unwrap_or(true),
            parameter_group: group_name(params.get("DBParameterGroupName"))
                .unwrap_or(format!("default.{family}")),
            ..cluster.core.settings.clone()
        };
        check_groups(region, &settings, false)?;
        let mut member = member_of(&cluster.core, &id, settings);
        member.tags = tags;
        let answer = render::instance_result(region, &member);
        region.instances.insert(id.clone(), member);
        if let Some(cluster) = region.clusters.get_mut(&cluster_id) {
            cluster.members.push(id.clone());
        }
        Ok(answer)
    })?;
    if call.outcome == Some(Outcome::NeverAvailable) {
        return Ok(answer);
    }
    let (cloud, region, begun) = (Arc::clone(&call.cloud), call.region.clone(), Instant::now());
    let broken = call.outcome == Some(Outcome::IncompatibleNetwork);
    tokio::spawn(async move {
        cloud.wait_for(begun, 100, Config::status_time).await;
        if broken {
            cloud.region(&region, |region| {
                if let Some(member) = region.instances.get_mut(&id) {
                    "incompatible-network".clone_into(&mut member.status);
                }
            });
            return;
        }
        join(&cloud, &region, &cluster_id, &id).await;
    });
    Ok(answer)
}

/// Opens the endpoints of a member, and of its cluster, which has one at least from now on.
async fn join(cloud: &Arc<Cloud>, region: &str, cluster_id: &str, id: &str) {
    let found = cloud.region(region, |region| {
        let cluster = region.clusters.get(cluster_id)?;
        let member = region.instances.get(id).filter(|member| member.status == "creating")?;
        Some((
            Arc::clone(&cluster.core.machine),
            cluster.core.status == "failed",
            Arc::clone(&member.machine),
            member.resource_id.clone(),
            member.epoch,
        ))
    });
    let Some((cluster_machine, failed, member_machine, resource_id, epoch)) = found else { return };
    let opened = async {
        if failed {
            return Err("its cluster failed".to_owned());
        }
        let mut cluster_machine = cluster_machine.lock().await;
        let backend = cluster_machine.backend.ok_or("its cluster has no server")?;
        let mut machine = member_machine.lock().await;
        if machine.condemned {
            return Err("it is being deleted".to_owned());
        }
        machine::open(&mut cluster_machine, backend).await?;
        machine::open(&mut machine, backend).await
    };
    let (status, category, message) = match opened.await {
        Ok(port) => {
            cloud.update_instance(region, &resource_id, epoch, |member| {
                member.port = Some(port);
                member.created = Some(Timestamp::now());
            });
            ("available", "creation", "DB instance created".to_owned())
        }
        Err(error) => ("failed", "failure", format!("DB instance could not be created: {error}")),
    };
    cloud.update_instance(region, &resource_id, epoch, |member| status.clone_into(&mut member.status));
    cloud.region(region, |region| region.resource_event(&resource_id, category, message));
}

/// Takes a member that is gone out of its cluster; the last one takes the cluster's connections with it.
pub(super) async fn leave(cloud: &Arc<Cloud>, region: &str, id: &str) {
    let left_alone = cloud.region(region, |region| {
        let cluster =
            region.clusters.values_mut().find(|cluster| cluster.members.iter().any(|one| one == id))?;
        cluster.members.retain(|member| member != id);
        cluster.members.is_empty().then(|| Arc::clone(&cluster.core.machine))
    });
    if let Some(machine) = left_alone
        && let Some(endpoint) = machine.lock().await.endpoint.as_mut()
    {
        endpoint.close();
    }
}

/// Changes settings at once, and really changes the master password.
pub(super) async fn modify(call: &Call) -> Answer {
    let params = &call.params;
    let id = params.required("DBClusterIdentifier")?.to_ascii_lowercase();
    let mut password = params.text("MasterUserPassword");
    if let Some(password) = &password {
        ids::password(password)?;
    }
    if params.flag("ManageMasterUserPassword")?.is_some() {
        return Err(Fault::combination(
            "ManageMasterUserPassword cannot be changed here: give it when creating.",
        ));
    }
    let rotate = params.flag("RotateMasterUserPassword")?.unwrap_or(false);
    let scaling = scaling(params)?;
    let retention = params.number("BackupRetentionPeriod")?;
    if let Some(days) = retention.filter(|days| !(1..=35).contains(days)) {
        let message = format!("Invalid backup retention period: {days}. Must be between 1 and 35.");
        return Err(Fault::value(message));
    }
    let secret = call.cloud.region(&call.region, |region| {
        let cluster = region.clusters.get(&id).ok_or_else(|| Fault::cluster_not_found(&id))?;
        if !matches!(cluster.core.status.as_str(), "available" | "backing-up") {
            return Err(Fault::cluster_state(&id, &cluster.core.status, "modify it"));
        }
        match (&cluster.core.secret, rotate) {
            (Some(secret), true) => {
                Ok(Some((secret.arn.clone(), cluster.core.settings.master_username.clone())))
            }
            (None, true) => Err(Fault::combination("The master password of this cluster is not managed.")),
            (Some(_), false) if password.is_some() => Err(Fault::combination(
                "You can't specify MasterUserPassword for a cluster with ManageMasterUserPassword enabled.",
            )),
            _ => Ok(None),
        }
    })?;
    if let (Some((arn, username)), Some(aws)) = (secret, &call.cloud.aws) {
        let new = new_password();
        aws.put_secret(&call.region, &arn, &secret_content(&username, &new)).await?;
        password = Some(new);
    }
    let protection = params.flag("DeletionProtection")?;
    let copy_tags = params.flag("CopyTagsToSnapshot")?;
    let iam = params.flag("EnableIAMDatabaseAuthentication")?;
    let changing = password.is_some();
    let (answer, task) = begin(call, &id, "available", |cluster| {
        cluster.scaling = scaling.or(cluster.scaling);
        cluster.core.pending.password |= changing;
        let settings = &mut cluster.core.settings;
        settings.deletion_protection = protection.unwrap_or(settings.deletion_protection);
        settings.copy_tags_to_snapshot = copy_tags.unwrap_or(settings.copy_tags_to_snapshot);
        settings.iam_authentication = iam.unwrap_or(settings.iam_authentication);
        settings.backup_retention = retention.unwrap_or(settings.backup_retention);
        if let Some(groups) = params.list("VpcSecurityGroupIds") {
            settings.security_groups = groups;
        }
        Ok(())
    })?;
    if changing {
        // As on AWS the cluster still says `available` for a moment, with the change shown as pending.
        tokio::spawn(carry_out(task, password, false));
    }
    Ok(answer)
}

/// Deletes a cluster: an Aurora cluster only once no member is left that is not being deleted itself; a Multi-AZ
/// cluster with its members.
pub(super) fn delete(call: &Call) -> Answer {
    let params = &call.params;
    let id = params.required("DBClusterIdentifier")?.to_ascii_lowercase();
    let keep = !params.flag("DeleteAutomatedBackups")?.unwrap_or(true);
    let skip = params.flag("SkipFinalSnapshot")?.unwrap_or(false);
    let last = params.get("FinalDBSnapshotIdentifier").filter(|text| !text.is_empty());
    let last = last.map(|text| ids::instance("FinalDBSnapshotIdentifier", text)).transpose()?;
    let members = call.cloud.region(&call.region, |region| {
        let cluster = region.clusters.get(&id).ok_or_else(|| Fault::cluster_not_found(&id))?;
        if cluster.core.status == "deleting" {
            return Err(Fault::cluster_state(&id, "deleting", "delete it again"));
        }
        if cluster.core.settings.deletion_protection {
            return Err(Fault::combination(
                "Cannot delete protected Cluster, please disable deletion protection and try again.",
            ));
        }
        let stays =
            |name: &&String| region.instances.get(*name).is_some_and(|member| member.status != "deleting");
        if cluster.is_aurora() && cluster.members.iter().any(|name| stays(&name)) {
            let message = "Cluster cannot be deleted, it still contains DB instances in non-deleting state.";
            return Err(Fault::new("InvalidDBClusterStateFault", 400, message));
        }
        match (&last, skip) {
            (None, false) => Err(Fault::combination(
                "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.",
            )),
            (Some(_), true) => Err(Fault::combination(
                "FinalDBSnapshotIdentifier cannot be specified when SkipFinalSnapshot is enabled.",
            )),
            (Some(_), false) if cluster.core.status != "available" => {
                Err(Fault::cluster_state(&id, &cluster.core.status, "take a final snapshot"))
            }
            _ => Ok(if cluster.is_aurora() { Vec::new() } else { cluster.members.clone() }),
        }
    })?;
    let shot: Option<Shot> = match &last {
        Some(last) => {
            let (shot, _) =
                snapshots::reserve(call, (Shelf::Clusters, Kind::Manual), last, &id, None, |_| Ok(()))?;
            Some(shot)
        }
        None => None,
    };
    for name in members {
        if let Ok((_, task)) = super::lifecycle::begin(call, &name, "deleting", |_| Ok(())) {
            tokio::spawn(task.delete(None, None, true));
        }
    }
    let (answer, task) = begin(call, &id, "deleting", |_| Ok(()))?;
    let secret = call.cloud.region(&call.region, |region| {
        region.clusters.get(&id).and_then(|cluster| cluster.core.secret.as_ref().map(|one| one.arn.clone()))
    });
    tokio::spawn(task.delete(shot, secret, keep));
    Ok(answer)
}

/// Changes a cluster and sets its status, overtaking what was under way. Returns the cluster as an answer and the
/// task to go on with.
fn begin(
    call: &Call,
    id: &str,
    status: &str,
    change: impl FnOnce(&mut Cluster) -> Result<(), Fault>,
) -> Result<(String, Task), Fault> {
    call.cloud.region(&call.region, |region| {
        let cluster = region.clusters.get_mut(id).ok_or_else(|| Fault::cluster_not_found(id))?;
        change(cluster)?;
        cluster.core.epoch += 1;
        cluster.core.set_status(status);
        let task = Task::on(call, &cluster.core);
        let cluster = region.clusters.get(id).ok_or_else(|| Fault::cluster_not_found(id))?;
        Ok((render::cluster_result(region, cluster), task))
    })
}

//! A small AWS with state: instances, clusters, snapshots, keys and secrets, which a test looks at and changes between calls.
//!
//! It answers what the functions call, in the form of the wire, and nothing happens in it by itself: a status changes
//! when the test changes it. How RDS behaves over time is the local RDS's task, in the end-to-end tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::{Reply, Sent, Wire, rds_answer, xml_members, xml_tags};

/// An instance or a snapshot: its members as in the XML, and its tags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// Members by their name on the wire; an empty value is left out.
    pub members: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// XML put in beside the members.
    pub raw: String,
}

impl Resource {
    /// A resource with these members.
    pub fn new(members: &[(&str, &str)]) -> Self {
        let members = members.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { members, ..Self::default() }
    }

    /// One member; empty when it is absent.
    pub fn member(&self, name: &str) -> &str {
        self.members.get(name).map_or("", String::as_str)
    }

    /// Sets a member.
    pub fn set(&mut self, name: &str, value: &str) {
        self.members.insert(name.to_owned(), value.to_owned());
    }

    fn xml(&self, element: &str) -> String {
        let members: Vec<(&str, &str)> =
            self.members.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        format!("<{element}>{}{}{}</{element}>", xml_members(&members), self.raw, xml_tags(&self.tags))
    }
}

/// What there is, by Region and identifier.
#[derive(Default)]
pub struct State {
    /// DB instances.
    pub databases: BTreeMap<(String, String), Resource>,
    /// DB snapshots.
    pub snapshots: BTreeMap<(String, String), Resource>,
    /// DB clusters.
    pub clusters: BTreeMap<(String, String), Resource>,
    /// DB cluster snapshots.
    pub cluster_snapshots: BTreeMap<(String, String), Resource>,
    /// KMS keys by ARN: their state. Every alias means the first key of its Region.
    pub keys: BTreeMap<String, String>,
    /// Secrets by name: their content.
    pub secrets: BTreeMap<String, String>,
    /// Tags of secrets, by name.
    pub secret_tags: BTreeMap<String, BTreeMap<String, String>>,
    /// Quotas by Region and name: used and most.
    pub quotas: BTreeMap<(String, String), (i64, i64)>,
    /// Certificate authorities by Region and identifier: the end of their validity.
    pub certificates: BTreeMap<(String, String), String>,
    /// Newest values of metrics by Region, instance and metric.
    pub metrics: BTreeMap<[String; 3], f64>,
    /// Items of the state table, as DynamoDB writes them.
    pub items: BTreeMap<String, serde_json::Value>,
    /// Done to the table right before the next transaction: somebody else's write.
    pub in_between: Option<Interference>,
    /// What was published: topic, subject, text.
    pub published: Vec<[String; 3]>,
    /// Objects by key.
    pub objects: BTreeMap<String, String>,
    faults: VecDeque<Fault>,
}

/// Somebody else's write to the state table.
pub type Interference = Box<dyn FnOnce(&mut BTreeMap<String, serde_json::Value>) + Send>;

#[derive(Debug)]
struct Fault {
    action: String,
    reply: Reply,
    performs: bool,
}

impl State {
    /// The next call of `action` gets `reply` and does nothing.
    pub fn fail(&mut self, action: &str, reply: Reply) {
        self.faults.push_back(Fault { action: action.to_owned(), reply, performs: false });
    }

    /// The next call of `action` does what it says, but its answer is `reply`: an answer lost on the way.
    pub fn lose(&mut self, action: &str, reply: Reply) {
        self.faults.push_back(Fault { action: action.to_owned(), reply, performs: true });
    }
}

/// The shared handle on it.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<State>>);

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl World {
    /// What there is; hold it only between calls.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wire to it.
    pub fn wire(&self) -> Wire {
        let world = self.clone();
        Wire::new(move |sent| world.answer(sent))
    }

    /// The answer to one request, for a wire of the test's own.
    pub fn answer(&self, sent: &Sent) -> Reply {
        let mut state = self.state();
        let fault = state.faults.iter().position(|fault| fault.action == sent.action);
        let fault = fault.and_then(|at| state.faults.remove(at));
        match fault {
            Some(fault) if !fault.performs => fault.reply,
            Some(fault) => {
                perform(&mut state, sent);
                fault.reply
            }
            None => perform(&mut state, sent),
        }
    }
}

fn perform(state: &mut State, sent: &Sent) -> Reply {
    match sent.action.as_str() {
        "DescribeDBInstances" => {
            describe(&state.databases, sent, ("DBInstanceIdentifier", "DBInstance", "DBInstanceNotFound"))
        }
        "DescribeDBSnapshots" => {
            describe(&state.snapshots, sent, ("DBSnapshotIdentifier", "DBSnapshot", "DBSnapshotNotFound"))
        }
        "DescribeDBClusters" => {
            describe(&state.clusters, sent, ("DBClusterIdentifier", "DBCluster", "DBClusterNotFoundFault"))
        }
        "DescribeDBClusterSnapshots" => describe(
            &state.cluster_snapshots,
            sent,
            ("DBClusterSnapshotIdentifier", "DBClusterSnapshot", "DBClusterSnapshotNotFoundFault"),
        ),
        "CreateDBSnapshot" => create_snapshot(state, sent),
        "CreateDBClusterSnapshot" => create_cluster_snapshot(state, sent),
        "CopyDBSnapshot" => copy_snapshot(state, sent),
        "CopyDBClusterSnapshot" => copy_cluster_snapshot(state, sent),
        "DeleteDBSnapshot" => delete_snapshot(state, sent),
        "DeleteDBClusterSnapshot" => {
            match state.cluster_snapshots.remove(&key(sent, "DBClusterSnapshotIdentifier")) {
                Some(snapshot) => rds_answer(&sent.action, &snapshot.xml("DBClusterSnapshot")),
                None => Reply::query_error(404, "DBClusterSnapshotNotFoundFault", "gone"),
            }
        }
        "RestoreDBInstanceFromDBSnapshot" => restore(state, sent),
        "RestoreDBClusterFromSnapshot" => restore_cluster(state, sent),
        "CreateDBInstance" => create_member(state, sent),
        "ModifyDBCluster" => modify_cluster(state, sent),
        "DeleteDBCluster" => delete_cluster(state, sent),
        "ModifyDBInstance" => modify(state, sent),
        "DeleteDBInstance" => delete_database(state, sent),
        "AddTagsToResource" => add_tags(state, sent),
        "DescribeKey" => describe_key(state, sent),
        "GetSecretValue" => match state.secrets.get(text(sent, "SecretId").as_str()) {
            Some(content) => Reply::ok(json!({"SecretString": content}).to_string()),
            None => Reply::json_error("ResourceNotFoundException", "no such secret"),
        },
        "CreateSecret" => {
            let name = text(sent, "Name");
            if state.secrets.contains_key(&name) {
                return Reply::json_error("ResourceExistsException", "it exists");
            }
            state.secrets.insert(name, text(sent, "SecretString"));
            Reply::ok("{}")
        }
        "DeleteSecret" => match state.secrets.remove(text(sent, "SecretId").as_str()) {
            Some(_) => Reply::ok("{}"),
            None => Reply::json_error("ResourceNotFoundException", "no such secret"),
        },
        action => {
            let unknown = || Reply::query_error(400, "InvalidAction", action);
            super::records::perform(state, sent).unwrap_or_else(unknown)
        }
    }
}

fn text(sent: &Sent, member: &str) -> String {
    sent.json()[member].as_str().unwrap_or_default().to_owned()
}

fn key(sent: &Sent, parameter: &str) -> (String, String) {
    (sent.region().to_owned(), sent.parameter(parameter))
}

fn describe(
    all: &BTreeMap<(String, String), Resource>,
    sent: &Sent,
    (parameter, element, missing): (&str, &str, &str),
) -> Reply {
    let asked = sent.parameter(parameter);
    let found: Vec<String> = all
        .iter()
        .filter(|((region, id), _)| region == sent.region() && (asked.is_empty() || *id == asked))
        .map(|(_, resource)| resource.xml(element))
        .collect();
    if found.is_empty() && !asked.is_empty() {
        return Reply::query_error(404, missing, &asked);
    }
    rds_answer(&sent.action, &format!("<{element}s>{}</{element}s>", found.concat()))
}

fn create_snapshot(state: &mut State, sent: &Sent) -> Reply {
    let at = key(sent, "DBSnapshotIdentifier");
    let database = sent.parameter("DBInstanceIdentifier");
    if state.snapshots.contains_key(&at) {
        return Reply::query_error(400, "DBSnapshotAlreadyExists", &at.1);
    }
    if !state.databases.contains_key(&(at.0.clone(), database.clone())) {
        return Reply::query_error(404, "DBInstanceNotFound", &database);
    }
    let arn = format!("arn:aws:rds:{}:000000000000:snapshot:{}", at.0, at.1);
    let mut snapshot = Resource::new(&[
        ("DBSnapshotIdentifier", &at.1),
        ("DBSnapshotArn", &arn),
        ("DBInstanceIdentifier", &database),
        ("Status", "creating"),
        ("SnapshotType", "manual"),
    ]);
    snapshot.tags = sent.tags();
    let answer = rds_answer(&sent.action, &snapshot.xml("DBSnapshot"));
    state.snapshots.insert(at, snapshot);
    answer
}

fn create_cluster_snapshot(state: &mut State, sent: &Sent) -> Reply {
    let at = key(sent, "DBClusterSnapshotIdentifier");
    let cluster = sent.parameter("DBClusterIdentifier");
    if state.cluster_snapshots.contains_key(&at) {
        return Reply::query_error(400, "DBClusterSnapshotAlreadyExistsFault", &at.1);
    }
    if !state.clusters.contains_key(&(at.0.clone(), cluster.clone())) {
        return Reply::query_error(404, "DBClusterNotFoundFault", &cluster);
    }
    let arn = format!("arn:aws:rds:{}:000000000000:cluster-snapshot:{}", at.0, at.1);
    let mut snapshot = Resource::new(&[
        ("DBClusterSnapshotIdentifier", &at.1),
        ("DBClusterSnapshotArn", &arn),
        ("DBClusterIdentifier", &cluster),
        ("Status", "creating"),
        ("SnapshotType", "manual"),
    ]);
    snapshot.tags = sent.tags();
    let answer = rds_answer(&sent.action, &snapshot.xml("DBClusterSnapshot"));
    state.cluster_snapshots.insert(at, snapshot);
    answer
}

fn copy_cluster_snapshot(state: &mut State, sent: &Sent) -> Reply {
    let source = sent.parameter("SourceDBClusterSnapshotIdentifier");
    let at = key(sent, "TargetDBClusterSnapshotIdentifier");
    if state.cluster_snapshots.contains_key(&at) {
        return Reply::query_error(400, "DBClusterSnapshotAlreadyExistsFault", &at.1);
    }
    let original =
        state.cluster_snapshots.values().find(|seen| seen.member("DBClusterSnapshotArn") == source).cloned();
    let Some(mut copy) = original else {
        return Reply::query_error(404, "DBClusterSnapshotNotFoundFault", &source);
    };
    if copy.member("StorageEncrypted") != "true" {
        return Reply::query_error(400, "InvalidParameterCombination", "KmsKeyId with an unencrypted source");
    }
    copy.set("DBClusterSnapshotIdentifier", &at.1);
    copy.set("DBClusterSnapshotArn", &format!("arn:aws:rds:{}:000000000000:cluster-snapshot:{}", at.0, at.1));
    copy.set("Status", "copying");
    copy.set("KmsKeyId", &sent.parameter("KmsKeyId"));
    copy.set("SnapshotCreateTime", "2026-01-02T04:09:00Z");
    copy.set("SourceDBClusterSnapshotArn", &source);
    copy.tags = sent.tags();
    let answer = rds_answer(&sent.action, &copy.xml("DBClusterSnapshot"));
    state.cluster_snapshots.insert(at, copy);
    answer
}

fn restore_cluster(state: &mut State, sent: &Sent) -> Reply {
    let at = key(sent, "DBClusterIdentifier");
    if state.clusters.contains_key(&at) {
        return Reply::query_error(400, "DBClusterAlreadyExistsFault", &at.1);
    }
    let arn = format!("arn:aws:rds:{}:000000000000:cluster:{}", at.0, at.1);
    let mut cluster = Resource::new(&[
        ("DBClusterIdentifier", &at.1),
        ("DBClusterArn", &arn),
        ("Status", "creating"),
        ("Engine", &sent.parameter("Engine")),
    ]);
    cluster.tags = sent.tags();
    let answer = rds_answer(&sent.action, &cluster.xml("DBCluster"));
    state.clusters.insert(at, cluster);
    answer
}

fn create_member(state: &mut State, sent: &Sent) -> Reply {
    let at = key(sent, "DBInstanceIdentifier");
    let cluster = key(sent, "DBClusterIdentifier");
    match state.clusters.get(&cluster) {
        None => return Reply::query_error(404, "DBClusterNotFoundFault", &cluster.1),
        Some(found) if found.member("Status") != "available" => {
            return Reply::query_error(400, "InvalidDBClusterStateFault", "not now");
        }
        Some(_) => {}
    }
    let made = restore(state, sent);
    if let Some(member) = state.databases.get_mut(&at) {
        member.set("DBClusterIdentifier", &cluster.1);
    }
    made
}

fn modify_cluster(state: &mut State, sent: &Sent) -> Reply {
    let Some(cluster) = state.clusters.get_mut(&key(sent, "DBClusterIdentifier")) else {
        return Reply::query_error(404, "DBClusterNotFoundFault", "gone");
    };
    if cluster.member("Status") != "available" {
        return Reply::query_error(400, "InvalidDBClusterStateFault", "not now");
    }
    cluster.raw.push_str(
        "<PendingModifiedValues><MasterUserPassword>****</MasterUserPassword></PendingModifiedValues>",
    );
    rds_answer(&sent.action, &cluster.xml("DBCluster"))
}

fn delete_cluster(state: &mut State, sent: &Sent) -> Reply {
    let at = key(sent, "DBClusterIdentifier");
    let has_members = state.databases.iter().any(|((region, _), member)| {
        *region == at.0
            && member.member("DBClusterIdentifier") == at.1
            && member.member("DBInstanceStatus") != "deleting"
    });
    let Some(cluster) = state.clusters.get_mut(&at) else {
        return Reply::query_error(404, "DBClusterNotFoundFault", "gone");
    };
    if has_members || matches!(cluster.member("Status"), "creating" | "deleting") {
        return Reply::query_error(400, "InvalidDBClusterStateFault", "not now");
    }
    cluster.set("Status", "deleting");
    rds_answer(&sent.action, &cluster.xml("DBCluster"))
}

fn copy_snapshot(state: &mut State, sent: &Sent) -> Reply {
    let source = sent.parameter("SourceDBSnapshotIdentifier");
    let at = key(sent, "TargetDBSnapshotIdentifier");
    if state.snapshots.contains_key(&at) {
        return Reply::query_error(400, "DBSnapshotAlreadyExists", &at.1);
    }
    let original = state.snapshots.values().find(|seen| seen.member("DBSnapshotArn") == source).cloned();
    let Some(mut copy) = original else {
        return Reply::query_error(404, "DBSnapshotNotFound", &source);
    };
    let arn = format!("arn:aws:rds:{}:000000000000:snapshot:{}", at.0, at.1);
    copy.set("DBSnapshotIdentifier", &at.1);
    copy.set("DBSnapshotArn", &arn);
    copy.set("Status", "creating");
    copy.set("Encrypted", "true");
    copy.set("KmsKeyId", &sent.parameter("KmsKeyId"));
    copy.set("SourceDBSnapshotIdentifier", &source);
    copy.tags = sent.tags();
    let answer = rds_answer(&sent.action, &copy.xml("DBSnapshot"));
    state.snapshots.insert(at, copy);
    answer
}

fn delete_snapshot(state: &mut State, sent: &Sent) -> Reply {
    match state.snapshots.remove(&key(sent, "DBSnapshotIdentifier")) {
        Some(snapshot) => rds_answer(&sent.action, &snapshot.xml("DBSnapshot")),
        None => Reply::query_error(404, "DBSnapshotNotFound", "gone"),
    }
}

fn restore(state: &mut State, sent: &Sent) -> Reply {
    let at = key(sent, "DBInstanceIdentifier");
    if state.databases.contains_key(&at) {
        return Reply::query_error(400, "DBInstanceAlreadyExists", &at.1);
    }
    let arn = format!("arn:aws:rds:{}:000000000000:db:{}", at.0, at.1);
    let mut instance = Resource::new(&[
        ("DBInstanceIdentifier", &at.1),
        ("DBInstanceArn", &arn),
        ("DBInstanceStatus", "creating"),
        ("Engine", "postgres"),
    ]);
    instance.tags = sent.tags();
    let answer = rds_answer(&sent.action, &instance.xml("DBInstance"));
    state.databases.insert(at, instance);
    answer
}

fn modify(state: &mut State, sent: &Sent) -> Reply {
    let Some(instance) = state.databases.get_mut(&key(sent, "DBInstanceIdentifier")) else {
        return Reply::query_error(404, "DBInstanceNotFound", "gone");
    };
    if instance.member("DBInstanceStatus") != "available" {
        return Reply::query_error(400, "InvalidDBInstanceState", "not now");
    }
    instance.raw.push_str(
        "<PendingModifiedValues><MasterUserPassword>****</MasterUserPassword></PendingModifiedValues>",
    );
    rds_answer(&sent.action, &instance.xml("DBInstance"))
}

fn delete_database(state: &mut State, sent: &Sent) -> Reply {
    let Some(instance) = state.databases.get_mut(&key(sent, "DBInstanceIdentifier")) else {
        return Reply::query_error(404, "DBInstanceNotFound", "gone");
    };
    if matches!(instance.member("DBInstanceStatus"), "creating" | "deleting") {
        return Reply::query_error(400, "InvalidDBInstanceState", "not now");
    }
    instance.set("DBInstanceStatus", "deleting");
    rds_answer(&sent.action, &instance.xml("DBInstance"))
}

fn add_tags(state: &mut State, sent: &Sent) -> Reply {
    let arn = sent.parameter("ResourceName");
    let arns = ["DBInstanceArn", "DBSnapshotArn", "DBClusterArn", "DBClusterSnapshotArn"];
    let found = state
        .databases
        .values_mut()
        .chain(state.snapshots.values_mut())
        .chain(state.clusters.values_mut())
        .chain(state.cluster_snapshots.values_mut())
        .find(|seen| arns.iter().any(|member| seen.member(member) == arn));
    let Some(resource) = found else {
        return Reply::query_error(404, "DBSnapshotNotFound", &arn);
    };
    resource.tags.extend(sent.tags());
    Reply::ok("<AddTagsToResourceResponse/>")
}

fn describe_key(state: &State, sent: &Sent) -> Reply {
    let asked = text(sent, "KeyId");
    let region = format!(":{}:", sent.region());
    let found = state
        .keys
        .iter()
        .find(|(arn, _)| arn.contains(&region) && (asked.starts_with("alias/") || **arn == asked));
    match found {
        Some((arn, key_state)) => Reply::ok(
            json!({"KeyMetadata": {
                "KeyId": "1", "Arn": arn, "KeyState": key_state, "KeyUsage": "ENCRYPT_DECRYPT",
                "KeySpec": "SYMMETRIC_DEFAULT", "KeyManager": "CUSTOMER", "Enabled": key_state == "Enabled",
                "DeletionDate": (key_state == "PendingDeletion").then_some(1_800_000_000)
            }})
            .to_string(),
        ),
        None => Reply::json_error("NotFoundException", "no such key"),
    }
}

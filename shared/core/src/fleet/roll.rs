//! Whom a run backs up, and whom it leaves out and why.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::error::{DrError, ErrorName, Result};
use crate::ids::{DatabaseId, OperationId, hex};
use crate::labels::{self, Role};
use crate::observed::{DatabaseFacts, DatabaseKind};
use crate::request::Selector;

/// What a fleet is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Coverage {
    /// The databases, by name.
    #[serde(default)]
    pub databases: Option<Vec<DatabaseId>>,
    /// The databases that carry a tag.
    #[serde(default)]
    pub selector: Option<Selector>,
}

impl Coverage {
    /// Whether the fleet means this database.
    pub fn covers(&self, facts: &DatabaseFacts) -> bool {
        let listed = self.databases.as_ref().is_some_and(|list| list.contains(&facts.id));
        let tagged = self
            .selector
            .as_ref()
            .is_some_and(|selector| labels::has(&facts.tags, &selector.tag.key, &selector.tag.value));
        listed || tagged
    }
}

/// A database that the run backs up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The database.
    pub database: DatabaseId,
    /// An instance or a cluster.
    #[serde(default)]
    pub database_kind: DatabaseKind,
    /// What the names of its backup's executions begin with; a hyphen and the number of the attempt follow.
    pub execution: String,
}

/// Why a database that the fleet means is not backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum SkipReason {
    /// It is a temporary restore of ours.
    Temporary,
    /// It is a read replica: its source is backed up.
    ReadReplica,
    /// It is a member of a cluster that the fleet means too: members are backed up with their cluster.
    ClusterMember {
        /// The cluster.
        #[serde(default)]
        cluster: String,
    },
    /// It is a member of a cluster that the fleet does not mean, so that nothing backs it up.
    ClusterNotCovered {
        /// The cluster: what to list, or to tag, instead.
        cluster: String,
    },
    /// There are an instance and a cluster of this name, and one lock for both.
    Ambiguous,
    /// No snapshot is taken in this status, and it does not end by itself.
    NotAvailable {
        /// The status.
        status: String,
    },
    /// An engine that Lifeboat does not prove.
    EngineUnsupported {
        /// The engine.
        engine: String,
    },
    /// It is listed, and there is no such database.
    Missing,
}

impl SkipReason {
    /// Whether the database would be lost for want of a backup, so that a person should look.
    pub fn needs_attention(&self) -> bool {
        match self {
            Self::Temporary | Self::ReadReplica | Self::ClusterMember { .. } => false,
            Self::NotAvailable { .. }
            | Self::EngineUnsupported { .. }
            | Self::ClusterNotCovered { .. }
            | Self::Ambiguous
            | Self::Missing => true,
        }
    }
}

/// A database that the fleet means and the run leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// The database.
    pub database: DatabaseId,
    /// Why.
    #[serde(flatten)]
    pub reason: SkipReason,
}

/// Whom a run backs up and whom it leaves out, each in the order of the names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Roll {
    /// Backed up.
    pub members: Vec<Member>,
    /// Left out.
    pub skipped: Vec<Skipped>,
}

/// Statuses that last until somebody does something (RDS User Guide, "Viewing Amazon RDS DB instance status"; Aurora
/// User Guide, "Viewing DB cluster status"). In all
/// others, those that we do not know among them, the backup itself waits for the database or names what is wrong.
const LASTING: &[&str] = &[
    "stopped",
    "stopping",
    "failed",
    "deleting",
    "creating",
    "cloning-failed",
    "migration-failed",
    "restore-error",
    "insufficient-capacity",
    "inaccessible-encryption-credentials",
    "inaccessible-encryption-credentials-recoverable",
];

/// Why a database is left out; `None` for one that is backed up.
pub fn skip_reason(facts: &DatabaseFacts) -> Option<SkipReason> {
    if labels::has(&facts.tags, labels::ROLE, Role::Temporary.as_str()) {
        return Some(SkipReason::Temporary);
    }
    if let Some(cluster) = &facts.cluster {
        return Some(SkipReason::ClusterMember { cluster: cluster.clone() });
    }
    if facts.replica_of.is_some() {
        return Some(SkipReason::ReadReplica);
    }
    if Engine::of_name(&facts.engine).is_none() {
        return Some(SkipReason::EngineUnsupported { engine: facts.engine.clone() });
    }
    let lasts = LASTING.contains(&facts.status.as_str()) || facts.status.starts_with("incompatible-");
    lasts.then(|| SkipReason::NotAvailable { status: facts.status.clone() })
}

/// Calls the roll of a run. The names of the backups' executions follow from the run and the database's ARN, so that
/// the same database has the same names in a run that is gone on with. Instances and clusters stand side by side; a
/// member of a cluster is never backed up by itself.
///
/// # Errors
/// [`ErrorName::FleetEmpty`] when nothing is left to back up: a schedule that covers nothing protects nothing.
pub fn call_roll(
    coverage: &Coverage,
    run: &OperationId,
    found: impl IntoIterator<Item = DatabaseFacts>,
) -> Result<Roll> {
    let mut members: BTreeMap<DatabaseId, Member> = BTreeMap::new();
    let mut skipped = BTreeMap::new();
    let mut clusters = BTreeSet::new();
    for facts in found.into_iter().filter(|facts| coverage.covers(facts)) {
        if facts.kind == DatabaseKind::Cluster {
            clusters.insert(facts.id.to_string());
        }
        match skip_reason(&facts) {
            // A member that has its cluster's name hides nothing.
            Some(SkipReason::ClusterMember { cluster }) if cluster == facts.id.as_str() => {}
            Some(reason) => {
                skipped.insert(facts.id.clone(), reason);
            }
            None if members.contains_key(&facts.id) => {
                skipped.insert(facts.id.clone(), SkipReason::Ambiguous);
            }
            None => {
                let execution = execution_name(run, &facts);
                let member = Member { database: facts.id.clone(), database_kind: facts.kind, execution };
                members.insert(facts.id.clone(), member);
            }
        }
    }
    for (database, reason) in &mut skipped {
        match reason {
            SkipReason::ClusterMember { cluster } if !clusters.contains(cluster) => {
                *reason = SkipReason::ClusterNotCovered { cluster: cluster.clone() };
            }
            SkipReason::Ambiguous => drop(members.remove(database)),
            _ => {}
        }
    }
    for listed in coverage.databases.iter().flatten() {
        if !members.contains_key(listed) && !skipped.contains_key(listed) {
            skipped.insert(listed.clone(), SkipReason::Missing);
        }
    }
    if members.is_empty() {
        let text =
            format!("listing the databases of a fleet: none is to be backed up, {} left out", skipped.len());
        return Err(DrError::new(ErrorName::FleetEmpty, text));
    }
    Ok(Roll {
        members: members.into_values().collect(),
        skipped: skipped.into_iter().map(|(database, reason)| Skipped { database, reason }).collect(),
    })
}

/// At most 67 of the 80 characters that an execution's name may have.
fn execution_name(run: &OperationId, facts: &DatabaseFacts) -> String {
    let short: String = facts.id.as_str().chars().take(40).collect();
    let digest = hex(&Sha256::digest(facts.arn.as_bytes()));
    format!("{}-{}-{}", run.digits(), short.trim_end_matches('-'), &digest[..8])
}

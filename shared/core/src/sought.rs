//! Which database, or which snapshot, a name means: an instance's or a cluster's.
//!
//! RDS keeps instances and clusters, and their snapshots, in name spaces of their own. A name is looked for in both,
//! unless the request says which one it means; a member of a cluster is not what is backed up, its cluster is.

use crate::error::{DrError, ErrorName, Result};
use crate::observed::{DatabaseFacts, DatabaseKind, Observed, SnapshotFacts};

/// What was seen under one name: `None` where nobody looked.
#[derive(Debug)]
pub struct Sight<T> {
    /// Among instances.
    pub instance: Option<Observed<T>>,
    /// Among clusters.
    pub cluster: Option<Observed<T>>,
}

impl<T> Sight<T> {
    fn into_options(self) -> Result<(Option<T>, Option<T>)> {
        let look = |seen: Option<Observed<T>>| seen.map_or(Ok(None), Observed::into_option);
        Ok((look(self.instance)?, look(self.cluster)?))
    }
}

/// The database that a name means, `None` when there is none. A member of a cluster of the same name steps back: it
/// cannot be meant. "I could not look" is an error, because the other one might be there too.
///
/// # Errors
/// [`ErrorName::DatabaseAmbiguous`], and the errors that kept us from looking.
pub fn database(name: &str, sight: Sight<DatabaseFacts>) -> Result<Option<DatabaseFacts>> {
    match sight.into_options()? {
        (Some(instance), Some(cluster)) if instance.cluster.as_deref() != Some(cluster.id.as_str()) => {
            Err(ambiguous(name, "an instance and a cluster", &instance.region.to_string()))
        }
        (_, Some(found)) | (Some(found), None) => Ok(Some(found)),
        (None, None) => Ok(None),
    }
}

/// The snapshot that a name means, `None` when there is none.
///
/// # Errors
/// [`ErrorName::DatabaseAmbiguous`], and the errors that kept us from looking.
pub fn snapshot(name: &str, sight: Sight<SnapshotFacts>) -> Result<Option<SnapshotFacts>> {
    match sight.into_options()? {
        (Some(one), Some(_)) => {
            Err(ambiguous(name, "a snapshot of an instance and one of a cluster", &one.region.to_string()))
        }
        (Some(found), None) | (None, Some(found)) => Ok(Some(found)),
        (None, None) => Ok(None),
    }
}

fn ambiguous(name: &str, what: &str, region: &str) -> DrError {
    let text = format!("looking for `{name}` in {region}: there are {what} of that name");
    DrError::new(ErrorName::DatabaseAmbiguous, text)
        .with_remedy("Say which one with `databaseKind`: `instance` or `cluster`.")
}

/// Out of everything that carries a tag, what a selector can mean: members whose cluster carries it too step back.
pub fn without_members(found: Vec<DatabaseFacts>) -> Vec<DatabaseFacts> {
    let clusters: Vec<String> = found
        .iter()
        .filter(|facts| facts.kind == DatabaseKind::Cluster)
        .map(|facts| facts.id.to_string())
        .collect();
    let stays = |facts: &DatabaseFacts| {
        facts.cluster.as_ref().is_none_or(|cluster| !clusters.iter().any(|seen| seen == cluster))
    };
    found.into_iter().filter(stays).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fixtures;

    fn member(of: &str) -> DatabaseFacts {
        let mut member = fixtures::database("orders", "available");
        member.cluster = Some(of.into());
        member
    }

    #[expect(clippy::unnecessary_wraps, reason = "what is put into a `Sight`")]
    fn found<T>(facts: T) -> Option<Observed<T>> {
        Some(Observed::Found(facts))
    }

    #[test]
    fn a_name_means_the_instance_or_the_cluster_that_has_it() {
        use DatabaseKind::{Cluster, Instance};
        let instance = || fixtures::database("orders", "available");
        let cluster = || fixtures::cluster("orders", "available");
        let missing = || Some(Observed::Missing);
        let lost = || Some(Observed::Unreachable(DrError::new(ErrorName::Throttled, "looking")));
        let cases = [
            (found(instance()), missing(), Ok(Some(Instance))),
            (missing(), found(cluster()), Ok(Some(Cluster))),
            (missing(), missing(), Ok(None)),
            (found(instance()), found(cluster()), Err(ErrorName::DatabaseAmbiguous)),
            (found(instance()), None, Ok(Some(Instance))),
            (None, found(cluster()), Ok(Some(Cluster))),
            // A member with its cluster's name; one of another cluster is still another database.
            (found(member("orders")), found(cluster()), Ok(Some(Cluster))),
            (found(member("other")), found(cluster()), Err(ErrorName::DatabaseAmbiguous)),
            (found(member("other")), missing(), Ok(Some(Instance))),
            (found(instance()), lost(), Err(ErrorName::Throttled)),
            (lost(), missing(), Err(ErrorName::Throttled)),
        ];
        for (number, (instance, cluster, expected)) in cases.into_iter().enumerate() {
            let meant = database("orders", Sight { instance, cluster });
            let seen = meant.map(|facts| facts.map(|facts| facts.kind)).map_err(|error| error.name());
            assert_eq!(seen, expected, "case {number}");
        }
    }

    #[test]
    fn a_snapshots_name_means_one_of_two_kinds() {
        let of_instance = || found(fixtures::snapshot("available"));
        let of_cluster = || found(fixtures::cluster_snapshot("available"));
        let cases = [
            (of_instance(), Some(Observed::Missing), Ok(Some(DatabaseKind::Instance))),
            (Some(Observed::Missing), of_cluster(), Ok(Some(DatabaseKind::Cluster))),
            (of_instance(), of_cluster(), Err(ErrorName::DatabaseAmbiguous)),
            (None, of_cluster(), Ok(Some(DatabaseKind::Cluster))),
            (Some(Observed::Missing), Some(Observed::Missing), Ok(None)),
        ];
        for (instance, cluster, expected) in cases {
            let meant = snapshot("orders-1", Sight { instance, cluster });
            let seen =
                meant.map(|facts| facts.map(|facts| facts.database_kind)).map_err(|error| error.name());
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_tag_on_a_cluster_and_its_members_means_the_cluster() {
        let kept = without_members(vec![
            member("shop"),
            fixtures::cluster("shop", "available"),
            fixtures::database("alone", "available"),
        ]);
        let names: Vec<&str> = kept.iter().map(|facts| facts.id.as_str()).collect();
        assert_eq!(names, ["shop", "alone"]);
        assert_eq!(without_members(vec![member("untagged")]).len(), 1);
    }
}

//! Looking: every list once for each Region, all Regions at the same time. A look that fails is kept as that.

use std::collections::{BTreeMap, BTreeSet};

use dr_aws::clients::Clients;
use dr_aws::measures::{Lag, Subject};
use dr_aws::state::{Index, StateTable};
use dr_core::Result;
use dr_core::control::EmergencyStop;
use dr_core::health::{
    Expected, HomeSeen, InstanceSeen, KeySeen, Measure, RegionSeen, Scope, SecretSeen, Seen, keys_that_matter,
};
use dr_core::ids::{KmsKeyId, Region};
use futures_util::future::join_all;
use jiff::Timestamp;

use crate::Config;

/// Names of temporary secrets begin so.
const TEMPORARY_SECRETS: &str = "lifeboat/tmp/";

pub(crate) async fn look(clients: &Clients, config: &Config, expected: &Expected, now: Timestamp) -> Seen {
    let regions: Vec<Region> = if let Scope::Region(region) = &expected.scope {
        vec![region.clone()]
    } else {
        let others = expected.targets.iter().filter(|region| **region != expected.home);
        std::iter::once(&expected.home).chain(others).cloned().collect()
    };
    let wants_home = expected.scope.is_wide() && regions.contains(&expected.home);
    let wide = expected.scope.is_wide();
    let looks = regions.iter().map(|region| Box::pin(look_at_region(clients, region, wide, now)));
    let (seen, home) = tokio::join!(join_all(looks), async {
        if wants_home { Some(Box::pin(look_at_home(clients, config)).await) } else { None }
    });
    let mut regions: BTreeMap<Region, RegionSeen> = regions.into_iter().zip(seen).collect();
    look_at_keys(clients, config, expected, &mut regions).await;
    Seen { regions, home }
}

async fn look_at_region(clients: &Clients, region: &Region, wide: bool, now: Timestamp) -> RegionSeen {
    let rds = clients.rds(region);
    let (databases, points, quotas, certificates) = tokio::join!(
        Box::pin(async {
            let (instances, clusters) = tokio::join!(rds.survey_instances(), rds.survey_clusters());
            let instances = both(instances, clusters);
            let measures = match &instances {
                Ok(instances) => measure(clients, region, instances, now).await,
                // Of nothing there is nothing to measure; the failed look is told by itself.
                Err(_) => Ok(BTreeMap::new()),
            };
            (instances, measures)
        }),
        Box::pin(async {
            let (points, of_clusters) = tokio::join!(rds.survey_points(), rds.survey_cluster_points());
            both(points, of_clusters)
        }),
        Box::pin(async { if wide { rds.quotas().await } else { Ok(Vec::new()) } }),
        Box::pin(rds.certificate_authorities()),
    );
    let (instances, measures) = databases;
    RegionSeen { instances, points, quotas, certificates, measures, keys: BTreeMap::new() }
}

/// Both lists; when one is not known, the whole is not.
fn both<T>(one: Result<Vec<T>>, other: Result<Vec<T>>) -> Result<Vec<T>> {
    let mut all = one?;
    all.extend(other?);
    Ok(all)
}

async fn measure(
    clients: &Clients,
    region: &Region,
    instances: &[InstanceSeen],
    now: Timestamp,
) -> Result<BTreeMap<String, Measure>> {
    let readers: BTreeSet<&str> =
        instances.iter().flat_map(|cluster| &cluster.readers).map(String::as_str).collect();
    let subjects: Vec<Subject> = instances
        .iter()
        .map(|instance| Subject {
            id: instance.id.clone(),
            // A cluster's own storage has other metrics.
            has_storage: instance.allocated_storage_gb > 0 && instance.cluster.is_none(),
            lag: match &instance.cluster {
                Some(_) if !readers.contains(instance.id.as_str()) => Lag::Nothing,
                Some(_) if instance.engine.starts_with("aurora") => Lag::AuroraReader,
                Some(_) => Lag::Replica,
                // A cluster that follows another has no instance's metrics.
                None if instance.replica_of.is_some() && instance.allocated_storage_gb > 0 => Lag::Replica,
                None => Lag::Nothing,
            },
        })
        .filter(|subject| subject.has_storage || subject.lag != Lag::Nothing)
        .collect();
    if subjects.is_empty() {
        return Ok(BTreeMap::new());
    }
    clients.measures(region).newest(&subjects, now).await
}

async fn look_at_home(clients: &Clients, config: &Config) -> HomeSeen {
    let table = StateTable::new(clients.dynamodb(), &config.table);
    let secrets = clients.secrets();
    let (locks, breakers, stop, secrets) = tokio::join!(
        Box::pin(table.list("lock", Index::Time)),
        Box::pin(table.list("breaker", Index::Status)),
        Box::pin(table.read(EmergencyStop::KEY)),
        Box::pin(secrets.list(TEMPORARY_SECRETS)),
    );
    let secrets =
        secrets.map(|found| found.into_iter().map(|(name, tags)| SecretSeen { name, tags }).collect());
    HomeSeen { locks, breakers, stop, secrets }
}

async fn look_at_keys(
    clients: &Clients,
    config: &Config,
    expected: &Expected,
    regions: &mut BTreeMap<Region, RegionSeen>,
) {
    let copies = config.target_keys.iter().map(|(region, key)| (region.clone(), key.clone(), "new copies"));
    let records = config.key.iter().map(|key| (expected.home.clone(), key.clone(), "Lifeboat's records"));
    let configured: Vec<(Region, KmsKeyId, &str)> = copies.chain(records).collect();
    let wanted = keys_that_matter(&expected.scope, regions, &configured);
    let all = wanted.into_iter().flat_map(|(region, keys)| {
        keys.into_iter().map(move |(key, purpose)| (region.clone(), key, purpose))
    });
    let looks = all.map(|(region, key, purpose)| {
        Box::pin(async move {
            let facts = clients.kms(&region).describe_key(&key).await;
            (region, key, KeySeen { purpose, facts })
        })
    });
    for (region, key, seen) in join_all(looks).await {
        if let Some(of_region) = regions.get_mut(&region) {
            of_region.keys.insert(key, seen);
        }
    }
}

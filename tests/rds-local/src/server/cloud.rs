//! The whole of it: Regions, engines, configuration, injected faults, and the helpers that actions share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::aws::Aws;
use super::engine::{Aurora, Engine, MariaDb, Postgres};
use super::fault::Fault;
use super::faults::Faults;
use super::hollow::Hollow;
use super::ids::{self, Arn};
use super::model::{Instance, Region, Snapshot};
use super::tls::Authority;

/// What can be changed while it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Config {
    /// Milliseconds that a status lasts at least.
    pub(super) status_ms: u64,
    /// Milliseconds that a copy of a snapshot lasts at least.
    pub(super) copy_ms: u64,
    /// Whether new instances get data checksums.
    pub(super) initdb_checksums: bool,
    /// Instances in a Region.
    pub(super) instance_quota: usize,
    /// Manual snapshots in a Region.
    pub(super) snapshot_quota: usize,
    /// Cross-Region copies of instance snapshots under way into a Region.
    pub(super) copy_slots: usize,
    /// Clusters in a Region.
    pub(super) cluster_quota: usize,
    /// Manual cluster snapshots in a Region.
    pub(super) cluster_snapshot_quota: usize,
    /// Cross-Region copies of cluster snapshots under way into a Region.
    pub(super) cluster_copy_slots: usize,
    /// Whether new instances have no server behind them.
    pub(super) hollow: bool,
    /// When the certificate authorities that `DescribeCertificates` lists end.
    pub(super) ca_valid_till: Timestamp,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            status_ms: 300,
            copy_ms: 800,
            initdb_checksums: true,
            instance_quota: 40,
            snapshot_quota: 100,
            copy_slots: 20,
            cluster_quota: 40,
            cluster_snapshot_quota: 100,
            cluster_copy_slots: 5,
            hollow: false,
            ca_valid_till: Timestamp::constant(2_884_286_097, 0),
        }
    }
}

impl Config {
    pub(super) fn status_time(&self) -> Duration {
        Duration::from_millis(self.status_ms)
    }

    pub(super) fn copy_time(&self) -> Duration {
        Duration::from_millis(self.copy_ms)
    }
}

/// State that changes. The lock is never held across an await.
pub(super) struct State {
    pub(super) regions: BTreeMap<String, Region>,
    pub(super) config: Config,
    pub(super) faults: Faults,
}

impl State {
    /// Tells each instance which others call themselves its replicas, and forgets what is said of those that are gone.
    pub(super) fn link_replicas(&mut self) {
        let mut links: Vec<(Arn, Arn)> = Vec::new();
        for Region { name, account, instances, replication, replicas, .. } in self.regions.values_mut() {
            let arn = |id: &str| Arn {
                region: name.clone(),
                account: account.clone(),
                kind: "db".to_owned(),
                name: id.to_owned(),
            };
            replicas.clear();
            replication.retain(|replica, _| instances.contains_key(replica));
            links.extend(replication.iter().map(|(replica, of)| {
                (Arn::parse(&of.source).unwrap_or_else(|| arn(&of.source)), arn(replica))
            }));
        }
        for (source, replica) in links {
            let Some(region) = self.regions.get_mut(&source.region) else { continue };
            let shown = if replica.region == source.region {
                replica.name
            } else {
                ids::arn(&replica.region, &replica.account, &replica.kind, &replica.name)
            };
            region.replicas.entry(source.name).or_default().insert(shown);
        }
    }
}

/// Shared by all requests and tasks.
pub(super) struct Cloud {
    pub(super) account: String,
    pub(super) data: PathBuf,
    pub(super) postgres: Arc<Postgres>,
    pub(super) mariadb: Option<Arc<MariaDb>>,
    pub(super) authority: Authority,
    pub(super) aws: Option<Aws>,
    state: Mutex<State>,
}

impl Cloud {
    pub(super) fn new(
        account: String,
        data: PathBuf,
        postgres: Postgres,
        mariadb: Option<MariaDb>,
        authority: Authority,
        aws: Option<Aws>,
        config: Config,
    ) -> Self {
        let state = State { regions: BTreeMap::new(), config, faults: Faults::default() };
        let (postgres, mariadb) = (Arc::new(postgres), mariadb.map(Arc::new));
        Self { account, data, postgres, mariadb, authority, aws, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state as it is; each action changes it in one go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn config(&self) -> Config {
        self.state().config.clone()
    }

    /// Does something with a Region, which comes into being at first use.
    pub(super) fn region<T>(&self, name: &str, act: impl FnOnce(&mut Region) -> T) -> T {
        let mut state = self.state();
        let region = state.regions.entry(name.to_owned()).or_insert_with(|| {
            let engines: Vec<_> = self
                .engines()
                .iter()
                .flat_map(|engine| {
                    engine.versions().into_iter().map(|version| (engine.name().to_owned(), version))
                })
                .collect();
            Region::new(name, &self.account, &engines)
        });
        act(region)
    }

    /// All engines.
    pub(super) fn engines(&self) -> Vec<Arc<dyn Engine>> {
        let postgres = Arc::clone(&self.postgres) as Arc<dyn Engine>;
        let mut engines = vec![Aurora::postgresql(Arc::clone(&postgres)), postgres];
        if let Some(mariadb) = &self.mariadb {
            let mariadb = Arc::clone(mariadb) as Arc<dyn Engine>;
            engines.extend([Aurora::mysql(Arc::clone(&mariadb)), mariadb]);
        }
        engines
    }

    /// The engine of a name.
    pub(super) fn engine(&self, name: &str) -> Result<Arc<dyn Engine>, Fault> {
        let found = self.engines().into_iter().find(|engine| engine.name() == name);
        let engine = found.ok_or_else(|| Fault::value(format!("Invalid DB engine: {name}")))?;
        Ok(Arc::new(Hollow { engine, on: self.config().hollow }))
    }

    /// A directory of its own for an instance or a snapshot.
    pub(super) fn place(&self, region: &str, kind: &str, name: &str) -> PathBuf {
        self.data.join("regions").join(region).join(kind).join(name)
    }

    /// Changes an instance if no later operation has begun on it. Says whether it did.
    pub(super) fn update_instance(
        &self,
        region: &str,
        resource_id: &str,
        epoch: u64,
        act: impl FnOnce(&mut Instance),
    ) -> bool {
        self.region(region, |region| {
            match region.instance_by_resource(resource_id).filter(|instance| instance.epoch == epoch) {
                Some(instance) => {
                    act(instance);
                    true
                }
                None => false,
            }
        })
    }

    /// Changes a snapshot if it is still there. Says whether it did.
    pub(super) fn update_snapshot(&self, region: &str, dir: &Path, act: impl FnOnce(&mut Snapshot)) -> bool {
        self.region(region, |region| match region.all_snapshots().find(|snapshot| snapshot.dir == dir) {
            Some(snapshot) => {
                act(snapshot);
                true
            }
            None => false,
        })
    }
}

impl Cloud {
    /// Waits until so many percent of a configured time have passed since `begun`. A change of the configuration
    /// counts at once: a test can hold a status as long as it likes, look, and let go.
    pub(super) async fn wait_for(&self, begun: Instant, percent: u32, time: fn(&Config) -> Duration) {
        const GLANCE: Duration = Duration::from_millis(20);
        loop {
            let left =
                (begun + time(&self.config()) * percent / 100).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(GLANCE)).await;
        }
    }
}

/// Runs blocking work on its own thread; a panic there becomes an error text.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::host::Error> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(chain(&error)),
        Err(error) => Err(format!("work was cut short: {error}")),
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

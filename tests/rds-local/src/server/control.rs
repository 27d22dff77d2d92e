//! The control API under `/_rds-local/`: what tests look at and order. It is no part of RDS.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::actions::{self, Call};
use super::cloud::{Cloud, Config};
use super::damage::{self, Failure};
use super::faults;
use super::ids::Arn;
use super::model::{Kind, Region, Replication, Snapshot};
use super::params::Params;
use super::shelf::Shelf;

type Reply = (StatusCode, Json<Value>);
type Body<T> = Result<Json<T>, JsonRejection>;

pub(super) fn routes() -> Router<Arc<Cloud>> {
    Router::new()
        .route("/_rds-local/health", get(health))
        .route("/_rds-local/state", get(state))
        .route("/_rds-local/config", get(show_config).post(change_config))
        .route("/_rds-local/faults", post(add_fault).delete(clear_faults))
        .route("/_rds-local/connections", post(connections))
        .route("/_rds-local/damage", post(inflict))
        .route("/_rds-local/automated-snapshots", post(automated_snapshot))
        .route("/_rds-local/replication", post(replication))
        .route("/_rds-local/tags/{arn}", get(tags))
}

fn fine(value: Value) -> Reply {
    (StatusCode::OK, Json(value))
}

fn refused(status: StatusCode, why: &dyn std::fmt::Display) -> Reply {
    (status, Json(json!({"error": why.to_string()})))
}

async fn health() -> Reply {
    fine(json!({"status": "ok", "pid": std::process::id()}))
}

/// Everything, sorted.
async fn state(State(cloud): State<Arc<Cloud>>) -> Reply {
    let mut machines = Vec::new();
    let mut whole = {
        let state = cloud.state();
        let mut regions = serde_json::Map::new();
        for (name, region) in &state.regions {
            let mut instances = serde_json::Map::new();
            for instance in region.instances.values() {
                let (id, machine) = (instance.id.clone(), Arc::clone(&instance.machine));
                machines.push((name.clone(), "instances", id, machine));
                let of = json!({
                    "resourceId": instance.resource_id, "status": instance.status, "port": instance.port,
                    "version": instance.settings.version, "dir": instance.dir, "pids": [],
                });
                instances.insert(instance.id.clone(), of);
            }
            let mut clusters = serde_json::Map::new();
            for cluster in region.clusters.values() {
                let core = &cluster.core;
                let of = json!({
                    "resourceId": core.resource_id, "status": core.status, "port": core.port,
                    "version": core.settings.version, "dir": core.dir, "members": cluster.members, "pids": [],
                });
                machines.push((name.clone(), "clusters", core.id.clone(), Arc::clone(&core.machine)));
                clusters.insert(core.id.clone(), of);
            }
            let [snapshots, cluster_snapshots] =
                [Shelf::Instances, Shelf::Clusters].map(|shelf| snapshots_of(shelf, region));
            regions.insert(
                name.clone(),
                json!({
                    "instances": instances, "snapshots": snapshots,
                    "clusters": clusters, "clusterSnapshots": cluster_snapshots,
                }),
            );
        }
        json!({"config": state.config, "faults": state.faults.standing(), "regions": regions})
    };
    for (region, kind, id, machine) in machines {
        // One that is just starting or stopping has none to show.
        if let Ok(machine) = machine.try_lock()
            && let Some(server) = &machine.server
        {
            whole["regions"][region][kind][id]["pids"] = json!(server.pids());
        }
    }
    fine(whole)
}

fn snapshots_of(shelf: Shelf, region: &Region) -> serde_json::Map<String, Value> {
    let of = |snapshot: &Snapshot| {
        json!({
            "instance": snapshot.instance_id, "status": snapshot.status, "progress": snapshot.progress,
            "kmsKey": snapshot.kms_key, "source": snapshot.source.as_ref().map(|source| &source.arn),
            "dir": snapshot.dir,
        })
    };
    shelf.of(region).values().map(|snapshot| (snapshot.id.clone(), of(snapshot))).collect()
}

async fn show_config(State(cloud): State<Arc<Cloud>>) -> Reply {
    fine(json!(cloud.config()))
}

/// Changes the settings named; the others stay.
async fn change_config(State(cloud): State<Arc<Cloud>>, body: Body<Value>) -> Reply {
    let change = match body {
        Ok(Json(Value::Object(change))) => change,
        Ok(_) => return refused(StatusCode::BAD_REQUEST, &"an object is wanted"),
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error),
    };
    let mut state = cloud.state();
    let mut merged = json!(state.config);
    for (name, value) in change {
        merged[name] = value;
    }
    match serde_json::from_value::<Config>(merged) {
        Ok(config) => {
            state.config = config;
            fine(json!(state.config))
        }
        Err(error) => refused(StatusCode::BAD_REQUEST, &error),
    }
}

async fn add_fault(State(cloud): State<Arc<Cloud>>, body: Body<faults::Order>) -> Reply {
    match body {
        Ok(Json(order)) => fine(json!({"id": cloud.state().faults.add(order)})),
        Err(error) => refused(StatusCode::BAD_REQUEST, &error.body_text()),
    }
}

async fn clear_faults(State(cloud): State<Arc<Cloud>>) -> Reply {
    cloud.state().faults.clear();
    fine(json!({}))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connections {
    region: String,
    instance: String,
    effect: Option<ConnectionEffect>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum ConnectionEffect {
    /// All connections are cut once so many bytes have gone to clients from now on; then the order is spent.
    CutAfterBytes(u64),
    /// New connections are refused.
    Refuse(bool),
    /// All present connections are cut.
    CutNow(bool),
}

async fn connections(State(cloud): State<Arc<Cloud>>, body: Body<Connections>) -> Reply {
    let order = match body {
        Ok(Json(order)) => order,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let machine = cloud.region(&order.region, |region| {
        region.instances.get(&order.instance).map(|instance| Arc::clone(&instance.machine))
    });
    let Some(machine) = machine else {
        return refused(
            StatusCode::NOT_FOUND,
            &format!("there is no instance {} in {}", order.instance, order.region),
        );
    };
    let mut machine = machine.lock().await;
    let Some(endpoint) = machine.endpoint.as_mut() else {
        return refused(StatusCode::CONFLICT, &format!("instance {} has no endpoint yet", order.instance));
    };
    let done = match order.effect {
        Some(ConnectionEffect::CutAfterBytes(bytes)) => {
            endpoint.cut_after(Some(bytes));
            Ok(())
        }
        Some(ConnectionEffect::Refuse(refuse)) => endpoint.refuse(refuse).await,
        Some(ConnectionEffect::CutNow(cut)) => {
            if cut {
                endpoint.cut_now();
            }
            Ok(())
        }
        None => {
            endpoint.cut_after(None);
            endpoint.refuse(false).await
        }
    };
    match done {
        Ok(()) => fine(json!({})),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Automated {
    region: String,
    #[serde(default)]
    instance: Option<String>,
    #[serde(default)]
    cluster: Option<String>,
    #[serde(default)]
    by: By,
}

/// Who takes snapshots that no user asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum By {
    #[default]
    Rds,
    AwsBackup,
}

/// What the backup window or AWS Backup would do: a snapshot of an instance or a cluster, now.
async fn automated_snapshot(State(cloud): State<Arc<Cloud>>, body: Body<Automated>) -> Reply {
    let order = match body {
        Ok(Json(order)) => order,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let call = Call { cloud, region: order.region, params: Params::default(), outcome: None };
    let kind = match order.by {
        By::Rds => Kind::Automated,
        By::AwsBackup => Kind::AwsBackup,
    };
    let (shelf, owner) = match (order.instance, order.cluster) {
        (Some(instance), None) => (Shelf::Instances, instance),
        (None, Some(cluster)) => (Shelf::Clusters, cluster),
        _ => return refused(StatusCode::BAD_REQUEST, &"an instance or a cluster is wanted"),
    };
    match actions::unasked(&call, shelf, kind, &owner).await {
        Ok(_) => fine(json!({})),
        Err(fault) => refused(StatusCode::CONFLICT, &format!("{}: {}", fault.code, fault.message)),
    }
}

async fn inflict(State(cloud): State<Arc<Cloud>>, body: Body<damage::Order>) -> Reply {
    let order = match body {
        Ok(Json(order)) => order,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    match damage::damage(&cloud, order).await {
        Ok(damage) => fine(json!({"file": damage.file, "what": damage.what})),
        Err(Failure::Refused(why)) => refused(StatusCode::CONFLICT, &why),
        Err(Failure::Broken(why)) => refused(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Replicates {
    region: String,
    instance: String,
    /// What it is a replica of; absent, it is none any more.
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// Has an instance call itself a read replica. Nothing is replicated: this is for what looks at replicas from outside.
async fn replication(State(cloud): State<Arc<Cloud>>, body: Body<Replicates>) -> Reply {
    let order = match body {
        Ok(Json(order)) => order,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let answer = cloud.region(&order.region, |region| {
        if !region.instances.contains_key(&order.instance) {
            let why = format!("there is no instance {} in {}", order.instance, order.region);
            return refused(StatusCode::NOT_FOUND, &why);
        }
        if let Some(source) = order.source {
            let status = order.status.unwrap_or_else(|| "replicating".to_owned());
            let (normal, message) = (status == "replicating", order.message.unwrap_or_default());
            region.replication.insert(order.instance, Replication { source, status, normal, message });
        } else {
            region.replication.remove(&order.instance);
        }
        fine(json!({}))
    });
    cloud.state().link_replicas();
    answer
}

/// The tags of a resource as they are now, for whoever decides on permissions (`aws:ResourceTag/…`). It is not a call
/// of the API: no order meets it.
async fn tags(State(cloud): State<Arc<Cloud>>, UrlPath(text): UrlPath<String>) -> Reply {
    let Some(arn) = Arn::parse(&text) else {
        return refused(StatusCode::BAD_REQUEST, &format!("{text} is no ARN of RDS"));
    };
    let mut state = cloud.state();
    let ours = state.regions.get_mut(&arn.region).filter(|region| region.account == arn.account);
    match ours.and_then(|region| actions::tags_of(region, &arn)) {
        Some(tags) => {
            let tags: BTreeMap<String, String> = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
            fine(json!({"tags": tags}))
        }
        None => refused(StatusCode::NOT_FOUND, &format!("there is no {text}")),
    }
}

//! `DescribeDBInstances`, `DescribeDBClusters` and the snapshots of both: by identifier or ARN, by filter, in pages.

use super::{Call, snapshots};
use crate::server::fault::{Answer, Fault};
use crate::server::ids::Arn;
use crate::server::model::{Cluster, Instance, Kind, Region, Snapshot};
use crate::server::params::Filters;
use crate::server::render;
use crate::server::shelf::Shelf;
use crate::server::xml::Xml;

const INSTANCE_FILTERS: [&str; 5] =
    ["db-cluster-id", "db-instance-id", "dbi-resource-id", "domain", "engine"];
const CLUSTER_FILTERS: [&str; 5] =
    ["clone-group-id", "db-cluster-id", "db-cluster-resource-id", "domain", "engine"];
const SNAPSHOT_TYPES: [&str; 5] = ["automated", "manual", "shared", "public", "awsbackup"];

pub(super) fn instances(call: &Call) -> Answer {
    let filters = call.params.filters(&INSTANCE_FILTERS)?;
    let wanted = call.params.get("DBInstanceIdentifier").filter(|text| !text.is_empty());
    call.cloud.region(&call.region, |region| {
        let id = wanted.map(|text| id_of(region, "db", text, Fault::instance_not_found)).transpose()?;
        let found: Vec<(String, &Instance)> = region
            .instances
            .values()
            .filter(|instance| id.as_ref().is_none_or(|id| instance.id == *id))
            .filter(|instance| instance_passes(region, instance, &filters))
            .map(|instance| (instance.id.clone(), instance))
            .collect();
        if let (Some(text), true) = (wanted, found.is_empty() && filters.is_empty()) {
            return Err(Fault::instance_not_found(text));
        }
        let (page, marker) = call.params.page(found)?;
        let mut xml = Xml::new();
        xml.put_some("Marker", marker).list("DBInstances", "DBInstance", page, |xml, instance| {
            render::instance(xml, region, instance);
        });
        Ok(xml.done())
    })
}

fn id_of(region: &Region, kind: &str, text: &str, missing: fn(&str) -> Fault) -> Result<String, Fault> {
    match Arn::parse(text) {
        Some(arn) if arn.kind == kind && arn.region == region.name => Ok(arn.name),
        Some(_) => Err(missing(text)),
        None => Ok(text.to_ascii_lowercase()),
    }
}

fn instance_passes(region: &Region, instance: &Instance, filters: &Filters) -> bool {
    filters.iter().all(|(name, values)| match name.as_str() {
        "db-instance-id" => values.iter().any(|value| {
            value.eq_ignore_ascii_case(&instance.id) || *value == region.arn("db", &instance.id)
        }),
        "dbi-resource-id" => values.contains(&instance.resource_id),
        "engine" => values.contains(&instance.settings.engine),
        "db-cluster-id" => instance.cluster.as_ref().is_some_and(|cluster| {
            values
                .iter()
                .any(|value| value.eq_ignore_ascii_case(cluster) || *value == region.arn("cluster", cluster))
        }),
        // No instance here belongs to a domain.
        _ => false,
    })
}

pub(super) fn clusters(call: &Call) -> Answer {
    let filters = call.params.filters(&CLUSTER_FILTERS)?;
    let wanted = call.params.get("DBClusterIdentifier").filter(|text| !text.is_empty());
    call.cloud.region(&call.region, |region| {
        let id = wanted.map(|text| id_of(region, "cluster", text, Fault::cluster_not_found)).transpose()?;
        let found: Vec<(String, &Cluster)> = region
            .clusters
            .iter()
            .filter(|(name, _)| id.as_ref().is_none_or(|id| *name == id))
            .filter(|(_, cluster)| cluster_passes(region, cluster, &filters))
            .map(|(name, cluster)| (name.clone(), cluster))
            .collect();
        if let (Some(text), true) = (wanted, found.is_empty() && filters.is_empty()) {
            return Err(Fault::cluster_not_found(text));
        }
        let (page, marker) = call.params.page(found)?;
        let mut xml = Xml::new();
        xml.put_some("Marker", marker).list("DBClusters", "DBCluster", page, |xml, cluster| {
            render::cluster(xml, region, cluster);
        });
        Ok(xml.done())
    })
}

fn cluster_passes(region: &Region, cluster: &Cluster, filters: &Filters) -> bool {
    let core = &cluster.core;
    filters.iter().all(|(name, values)| match name.as_str() {
        "db-cluster-id" => values
            .iter()
            .any(|value| value.eq_ignore_ascii_case(&core.id) || *value == region.arn("cluster", &core.id)),
        "db-cluster-resource-id" => values.contains(&core.resource_id),
        "engine" => values.contains(&core.settings.engine),
        // No cluster here is a clone or belongs to a domain.
        _ => false,
    })
}

pub(super) fn snapshots(call: &Call, shelf: Shelf) -> Answer {
    let params = &call.params;
    let resource_filter = shelf.resource_parameter().to_ascii_lowercase();
    let filters = params.filters(&[
        shelf.owner_filter(),
        shelf.id_filter(),
        "dbi-resource-id",
        resource_filter.as_str(),
        "snapshot-type",
        "engine",
    ])?;
    let wanted = params.get(shelf.id_parameter()).filter(|text| !text.is_empty());
    let owner = params.get(shelf.owner_parameter()).map(str::to_ascii_lowercase);
    let resource = params.get(shelf.resource_parameter());
    let kind = params.get("SnapshotType").filter(|text| !text.is_empty());
    if let Some(kind) = kind.filter(|kind| !SNAPSHOT_TYPES.contains(kind)) {
        return Err(Fault::value(format!("Invalid snapshot type: {kind}")));
    }
    let id = wanted.map(|text| snapshots::id_or_arn(call, shelf, text)).transpose()?;
    call.cloud.region(&call.region, |region| {
        let found: Vec<(String, &Snapshot)> = shelf
            .of(region)
            .values()
            .filter(|snapshot| id.as_ref().is_none_or(|id| snapshot.id == *id))
            .filter(|snapshot| owner.as_ref().is_none_or(|owner| snapshot.instance_id == *owner))
            .filter(|snapshot| resource.is_none_or(|resource| snapshot.resource_id == resource))
            .filter(|snapshot| is_wanted(snapshot.kind, kind, id.is_some()))
            .filter(|snapshot| snapshot_passes(region, shelf, snapshot, &filters))
            .map(|snapshot| (snapshot.id.clone(), snapshot))
            .collect();
        if let (Some(text), true) = (wanted, found.is_empty()) {
            return Err(shelf.not_found(text));
        }
        let (page, marker) = params.page(found)?;
        let (list, element) = shelf.elements();
        let mut xml = Xml::new();
        xml.put_some("Marker", marker).list(list, element, page, |xml, snapshot| {
            shelf.render(xml, region, snapshot);
        });
        Ok(xml.done())
    })
}

/// By the API reference: without `SnapshotType` manual and automated ones are listed, and an automated one that is
/// asked for by its identifier needs the type beside it.
fn is_wanted(kind: Kind, wanted: Option<&str>, by_id: bool) -> bool {
    match wanted {
        Some(wanted) => wanted == kind.name(),
        None => kind == Kind::Manual || kind == Kind::Automated && !by_id,
    }
}

fn snapshot_passes(region: &Region, shelf: Shelf, snapshot: &Snapshot, filters: &Filters) -> bool {
    filters.iter().all(|(name, values)| {
        let name = name.as_str();
        if name == shelf.owner_filter() {
            return values.iter().any(|value| {
                value.eq_ignore_ascii_case(&snapshot.instance_id)
                    || *value == region.arn(shelf.owner_arn_kind(), &snapshot.instance_id)
            });
        }
        if name == shelf.id_filter() {
            return values.iter().any(|value| value.eq_ignore_ascii_case(&snapshot.id));
        }
        match name {
            "snapshot-type" => values.iter().any(|value| value == snapshot.kind.name()),
            "engine" => values.contains(&snapshot.settings.engine),
            _ => values.contains(&snapshot.resource_id),
        }
    })
}

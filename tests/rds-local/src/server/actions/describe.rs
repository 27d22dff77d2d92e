//! `DescribeDBInstances` and `DescribeDBSnapshots`: by identifier or ARN, by filter, in pages.

use super::{Call, snapshots};
use crate::server::fault::{Answer, Fault};
use crate::server::ids::Arn;
use crate::server::model::{Instance, Region, Snapshot};
use crate::server::params::Filters;
use crate::server::render;
use crate::server::xml::Xml;

const INSTANCE_FILTERS: [&str; 5] =
    ["db-cluster-id", "db-instance-id", "dbi-resource-id", "domain", "engine"];
const SNAPSHOT_FILTERS: [&str; 5] =
    ["db-instance-id", "db-snapshot-id", "dbi-resource-id", "snapshot-type", "engine"];
const SNAPSHOT_TYPES: [&str; 5] = ["automated", "manual", "shared", "public", "awsbackup"];

pub(super) fn instances(call: &Call) -> Answer {
    let filters = call.params.filters(&INSTANCE_FILTERS)?;
    let wanted = call.params.get("DBInstanceIdentifier").filter(|text| !text.is_empty());
    call.cloud.region(&call.region, |region| {
        let id = wanted.map(|text| instance_id(region, text)).transpose()?;
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

fn instance_id(region: &Region, text: &str) -> Result<String, Fault> {
    match Arn::parse(text) {
        Some(arn) if arn.kind == "db" && arn.region == region.name => Ok(arn.name),
        Some(_) => Err(Fault::instance_not_found(text)),
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
        // No instance here belongs to a cluster or a domain.
        _ => false,
    })
}

pub(super) fn snapshots(call: &Call) -> Answer {
    let params = &call.params;
    let filters = params.filters(&SNAPSHOT_FILTERS)?;
    let wanted = params.get("DBSnapshotIdentifier").filter(|text| !text.is_empty());
    let instance = params.get("DBInstanceIdentifier").map(str::to_ascii_lowercase);
    let resource = params.get("DbiResourceId");
    let kind = params.get("SnapshotType").filter(|text| !text.is_empty());
    if let Some(kind) = kind.filter(|kind| !SNAPSHOT_TYPES.contains(kind)) {
        return Err(Fault::value(format!("Invalid snapshot type: {kind}")));
    }
    let id = wanted.map(|text| snapshots::id_or_arn(call, text)).transpose()?;
    call.cloud.region(&call.region, |region| {
        let found: Vec<(String, &Snapshot)> = region
            .snapshots
            .values()
            .filter(|snapshot| id.as_ref().is_none_or(|id| snapshot.id == *id))
            .filter(|snapshot| instance.as_ref().is_none_or(|instance| snapshot.instance_id == *instance))
            .filter(|snapshot| resource.is_none_or(|resource| snapshot.resource_id == resource))
            .filter(|snapshot| kind.is_none_or(|kind| kind == snapshot.kind.name()))
            .filter(|snapshot| snapshot_passes(region, snapshot, &filters))
            .map(|snapshot| (snapshot.id.clone(), snapshot))
            .collect();
        if let (Some(text), true) = (wanted, found.is_empty()) {
            return Err(Fault::snapshot_not_found(text));
        }
        let (page, marker) = params.page(found)?;
        let mut xml = Xml::new();
        xml.put_some("Marker", marker).list("DBSnapshots", "DBSnapshot", page, |xml, snapshot| {
            render::snapshot(xml, region, snapshot);
        });
        Ok(xml.done())
    })
}

fn snapshot_passes(region: &Region, snapshot: &Snapshot, filters: &Filters) -> bool {
    filters.iter().all(|(name, values)| match name.as_str() {
        "db-instance-id" => values.iter().any(|value| {
            value.eq_ignore_ascii_case(&snapshot.instance_id)
                || *value == region.arn("db", &snapshot.instance_id)
        }),
        "db-snapshot-id" => values.iter().any(|value| value.eq_ignore_ascii_case(&snapshot.id)),
        "dbi-resource-id" => values.contains(&snapshot.resource_id),
        "engine" => values.contains(&snapshot.settings.engine),
        _ => values.iter().any(|value| value == snapshot.kind.name()),
    })
}

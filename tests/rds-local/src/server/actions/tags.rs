//! Tags of instances, snapshots and groups, by ARN.

use super::Call;
use crate::server::fault::{Answer, Fault};
use crate::server::ids::Arn;
use crate::server::model::Region;
use crate::server::params::Tag;
use crate::server::render;
use crate::server::shelf::Shelf;
use crate::server::xml::Xml;

/// The most tags that a resource can carry.
const LIMIT: usize = 50;

pub(super) fn add(call: &Call) -> Answer {
    let name = call.params.required("ResourceName")?;
    let new = call.params.tags()?.ok_or_else(|| Fault::missing("Tags"))?;
    with_tags(call, name, |tags| {
        let mut merged: Vec<Tag> = tags.clone();
        merged.retain(|tag| new.iter().all(|newer| newer.key != tag.key));
        merged.extend(new);
        if merged.len() > LIMIT {
            return Err(Fault::value(format!("A resource can have {LIMIT} tags at most")));
        }
        *tags = merged;
        Ok(String::new())
    })
}

pub(super) fn remove(call: &Call) -> Answer {
    let name = call.params.required("ResourceName")?;
    let keys = call.params.list("TagKeys").ok_or_else(|| Fault::missing("TagKeys"))?;
    with_tags(call, name, |tags| {
        tags.retain(|tag| !keys.contains(&tag.key));
        Ok(String::new())
    })
}

pub(super) fn list(call: &Call) -> Answer {
    let name = call.params.required("ResourceName")?;
    with_tags(call, name, |tags| {
        let mut xml = Xml::new();
        render::tags(&mut xml, tags);
        Ok(xml.done())
    })
}

/// The tags of a resource, if it is there.
pub(in crate::server) fn of(region: &mut Region, arn: &Arn) -> Option<Vec<Tag>> {
    find(region, arn, &arn.name).ok().cloned()
}

fn with_tags(call: &Call, name: &str, act: impl FnOnce(&mut Vec<Tag>) -> Answer) -> Answer {
    let wrong = || Fault::value(format!("Invalid resource name: {name}"));
    let arn = Arn::parse(name).ok_or_else(wrong)?;
    if arn.region != call.region || arn.account != call.cloud.account {
        return Err(Fault::value(format!(
            "The specified resource name does not match an RDS resource in this region: {name}"
        )));
    }
    call.cloud.region(&call.region, |region| act(find(region, &arn, name)?))
}

fn find<'a>(region: &'a mut Region, arn: &Arn, name: &str) -> Result<&'a mut Vec<Tag>, Fault> {
    let key = &arn.name;
    match arn.kind.as_str() {
        "db" => region
            .instances
            .get_mut(key)
            .map(|instance| &mut instance.tags)
            .ok_or_else(|| Fault::instance_not_found(key)),
        "snapshot" => region
            .snapshots
            .get_mut(key)
            .map(|snapshot| &mut snapshot.tags)
            .ok_or_else(|| Fault::snapshot_not_found(key)),
        "cluster" => region
            .clusters
            .get_mut(key)
            .map(|cluster| &mut cluster.core.tags)
            .ok_or_else(|| Fault::cluster_not_found(key)),
        "cluster-snapshot" => region
            .cluster_snapshots
            .get_mut(key)
            .map(|snapshot| &mut snapshot.tags)
            .ok_or_else(|| Shelf::Clusters.not_found(key)),
        "cluster-pg" => {
            region.cluster_parameter_groups.get_mut(key).map(|group| &mut group.tags).ok_or_else(|| {
                let message = format!("DBClusterParameterGroup not found: {key}");
                Fault::new("DBClusterParameterGroupNotFound", 404, message)
            })
        }
        "subgrp" => region.subnet_groups.get_mut(key).map(|group| &mut group.tags).ok_or_else(|| {
            Fault::new("DBSubnetGroupNotFoundFault", 404, format!("DB subnet group '{key}' does not exist."))
        }),
        "pg" => region.parameter_groups.get_mut(key).map(|group| &mut group.tags).ok_or_else(|| {
            Fault::new("DBParameterGroupNotFound", 404, format!("DBParameterGroup not found: {key}"))
        }),
        "og" => region.option_groups.get_mut(key).map(|group| &mut group.tags).ok_or_else(|| {
            Fault::new(
                "OptionGroupNotFoundFault",
                404,
                format!("Specified OptionGroupName: {key} not found."),
            )
        }),
        _ => Err(Fault::value(format!("Invalid resource name: {name}"))),
    }
}

//! Subnet, parameter and option groups, as far as instances refer to them. Their content has no effect on servers.

use std::collections::BTreeMap;

use super::Call;
use crate::server::engine;
use crate::server::fault::{Answer, Fault};
use crate::server::ids;
use crate::server::model::{ParameterGroup, Region, SubnetGroup};
use crate::server::render;
use crate::server::xml::Xml;

pub(super) fn create_subnet_group(call: &Call) -> Answer {
    let params = &call.params;
    let name = params.required("DBSubnetGroupName")?.to_ascii_lowercase();
    let shaped = name.len() <= 255
        && name.chars().next().is_some_and(|first| first.is_ascii_alphabetic())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || " ._-".contains(char));
    if !shaped || name == "default" {
        return Err(Fault::value(format!(
            "The parameter DBSubnetGroupName is not a valid identifier: {name}"
        )));
    }
    let description = params.required("DBSubnetGroupDescription")?.to_owned();
    let subnets = params.list("SubnetIds").ok_or_else(|| Fault::missing("SubnetIds"))?;
    if subnets.len() < 2 {
        let message = "The DB subnet group doesn't meet Availability Zone (AZ) coverage requirement. Current AZ \
                       coverage is one AZ. Add subnets to cover at least 2 AZs.";
        return Err(Fault::new("DBSubnetGroupDoesNotCoverEnoughAZs", 400, message));
    }
    if let Some(wrong) = subnets.iter().find(|subnet| !subnet.starts_with("subnet-")) {
        return Err(Fault::new("InvalidSubnet", 400, format!("The subnet {wrong} does not exist.")));
    }
    let tags = params.tags()?.unwrap_or_default();
    call.cloud.region(&call.region, |region| {
        if region.subnet_groups.contains_key(&name) {
            let message = format!("The DB subnet group '{name}' already exists.");
            return Err(Fault::new("DBSubnetGroupAlreadyExists", 400, message));
        }
        // There is no VPC here that knows the subnets' zones: they are dealt out in turn.
        let zones = ["a", "b", "c"].map(|zone| format!("{}{zone}", region.name));
        let subnets = subnets.into_iter().zip(zones.into_iter().cycle()).collect();
        let group = SubnetGroup { name: name.clone(), description, subnets, tags };
        let mut xml = Xml::new();
        xml.within("DBSubnetGroup", |xml| render::subnet_group(xml, region, &group));
        region.subnet_groups.insert(name, group);
        Ok(xml.done())
    })
}

pub(super) fn describe_subnet_groups(call: &Call) -> Answer {
    call.params.filters(&[])?;
    let wanted = call.params.get("DBSubnetGroupName").map(str::to_ascii_lowercase);
    call.cloud.region(&call.region, |region| {
        let found: Vec<_> = region
            .subnet_groups
            .values()
            .filter(|group| wanted.as_ref().is_none_or(|name| group.name == *name))
            .map(|group| (group.name.clone(), group))
            .collect();
        if let (Some(name), true) = (wanted, found.is_empty()) {
            return Err(subnet_group_missing(&name));
        }
        let (page, marker) = call.params.page(found)?;
        let mut xml = Xml::new();
        xml.put_some("Marker", marker).list("DBSubnetGroups", "DBSubnetGroup", page, |xml, group| {
            render::subnet_group(xml, region, group);
        });
        Ok(xml.done())
    })
}

fn subnet_group_missing(name: &str) -> Fault {
    Fault::new("DBSubnetGroupNotFoundFault", 404, format!("DB subnet group '{name}' does not exist."))
}

pub(super) fn delete_subnet_group(call: &Call) -> Answer {
    let name = call.params.required("DBSubnetGroupName")?.to_ascii_lowercase();
    call.cloud.region(&call.region, |region| {
        if !region.subnet_groups.contains_key(&name) {
            return Err(subnet_group_missing(&name));
        }
        let clusters = region.clusters.values().map(|cluster| &cluster.core);
        let mut users = region.instances.values().chain(clusters);
        if let Some(user) = users.find(|instance| instance.settings.subnet_group == name) {
            let message =
                format!("Cannot delete the subnet group '{name}' because instance {} uses it.", user.id);
            return Err(Fault::new("InvalidDBSubnetGroupStateFault", 400, message));
        }
        region.subnet_groups.remove(&name);
        Ok(String::new())
    })
}

/// Parameter groups of clusters are a kind of their own.
fn parameter_groups(region: &mut Region, cluster: bool) -> &mut BTreeMap<String, ParameterGroup> {
    if cluster { &mut region.cluster_parameter_groups } else { &mut region.parameter_groups }
}

fn element(cluster: bool) -> &'static str {
    if cluster { "DBClusterParameterGroup" } else { "DBParameterGroup" }
}

pub(super) fn create_parameter_group(call: &Call, cluster: bool) -> Answer {
    let params = &call.params;
    let parameter = format!("{}Name", element(cluster));
    let name = ids::snapshot(&parameter, params.required(&parameter)?)?;
    let family = params.required("DBParameterGroupFamily")?.to_owned();
    let description = params.required("Description")?.to_owned();
    let tags = params.tags()?.unwrap_or_default();
    let known = call
        .cloud
        .engines()
        .iter()
        .any(|one| one.versions().iter().any(|version| engine::family(one.name(), version) == family));
    if !known {
        return Err(Fault::value(format!(
            "ParameterGroupFamily {family} is not a valid parameter group family"
        )));
    }
    call.cloud.region(&call.region, |region| {
        if parameter_groups(region, cluster).contains_key(&name) {
            let message = format!("Parameter group {name} already exists");
            return Err(Fault::new("DBParameterGroupAlreadyExists", 400, message));
        }
        let group = ParameterGroup { name: name.clone(), family, description, tags };
        let mut xml = Xml::new();
        xml.within(element(cluster), |xml| render::parameter_group(xml, region, &group, cluster));
        parameter_groups(region, cluster).insert(name, group);
        Ok(xml.done())
    })
}

pub(super) fn describe_parameter_groups(call: &Call, cluster: bool) -> Answer {
    call.params.filters(&[])?;
    let element = element(cluster);
    let wanted = call.params.get(&format!("{element}Name")).map(str::to_ascii_lowercase);
    call.cloud.region(&call.region, |region| {
        let found: Vec<_> = parameter_groups(region, cluster)
            .values()
            .filter(|group| wanted.as_ref().is_none_or(|name| group.name == *name))
            .map(|group| (group.name.clone(), group.clone()))
            .collect();
        if let (Some(name), true) = (wanted, found.is_empty()) {
            let code = format!("{element}NotFound");
            return Err(Fault::new(&code, 404, format!("{element} not found: {name}")));
        }
        let (page, marker) = call.params.page(found)?;
        let mut xml = Xml::new();
        xml.put_some("Marker", marker).list(&format!("{element}s"), element, page, |xml, group| {
            render::parameter_group(xml, region, &group, cluster);
        });
        Ok(xml.done())
    })
}

pub(super) fn describe_option_groups(call: &Call) -> Answer {
    let params = &call.params;
    params.filters(&[])?;
    let (wanted, engine, major) =
        (params.get("OptionGroupName"), params.get("EngineName"), params.get("MajorEngineVersion"));
    call.cloud.region(&call.region, |region| {
        let found: Vec<_> = region
            .option_groups
            .values()
            .filter(|group| wanted.is_none_or(|name| group.name == name))
            .filter(|group| engine.is_none_or(|engine| group.engine == engine))
            .filter(|group| major.is_none_or(|major| group.major == major))
            .map(|group| (group.name.clone(), group))
            .collect();
        if let (Some(name), true) = (wanted, found.is_empty()) {
            let message = format!("Specified OptionGroupName: {name} not found.");
            return Err(Fault::new("OptionGroupNotFoundFault", 404, message));
        }
        let (page, marker) = params.page(found)?;
        let mut xml = Xml::new();
        xml.put_some("Marker", marker).list("OptionGroupsList", "OptionGroup", page, |xml, group| {
            render::option_group(xml, region, group);
        });
        Ok(xml.done())
    })
}

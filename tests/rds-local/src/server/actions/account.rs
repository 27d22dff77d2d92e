//! Quotas, events, engine versions.

use jiff::{SignedDuration, Timestamp};

use super::Call;
use crate::server::engine;
use crate::server::fault::{Answer, Fault};
use crate::server::shelf::Shelf;
use crate::server::xml::Xml;

pub(super) fn attributes(call: &Call) -> Answer {
    let config = call.cloud.config();
    call.cloud.region(&call.region, |region| {
        let storage: usize =
            region.instances.values().map(|instance| instance.settings.allocated_storage as usize).sum();
        // Those that nothing here can use up have AWS's default figures.
        let quotas = [
            ("DBInstances", region.instances.len(), config.instance_quota),
            ("ReservedDBInstances", 0, 40),
            ("AllocatedStorage", storage, 100_000),
            ("DBSecurityGroups", 0, 25),
            ("AuthorizationsPerDBSecurityGroup", 0, 20),
            ("DBParameterGroups", region.parameter_groups.len(), 50),
            ("ManualSnapshots", super::snapshots::number_of(region, Shelf::Instances), config.snapshot_quota),
            ("EventSubscriptions", 0, 20),
            ("DBSubnetGroups", region.subnet_groups.len(), 50),
            ("OptionGroups", region.option_groups.len(), 20),
            ("SubnetsPerDBSubnetGroup", 0, 20),
            ("ReadReplicasPerMaster", 0, 15),
            ("DBClusters", region.clusters.len(), config.cluster_quota),
            ("DBClusterParameterGroups", region.cluster_parameter_groups.len(), 50),
            ("DBClusterRoles", 0, 5),
            ("DBInstanceRoles", 0, 5),
            (
                "ManualClusterSnapshots",
                super::snapshots::number_of(region, Shelf::Clusters),
                config.cluster_snapshot_quota,
            ),
            ("CustomEndpointsPerDBCluster", 0, 5),
        ];
        let mut xml = Xml::new();
        xml.list("AccountQuotas", "AccountQuota", quotas, |xml, (name, used, max)| {
            xml.put("AccountQuotaName", name).put("Used", used).put("Max", max);
        });
        Ok(xml.done())
    })
}

pub(super) fn engine_versions(call: &Call) -> Answer {
    let params = &call.params;
    let (wanted_engine, wanted_version) = (params.get("Engine"), params.get("EngineVersion"));
    let family = params.get("DBParameterGroupFamily");
    let default_only = params.flag("DefaultOnly")?.unwrap_or(false);
    let mut found = Vec::new();
    for one in call.cloud.engines() {
        let versions = one.versions();
        let newest = versions.last().cloned();
        for version in versions {
            let fits = wanted_engine.is_none_or(|name| name == one.name())
                && wanted_version
                    .is_none_or(|text| text == version || text == engine::major(one.name(), &version))
                && family.is_none_or(|family| family == engine::family(one.name(), &version))
                && (!default_only || newest.as_ref() == Some(&version));
            if fits {
                found.push((format!("{} {version}", one.name()), (one.name(), one.title(), version)));
            }
        }
    }
    // Pages want their items in order.
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    let (page, marker) = params.page(found)?;
    let mut xml = Xml::new();
    xml.put_some("Marker", marker).list(
        "DBEngineVersions",
        "DBEngineVersion",
        page,
        |xml, (name, title, version)| {
            xml.put("Engine", name)
                .put("MajorEngineVersion", engine::major(name, &version))
                .put("EngineVersion", &version)
                .put("DBParameterGroupFamily", engine::family(name, &version))
                .put("DBEngineDescription", title)
                .put("DBEngineVersionDescription", format!("{title} {version}"))
                .within("ValidUpgradeTarget", |_| {})
                .put("SupportsReadReplica", false)
                .put("SupportsGlobalDatabases", false)
                .put("Status", "available");
        },
    );
    Ok(xml.done())
}

pub(super) fn events(call: &Call) -> Answer {
    let params = &call.params;
    params.filters(&[])?;
    let (source, kind) =
        (params.get("SourceIdentifier").map(str::to_ascii_lowercase), params.get("SourceType"));
    if source.is_some() && kind.is_none() {
        return Err(Fault::combination("SourceIdentifier needs a SourceType."));
    }
    if let Some(kind) = kind.filter(|kind| {
        ![
            "db-instance",
            "db-snapshot",
            "db-parameter-group",
            "db-security-group",
            "db-cluster",
            "db-cluster-snapshot",
        ]
        .contains(kind)
    }) {
        return Err(Fault::value(format!("Invalid source type: {kind}")));
    }
    let categories = params.list("EventCategories");
    let time = |name: &str| {
        let text = params.get(name);
        text.map(|text| {
            text.parse::<Timestamp>().map_err(|_| Fault::value(format!("{name} is no time: {text}")))
        })
        .transpose()
    };
    let end = time("EndTime")?.unwrap_or(Timestamp::MAX);
    let minutes = params.number("Duration")?.unwrap_or(60);
    let begin = match time("StartTime")? {
        Some(begin) => begin,
        None => {
            (end.min(Timestamp::now()) - SignedDuration::from_mins(i64::from(minutes))).max(Timestamp::MIN)
        }
    };
    call.cloud.region(&call.region, |region| {
        let found: Vec<_> = region
            .events
            .iter()
            .enumerate()
            .filter(|(_, event)| source.as_ref().is_none_or(|source| event.source == *source))
            .filter(|(_, event)| kind.is_none_or(|kind| event.source_type == kind))
            .filter(|(_, event)| (begin..=end).contains(&event.time))
            .filter(|(_, event)| {
                categories.as_ref().is_none_or(|wanted| wanted.iter().any(|one| one == event.category))
            })
            .map(|(number, event)| (format!("{number:010}"), event))
            .collect();
        let (page, marker) = params.page(found)?;
        let mut xml = Xml::new();
        xml.put_some("Marker", marker).list("Events", "Event", page, |xml, event| {
            xml.put("SourceIdentifier", &event.source)
                .put("SourceType", event.source_type)
                .put("Message", &event.message)
                .list("EventCategories", "EventCategory", [event.category], |xml, category| {
                    xml.text(category);
                })
                .put_time("Date", Some(event.time))
                .put("SourceArn", &event.arn);
        });
        Ok(xml.done())
    })
}

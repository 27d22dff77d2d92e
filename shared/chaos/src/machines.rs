//! EC2 instances.

use std::collections::{BTreeMap, BTreeSet};

use dr_aws::errors::Call;
use dr_core::chaos::world::{Facts, Machine, State};
use dr_core::ids::Region;
use dr_core::observed::Tags;
use dr_core::{DrError, ErrorName, Result};

use crate::query::{Parameters, Query};
use crate::xml::Element;

/// Instances of one look.
pub(crate) const BATCH: usize = 50;
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-tagging.html>
const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// EC2 in one Region.
#[derive(Debug)]
pub(crate) struct Machines<'a> {
    pub(crate) ec2: Query,
    pub(crate) region: &'a Region,
}

impl Machines<'_> {
    /// Instances by id. They are asked for by a filter: a list of ids is refused as a whole when one of them is missing.
    /// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html>
    pub(crate) async fn look(&self, ids: &[&str]) -> Result<BTreeMap<String, Facts>> {
        let what = format!("looking at {} in {}", named(ids), self.region);
        let call = Call::read("ec2:DescribeInstances", what);
        let mut found = BTreeMap::new();
        for reservation in self.reservations(&call, ids).await? {
            let owner = reservation.text(&["ownerId"]).ok_or_else(|| call.unreadable("ownerId is absent"))?;
            for item in reservation.items("instancesSet", "item") {
                let id = item.text(&["instanceId"]).ok_or_else(|| call.unreadable("instanceId is absent"))?;
                let partition = partition(self.region);
                let arn = format!("arn:{partition}:ec2:{}:{owner}:instance/{id}", self.region);
                found.insert(id.to_owned(), facts(item, arn, &call)?);
            }
        }
        Ok(found)
    }

    /// The zones of instances by id; one that is not there has none.
    /// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Placement.html>
    pub(crate) async fn zones(&self, ids: &[&str]) -> Result<BTreeMap<String, String>> {
        let what = format!("looking for the zones of {} in {}", named(ids), self.region);
        let call = Call::read("ec2:DescribeInstances", what);
        let reservations = self.reservations(&call, ids).await?;
        let items = reservations.iter().flat_map(|reservation| reservation.items("instancesSet", "item"));
        let zones = items.filter_map(|item| {
            let id = item.text(&["instanceId"])?;
            Some((id.to_owned(), item.text(&["placement", "availabilityZone"])?.to_owned()))
        });
        Ok(zones.collect())
    }

    async fn reservations(&self, call: &Call, ids: &[&str]) -> Result<Vec<Element>> {
        let parameters = Parameters::default()
            .with("Filter.1.Name", "instance-id")
            .with_list("Filter.1.Value", ids)
            .with("MaxResults", "1000");
        let pages = self.ec2.pages(call, "DescribeInstances", "reservationSet", parameters).await?;
        Ok(pages.iter().flat_map(|page| page.items("reservationSet", "item")).cloned().collect())
    }

    /// How many rules a security group has, of both directions; `None` when there is no such group.
    /// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSecurityGroups.html>
    pub(crate) async fn rules(&self, group: &str) -> Result<Option<usize>> {
        let what = format!("looking at the rules of `{group}` in {}", self.region);
        let call = Call::read("ec2:DescribeSecurityGroups", what);
        let parameters =
            Parameters::default().with("Filter.1.Name", "group-id").with_list("Filter.1.Value", [group]);
        let pages = self.ec2.pages(&call, "DescribeSecurityGroups", "securityGroupInfo", parameters).await?;
        let mut items = pages.iter().flat_map(|page| page.items("securityGroupInfo", "item"));
        let found = items.find(|item| item.text(&["groupId"]) == Some(group));
        let rules = |item: &Element| {
            ["ipPermissions", "ipPermissionsEgress"].map(|name| item.items(name, "item").count()).iter().sum()
        };
        Ok(found.map(rules))
    }

    /// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StopInstances.html>; one that is stopped stays so.
    pub(crate) async fn stop(&self, id: &str) -> Result<()> {
        let call = Call::write("ec2:StopInstances", format!("stopping `{id}` in {}", self.region));
        self.change(&call, "StopInstances", Parameters::default().with("InstanceId.1", id)).await
    }

    /// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StartInstances.html>; one that runs goes on.
    pub(crate) async fn start(&self, id: &str) -> Result<()> {
        let call = Call::write("ec2:StartInstances", format!("starting `{id}` in {}", self.region));
        self.change(&call, "StartInstances", Parameters::default().with("InstanceId.1", id)).await
    }

    /// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RebootInstances.html>
    pub(crate) async fn reboot(&self, id: &str) -> Result<()> {
        let call = Call::write("ec2:RebootInstances", format!("rebooting `{id}` in {}", self.region));
        self.change(&call, "RebootInstances", Parameters::default().with("InstanceId.1", id)).await
    }

    /// Sets all groups of the instance's only interface.
    /// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html>
    pub(crate) async fn set_groups(&self, id: &str, groups: &BTreeSet<String>) -> Result<()> {
        let what = format!("setting the security groups of `{id}` in {}", self.region);
        not_empty(groups, &what)?;
        let call = Call::write("ec2:ModifyInstanceAttribute", what);
        let parameters = Parameters::default().with("InstanceId", id).with_list("GroupId", groups);
        self.change(&call, "ModifyInstanceAttribute", parameters).await
    }

    async fn change(&self, call: &Call, action: &str, parameters: Parameters) -> Result<()> {
        let answer = self.ec2.ask(call, action, parameters).await?;
        // Actions without a result say whether they were taken.
        match answer.text(&["return"]) {
            None | Some("true") => Ok(()),
            Some(_) => Err(call.unreadable("it says neither that it was taken nor why not")),
        }
    }
}

fn facts(item: &Element, arn: String, call: &Call) -> Result<Facts> {
    let state = item.text(&["instanceState", "name"]);
    let state = state.ok_or_else(|| call.unreadable("the state of an instance is absent"))?.to_owned();
    let tags: Tags = item
        .items("tagSet", "item")
        .filter_map(|tag| {
            Some((tag.text(&["key"])?.to_owned(), tag.text(&["value"]).unwrap_or_default().to_owned()))
        })
        .collect();
    let groups = item.items("groupSet", "item").filter_map(|group| group.text(&["groupId"]));
    let machine = Machine {
        state,
        group: tags.get(GROUP_TAG).cloned(),
        security_groups: groups.map(str::to_owned).collect(),
        interfaces: count(item.items("networkInterfaceSet", "item").count()),
    };
    Ok(Facts { arn, tags, state: State::Machine(machine) })
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

/// The partition of a Region, which EC2 says nowhere.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>
fn partition(region: &Region) -> &'static str {
    match region.as_str() {
        name if name.starts_with("cn-") => "aws-cn",
        name if name.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// Some of the names, for an error's text.
pub(crate) fn named(ids: &[&str]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = ids.iter().take(SHOWN).map(|id| format!("`{id}`")).collect();
    match ids.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A list that must not be empty, because AWS would take an absent one for all, or for nothing to do.
pub(crate) fn not_empty<T>(list: &BTreeSet<T>, what: &str) -> Result<()> {
    if list.is_empty() {
        return Err(DrError::new(ErrorName::Internal, format!("{what}: none are named")));
    }
    Ok(())
}

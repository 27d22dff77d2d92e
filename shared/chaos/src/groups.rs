//! Auto Scaling groups.

use std::collections::{BTreeMap, BTreeSet};

use dr_aws::errors::Call;
use dr_core::Result;
use dr_core::chaos::world::{Facts, ScalingGroup, State};
use dr_core::ids::Region;
use dr_core::observed::Tags;

use crate::machines::{named, not_empty};
use crate::query::{Parameters, Query};
use crate::xml::Element;

/// Groups of one look.
pub(crate) const BATCH: usize = 50;

/// Auto Scaling in one Region.
#[derive(Debug)]
pub(crate) struct Groups<'a> {
    pub(crate) auto_scaling: Query,
    pub(crate) region: &'a Region,
}

impl Groups<'_> {
    /// Groups by name, of which there must be one: no names are all groups. A name that there is no group of is passed
    /// over.
    /// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeAutoScalingGroups.html>
    pub(crate) async fn look(&self, names: &[&str]) -> Result<BTreeMap<String, Facts>> {
        let what = format!("looking at {} in {}", named(names), self.region);
        let call = Call::read("autoscaling:DescribeAutoScalingGroups", what);
        let parameters =
            Parameters::default().with_list("AutoScalingGroupNames.member", names).with("MaxRecords", "100");
        let list = "AutoScalingGroups";
        let pages = self.auto_scaling.pages(&call, "DescribeAutoScalingGroups", list, parameters).await?;
        let groups = pages.iter().flat_map(|page| page.items(list, "member"));
        groups
            .map(|group| {
                let name = member(group, "AutoScalingGroupName", &call)?;
                Ok((name.to_owned(), facts(group, &call)?))
            })
            .collect()
    }

    /// The group replaces the instance: its capacity stays. An instance of no group is refused.
    /// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_TerminateInstanceInAutoScalingGroup.html>
    pub(crate) async fn terminate(&self, instance: &str) -> Result<()> {
        let what = format!("terminating `{instance}` in {}", self.region);
        let call = Call::write("autoscaling:TerminateInstanceInAutoScalingGroup", what);
        let parameters = Parameters::default()
            .with("InstanceId", instance)
            .with("ShouldDecrementDesiredCapacity", "false");
        self.change(&call, "TerminateInstanceInAutoScalingGroup", parameters).await
    }

    /// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_SuspendProcesses.html>
    pub(crate) async fn suspend(&self, name: &str, processes: &BTreeSet<String>) -> Result<()> {
        let what = format!("suspending processes of `{name}` in {}", self.region);
        // None would be all of them.
        not_empty(processes, &what)?;
        let call = Call::write("autoscaling:SuspendProcesses", what);
        self.change(&call, "SuspendProcesses", of_processes(name, processes)).await
    }

    /// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_ResumeProcesses.html>
    pub(crate) async fn resume(&self, name: &str, processes: &BTreeSet<String>) -> Result<()> {
        let what = format!("resuming processes of `{name}` in {}", self.region);
        // None would be all of them, also those that somebody else suspended.
        not_empty(processes, &what)?;
        let call = Call::write("autoscaling:ResumeProcesses", what);
        self.change(&call, "ResumeProcesses", of_processes(name, processes)).await
    }

    /// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_UpdateAutoScalingGroup.html>
    pub(crate) async fn set_capacity(&self, name: &str, min: u32, desired: u32, max: u32) -> Result<()> {
        let what = format!("setting the capacity of `{name}` in {}", self.region);
        let call = Call::write("autoscaling:UpdateAutoScalingGroup", what);
        let parameters = Parameters::default()
            .with("AutoScalingGroupName", name)
            .with("MinSize", min.to_string())
            .with("MaxSize", max.to_string())
            .with("DesiredCapacity", desired.to_string());
        self.change(&call, "UpdateAutoScalingGroup", parameters).await
    }

    async fn change(&self, call: &Call, action: &str, parameters: Parameters) -> Result<()> {
        self.auto_scaling.ask(call, action, parameters).await?;
        Ok(())
    }
}

fn of_processes(name: &str, processes: &BTreeSet<String>) -> Parameters {
    Parameters::default().with("AutoScalingGroupName", name).with_list("ScalingProcesses.member", processes)
}

fn member<'a>(element: &'a Element, name: &str, call: &Call) -> Result<&'a str> {
    element.text(&[name]).ok_or_else(|| call.unreadable(&format!("{name} is absent")))
}

fn facts(group: &Element, call: &Call) -> Result<Facts> {
    let size = |name: &str| {
        let text = member(group, name, call)?;
        text.parse::<u32>().map_err(|_| call.unreadable(&format!("{name} is no number")))
    };
    let serves = |instance: &&Element| {
        instance.text(&["LifecycleState"]) == Some("InService")
            && instance.text(&["HealthStatus"]).is_some_and(|text| text.eq_ignore_ascii_case("Healthy"))
    };
    let texts = |list: &str, name: &str| -> BTreeSet<String> {
        let found = group.items(list, "member").filter_map(|item| item.text(&[name]));
        found.map(str::to_owned).collect()
    };
    let in_service = group.items("Instances", "member").filter(serves);
    let state = ScalingGroup {
        min: size("MinSize")?,
        desired: size("DesiredCapacity")?,
        max: size("MaxSize")?,
        suspended: texts("SuspendedProcesses", "ProcessName"),
        in_service: in_service.filter_map(|item| item.text(&["InstanceId"])).map(str::to_owned).collect(),
    };
    let arn = member(group, "AutoScalingGroupARN", call)?.to_owned();
    Ok(Facts { arn, tags: tags(group, "Tags"), state: State::ScalingGroup(state) })
}

/// Tags as Auto Scaling and Elastic Load Balancing write them.
pub(crate) fn tags(element: &Element, list: &str) -> Tags {
    let pair = |tag: &Element| {
        Some((tag.text(&["Key"])?.to_owned(), tag.text(&["Value"]).unwrap_or_default().to_owned()))
    };
    element.items(list, "member").filter_map(pair).collect()
}

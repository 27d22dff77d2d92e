//! Target groups of load balancers.

use std::collections::{BTreeMap, BTreeSet};

use dr_aws::errors::Call;
use dr_aws::raw::Refusal;
use dr_core::chaos::world::{Target, TargetGroup};
use dr_core::ids::Region;
use dr_core::observed::{Observed, Tags};
use dr_core::{DrError, Leftovers, Result};

use crate::groups::tags;
use crate::machines::{named, not_empty};
use crate::query::{Parameters, Query};
use crate::xml::Element;

/// Resources whose tags are asked for at once.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTags.html>
const TAGGED: usize = 20;
/// Targets of one change. AWS gives no number; this is what its own controller for Kubernetes sends.
const CHANGED: usize = 200;

/// Elastic Load Balancing in one Region.
#[derive(Debug)]
pub(crate) struct Targets<'a> {
    pub(crate) elb: Query,
    pub(crate) region: &'a Region,
}

impl Targets<'_> {
    /// The targets of one group. Zones are those that AWS reports: none for instances.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTargetHealth.html>
    pub(crate) async fn health(&self, arn: &str) -> Observed<TargetGroup> {
        let call = Call::read(
            "elasticloadbalancing:DescribeTargetHealth",
            format!("looking at target group `{arn}` in {}", self.region),
        );
        // It has no pages; `pages` sees to it that the list is there.
        let parameters = Parameters::default().with("TargetGroupArn", arn);
        match self.elb.pages(&call, "DescribeTargetHealth", "TargetHealthDescriptions", parameters).await {
            Ok(pages) => {
                let items = pages.iter().flat_map(|page| page.items("TargetHealthDescriptions", "member"));
                match read(items, &call) {
                    Ok(group) => Observed::Found(group),
                    Err(error) => Observed::Unreachable(error),
                }
            }
            Err(refusal) if is_missing(&refusal) => Observed::Missing,
            Err(refusal) => Observed::Unreachable(refusal.error),
        }
    }

    /// The tags of groups, by ARN. All are refused when one is missing; then each is asked for by itself, and the missing
    /// one is left out.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTags.html>
    pub(crate) async fn tags(&self, arns: &[&str]) -> Result<BTreeMap<String, Tags>> {
        let mut found = BTreeMap::new();
        for batch in arns.chunks(TAGGED) {
            match self.tags_of(batch).await {
                Ok(tags) => found.extend(tags),
                Err(refusal) if is_missing(&refusal) => {
                    for arn in batch {
                        match self.tags_of(&[arn]).await {
                            Ok(tags) => found.extend(tags),
                            Err(refusal) if is_missing(&refusal) => {}
                            Err(refusal) => return Err(refusal.error),
                        }
                    }
                }
                Err(refusal) => return Err(refusal.error),
            }
        }
        Ok(found)
    }

    async fn tags_of(&self, arns: &[&str]) -> Result<BTreeMap<String, Tags>, Refusal> {
        let what = format!("reading the tags of {} in {}", named(arns), self.region);
        let call = Call::read("elasticloadbalancing:DescribeTags", what);
        let parameters = Parameters::default().with_list("ResourceArns.member", arns);
        let pages = self.elb.pages(&call, "DescribeTags", "TagDescriptions", parameters).await?;
        let items = pages.iter().flat_map(|page| page.items("TagDescriptions", "member"));
        Ok(items
            .filter_map(|item| Some((item.text(&["ResourceArn"])?.to_owned(), tags(item, "Tags"))))
            .collect())
    }

    /// One that is not registered stays so.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DeregisterTargets.html>
    pub(crate) async fn deregister(&self, arn: &str, targets: &BTreeSet<Target>) -> Result<()> {
        let what = format!("deregistering targets of `{arn}` in {}", self.region);
        let call = Call::write("elasticloadbalancing:DeregisterTargets", what.clone());
        not_empty(targets, &what)?;
        let all = targets.iter().collect::<Vec<_>>();
        self.change(&call, "DeregisterTargets", arn, &all).await.map_err(DrError::from)
    }

    /// One that is registered stays so. AWS takes none of a call when one of them cannot be registered, because it is gone
    /// or still starting: then each is tried by itself.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_RegisterTargets.html>
    pub(crate) async fn register(&self, arn: &str, targets: &BTreeSet<Target>) -> Result<()> {
        let what = format!("registering targets of `{arn}` in {}", self.region);
        let call = Call::write("elasticloadbalancing:RegisterTargets", what.clone());
        not_empty(targets, &what)?;
        let all = targets.iter().collect::<Vec<_>>();
        match self.change(&call, "RegisterTargets", arn, &all).await {
            Err(refusal) if refusal.is("InvalidTarget") && all.len() > 1 => {
                let mut last = Ok(());
                for one in all {
                    let sent = self.change(&call, "RegisterTargets", arn, &[one]).await;
                    last = sent.map_err(DrError::from).and(last);
                }
                last
            }
            other => other.map_err(DrError::from),
        }
    }

    async fn change(
        &self,
        call: &Call,
        action: &str,
        arn: &str,
        targets: &[&Target],
    ) -> std::result::Result<(), Refusal> {
        for (done, batch) in targets.chunks(CHANGED).enumerate() {
            let parameters = Parameters::default().with("TargetGroupArn", arn);
            let parameters = batch.iter().enumerate().fold(parameters, |all, (at, target)| {
                described(all, &format!("Targets.member.{}", at + 1), target)
            });
            self.elb.ask(call, action, parameters).await.map_err(|refusal| {
                // What came before it was taken.
                let half = |error: DrError| error.with_leftovers(Leftovers::Unknown);
                if done == 0 { refusal } else { Refusal { error: half(refusal.error), code: refusal.code } }
            })?;
        }
        Ok(())
    }
}

fn described(parameters: Parameters, prefix: &str, target: &Target) -> Parameters {
    let mut parameters = parameters.with(&format!("{prefix}.Id"), &target.id);
    if let Some(port) = target.port {
        parameters = parameters.with(&format!("{prefix}.Port"), port.to_string());
    }
    match target.named_zone() {
        Some(zone) => parameters.with(&format!("{prefix}.AvailabilityZone"), zone),
        None => parameters,
    }
}

/// Whether a target is an instance: the ids of the others are addresses and ARNs.
pub(crate) fn is_instance(target: &Target) -> bool {
    target.id.starts_with("i-")
}

fn is_missing(refusal: &Refusal) -> bool {
    refusal.is("TargetGroupNotFound") || refusal.is("TargetGroupNotFoundException")
}

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetHealth.html>
fn read<'a>(items: impl Iterator<Item = &'a Element>, call: &Call) -> Result<TargetGroup> {
    let mut group = TargetGroup::default();
    for item in items {
        let absent = |what: &str| call.unreadable(&format!("{what} of a target is absent"));
        let id = item.text(&["Target", "Id"]).ok_or_else(|| absent("Id"))?.to_owned();
        let state = item.text(&["TargetHealth", "State"]).ok_or_else(|| absent("State"))?;
        let port = item.text(&["Target", "Port"]).map(str::parse::<u16>).transpose();
        let port = port.map_err(|_| call.unreadable("the port of a target is no port"))?;
        // Of a function `all` is reported, which is no zone; of an address it is what it is registered with.
        let zone = item.text(&["Target", "AvailabilityZone"]).map(str::to_owned);
        let mut target = Target { id, port, zone };
        target.zone = target.named_zone().map(str::to_owned);
        if state == "draining" {
            continue;
        }
        if state == "healthy" {
            group.healthy.insert(target.clone());
        }
        group.registered.insert(target);
    }
    Ok(group)
}

/// The group with the zones of its instances.
pub(crate) fn placed(group: &TargetGroup, zones: &BTreeMap<String, String>) -> TargetGroup {
    let place = |target: &Target| {
        let zone = target.zone.clone().or_else(|| zones.get(&target.id).cloned());
        Target { zone, ..target.clone() }
    };
    TargetGroup {
        registered: group.registered.iter().map(place).collect(),
        healthy: group.healthy.iter().map(place).collect(),
    }
}

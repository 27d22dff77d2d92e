//! The world against a wire: what is sent, and what is made of the answers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dr_aws::testing::{Reply, Sent, Wire, rds_answer};
use dr_core::chaos::world::{
    Change, Database, Facts, Function, Machine, Resource, ResourceKind, ScalingGroup, State, Target,
    TargetGroup,
};
use dr_core::ids::Region;
use dr_core::observed::Observed;
use dr_core::{DrError, ErrorName, Leftovers};
use serde_json::json;

use crate::{FunctionError, World};

const GROUP: &str = "arn:aws:elasticloadbalancing:us-west-2:000000000000:targetgroup/web/0123456789abcdef";
const OTHER: &str = "arn:aws:elasticloadbalancing:us-west-2:000000000000:targetgroup/api/0123456789abcdef";

fn answering(script: impl FnMut(&Sent) -> Reply + Send + 'static) -> (Wire, World) {
    let wire = Wire::new(script);
    let world = World::new(&wire.clients().unwrap());
    (wire, world)
}

fn always(reply: Reply) -> (Wire, World) {
    answering(move |_| reply.clone())
}

fn region() -> Region {
    Region::parse("us-west-2").unwrap()
}

fn one(kind: ResourceKind, id: &str) -> Resource {
    Resource { kind, region: region(), id: id.to_owned() }
}

fn texts(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn target(id: &str, port: Option<u16>, zone: Option<&str>) -> Target {
    Target { id: id.to_owned(), port, zone: zone.map(str::to_owned) }
}

/// One resource's look.
async fn seen(world: &World, kind: ResourceKind, id: &str) -> Observed<Facts> {
    let resource = one(kind, id);
    let mut looks = world.look(&BTreeSet::from([resource.clone()])).await;
    assert_eq!(looks.len(), 1, "{looks:?}");
    looks.remove(&resource).unwrap()
}

fn found(look: Observed<Facts>) -> Facts {
    match look {
        Observed::Found(facts) => facts,
        other => panic!("{other:?}"),
    }
}

/// `Ok` when it is missing, else the error's name.
fn trouble(look: &Observed<Facts>) -> Result<(), ErrorName> {
    match look {
        Observed::Missing => Ok(()),
        Observed::Unreachable(error) => Err(error.name()),
        Observed::Found(facts) => panic!("{facts:?}"),
    }
}

/// The parameters of a query request, without those that every one has.
fn parameters(sent: &Sent) -> BTreeMap<String, String> {
    let mut parameters = sent.parameters();
    parameters.remove("Version");
    parameters
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// An answer as Auto Scaling and Elastic Load Balancing give it.
fn query_answer(action: &str, result: &str) -> Reply {
    Reply::ok(format!(
        "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\n  <{action}Result>{result}\
         </{action}Result>\n  <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>\n</{action}Response>\n"
    ))
}

/// An answer as EC2 gives it.
fn ec2_answer(action: &str, content: &str) -> Reply {
    Reply::ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\n\
         <requestId>r</requestId>{content}</{action}Response>"
    ))
}

fn instance(id: &str, rest: &str) -> String {
    format!(
        "<item><reservationId>r-1</reservationId><ownerId>000000000000</ownerId><groupSet/><instancesSet><item>\
         <instanceId>{id}</instanceId><instanceState><code>16</code><name>running</name></instanceState>\
         <placement><availabilityZone>us-west-2b</availabilityZone></placement>{rest}</item></instancesSet></item>"
    )
}

fn instances(items: &str) -> Reply {
    ec2_answer("DescribeInstances", &format!("<reservationSet>{items}</reservationSet>"))
}

// ---- EC2

#[tokio::test]
async fn instances_are_asked_for_by_a_filter_and_the_missing_one_fails_nobody() {
    let full = "<groupSet><item><groupId>sg-2</groupId><groupName>b</groupName></item><item><groupId>sg-1</groupId></item>\
        </groupSet><tagSet><item><key>dr:chaos</key><value>allowed</value></item><item><key>empty</key><value/></item>\
        <item><key>aws:autoscaling:groupName</key><value>a &amp; b</value></item></tagSet>\
        <networkInterfaceSet><item><groupSet/></item><item/></networkInterfaceSet>";
    let (wire, world) = answering(move |_| instances(&(instance("i-1", full) + &instance("i-3", ""))));
    let kind = ResourceKind::Ec2Instance;
    let wanted: BTreeSet<Resource> = ["i-1", "i-2", "i-*"].map(|id| one(kind, id)).into();
    let mut looks = world.look(&wanted).await;
    let facts = found(looks.remove(&one(kind, "i-1")).unwrap());
    assert_eq!(facts.arn, "arn:aws:ec2:us-west-2:000000000000:instance/i-1");
    assert_eq!((facts.tags["dr:chaos"].as_str(), facts.tags["empty"].as_str()), ("allowed", ""));
    let machine = Machine {
        state: "running".to_owned(),
        group: Some("a & b".to_owned()),
        security_groups: texts(&["sg-1", "sg-2"]),
        interfaces: 2,
    };
    assert_eq!(facts.state, State::Machine(machine));
    // What was not asked for, or only by a pattern, is nobody's.
    assert_eq!(trouble(&looks[&one(kind, "i-2")]), Ok(()));
    assert_eq!(trouble(&looks[&one(kind, "i-*")]), Ok(()));
    assert_eq!(looks.len(), 2);

    let sent = wire.sent().remove(0);
    assert_eq!((sent.method.as_str(), sent.scope.as_str()), ("POST", "us-west-2/ec2"));
    assert_eq!(sent.uri, "https://ec2.us-west-2.amazonaws.com/");
    assert_eq!(sent.headers["content-type"], "application/x-www-form-urlencoded; charset=utf-8");
    assert_eq!(sent.parameter("Version"), "2016-11-15");
    assert_eq!(
        parameters(&sent),
        expected(&[
            ("Action", "DescribeInstances"),
            ("Filter.1.Name", "instance-id"),
            ("Filter.1.Value.1", "i-*"),
            ("Filter.1.Value.2", "i-1"),
            ("Filter.1.Value.3", "i-2"),
            ("MaxResults", "1000"),
        ])
    );
}

#[tokio::test]
async fn the_rules_of_a_security_group_are_counted_in_both_directions() {
    let group = |id: &str, inbound: &str, outbound: &str| {
        format!(
            "<item><groupId>{id}</groupId><ipPermissions>{inbound}</ipPermissions>\
             <ipPermissionsEgress>{outbound}</ipPermissionsEgress></item>"
        )
    };
    let rule = "<item><ipProtocol>-1</ipProtocol><ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges></item>";
    // One that does not filter answers with others, too.
    let items = group("sg-other", rule, rule) + &group("sg-closed", "", "") + &group("sg-out", "", rule);
    let (wire, world) = always(ec2_answer(
        "DescribeSecurityGroups",
        &format!("<securityGroupInfo>{items}</securityGroupInfo>"),
    ));
    let region = Region::parse("us-west-2").unwrap();
    assert!(matches!(world.rules_of(&region, "sg-closed").await, Observed::Found(0)));
    assert!(matches!(world.rules_of(&region, "sg-out").await, Observed::Found(1)));
    assert!(matches!(world.rules_of(&region, "sg-other").await, Observed::Found(2)));
    assert!(matches!(world.rules_of(&region, "sg-none").await, Observed::Missing));
    assert_eq!(
        parameters(&wire.sent()[0]),
        expected(&[
            ("Action", "DescribeSecurityGroups"),
            ("Filter.1.Name", "group-id"),
            ("Filter.1.Value.1", "sg-closed"),
        ])
    );
    let (_, world) = always(Reply::ec2_error(403, "UnauthorizedOperation", "no"));
    let Observed::Unreachable(error) = world.rules_of(&region, "sg-closed").await else { unreachable!() };
    assert_eq!(error.name(), ErrorName::AccessDenied);
}

#[tokio::test]
async fn all_pages_and_all_batches_are_read() {
    let (wire, world) = answering(|sent| {
        let (next, id) = match sent.parameter("NextToken").as_str() {
            "" => ("<nextToken>t+/= &amp;</nextToken>", "i-000"),
            "t+/= &" => ("<nextToken/>", "i-049"),
            other => return Reply::ec2_error(400, "InvalidNextToken", other),
        };
        // The second batch has one id; both answers are for both batches.
        ec2_answer(
            "DescribeInstances",
            &format!("<reservationSet>{}</reservationSet>{next}", instance(id, "")),
        )
    });
    let wanted: BTreeSet<Resource> =
        (0..51).map(|n| one(ResourceKind::Ec2Instance, &format!("i-{n:03}"))).collect();
    let looks = world.look(&wanted).await;
    let there: Vec<&str> = looks
        .iter()
        .filter(|(_, look)| matches!(look, Observed::Found(_)))
        .map(|(resource, _)| resource.id.as_str())
        .collect();
    assert_eq!((there, looks.len(), wire.sent().len()), (vec!["i-000", "i-049"], 51, 4));
    let sizes: BTreeSet<usize> = wire
        .sent()
        .iter()
        .map(|sent| sent.parameters().keys().filter(|key| key.starts_with("Filter.1.Value")).count())
        .collect();
    assert_eq!(sizes, BTreeSet::from([50, 1]));
}

#[tokio::test]
async fn pages_without_end_are_an_error() {
    let (wire, world) =
        always(ec2_answer("DescribeInstances", "<reservationSet/><nextToken>again</nextToken>"));
    assert_eq!(trouble(&seen(&world, ResourceKind::Ec2Instance, "i-1").await), Err(ErrorName::AwsFault));
    assert_eq!(wire.sent().len(), 2);
}

#[tokio::test]
async fn changes_to_machines_are_sent_exactly_so() {
    let groups = Change::SetSecurityGroups { groups: texts(&["sg-1", "sg-2"]) };
    for (change, action, more) in [
        (Change::StopEc2Instance, "StopInstances", vec![("InstanceId.1", "i-1")]),
        (Change::StartEc2Instance, "StartInstances", vec![("InstanceId.1", "i-1")]),
        (Change::RebootEc2Instance, "RebootInstances", vec![("InstanceId.1", "i-1")]),
        (
            groups,
            "ModifyInstanceAttribute",
            vec![("InstanceId", "i-1"), ("GroupId.1", "sg-1"), ("GroupId.2", "sg-2")],
        ),
    ] {
        let (wire, world) = always(ec2_answer(action, "<return>true</return>"));
        world.make(&change, &one(ResourceKind::Ec2Instance, "i-1")).await.unwrap();
        let sent = wire.sent().remove(0);
        assert_eq!((wire.sent().len(), sent.scope.as_str()), (1, "us-west-2/ec2"));
        assert_eq!(parameters(&sent), expected(&[vec![("Action", action)], more].concat()));
    }
    let (wire, world) = always(query_answer("TerminateInstanceInAutoScalingGroup", "<Activity/>"));
    let change = Change::TerminateEc2Instance { instance: "i-1".to_owned() };
    world.make(&change, &one(ResourceKind::Ec2Instance, "i-1")).await.unwrap();
    let sent = wire.sent().remove(0);
    assert_eq!(
        (sent.scope.as_str(), sent.parameter("Version").as_str()),
        ("us-west-2/autoscaling", "2011-01-01")
    );
    assert_eq!(
        parameters(&sent),
        expected(&[
            ("Action", "TerminateInstanceInAutoScalingGroup"),
            ("InstanceId", "i-1"),
            ("ShouldDecrementDesiredCapacity", "false"),
        ])
    );
}

// ---- errors

#[tokio::test]
async fn missing_stays_apart_from_could_not_look_in_every_protocol() {
    let machine = ResourceKind::Ec2Instance;
    let group = ResourceKind::ScalingGroup;
    let targets = ResourceKind::TargetGroup;
    let function = ResourceKind::Function;
    let html = "<html><body>It works</body></html>";
    for (kind, reply, name) in [
        (machine, instances(""), Ok(())),
        (machine, Reply::ec2_error(403, "UnauthorizedOperation", "x"), Err(ErrorName::AccessDenied)),
        (machine, Reply::ec2_error(503, "RequestLimitExceeded", "x"), Err(ErrorName::Throttled)),
        (machine, Reply::ec2_error(500, "InternalError", "x"), Err(ErrorName::AwsFault)),
        (machine, Reply::ec2_error(400, "FilterLimitExceeded", "x"), Err(ErrorName::AwsRejected)),
        (machine, Reply::Answer { status: 502, body: html.to_owned() }, Err(ErrorName::AwsFault)),
        (machine, Reply::Answer { status: 403, body: html.to_owned() }, Err(ErrorName::AccessDenied)),
        (machine, Reply::Answer { status: 503, body: String::new() }, Err(ErrorName::Throttled)),
        (machine, Reply::Broken, Err(ErrorName::AwsUnreachable)),
        (machine, Reply::Late, Err(ErrorName::AwsUnreachable)),
        (group, query_answer("DescribeAutoScalingGroups", "<AutoScalingGroups/>"), Ok(())),
        (group, Reply::query_error(403, "AccessDenied", "x"), Err(ErrorName::AccessDenied)),
        (group, Reply::query_error(400, "Throttling", "x"), Err(ErrorName::Throttled)),
        (group, Reply::query_error(500, "InternalFailure", "x"), Err(ErrorName::AwsFault)),
        (group, Reply::Broken, Err(ErrorName::AwsUnreachable)),
        (targets, Reply::query_error(400, "TargetGroupNotFound", "x"), Ok(())),
        (targets, Reply::query_error(400, "ValidationError", "x"), Err(ErrorName::AwsRejected)),
        (targets, Reply::query_error(500, "HealthUnavailable", "x"), Err(ErrorName::AwsFault)),
        (targets, Reply::Late, Err(ErrorName::AwsUnreachable)),
        (function, Reply::lambda_error(404, "ResourceNotFoundException", "x"), Ok(())),
        (function, Reply::lambda_error(403, "AccessDeniedException", "x"), Err(ErrorName::AccessDenied)),
        (function, Reply::lambda_error(429, "TooManyRequestsException", "x"), Err(ErrorName::Throttled)),
        (function, Reply::lambda_error(500, "ServiceException", "x"), Err(ErrorName::AwsFault)),
        (function, Reply::Answer { status: 404, body: html.to_owned() }, Err(ErrorName::AwsRejected)),
        (function, Reply::ok(html), Err(ErrorName::AwsFault)),
        (function, Reply::ok("{}"), Err(ErrorName::AwsFault)),
        (function, Reply::Broken, Err(ErrorName::AwsUnreachable)),
        (ResourceKind::DbInstance, Reply::query_error(404, "DBInstanceNotFound", "x"), Ok(())),
        (ResourceKind::DbCluster, Reply::query_error(404, "DBClusterNotFoundFault", "x"), Ok(())),
        (ResourceKind::DbCluster, Reply::Broken, Err(ErrorName::AwsUnreachable)),
    ] {
        let shown = format!("{kind} {reply:?}");
        let (_, world) = always(reply);
        assert_eq!(trouble(&seen(&world, kind, "i-1").await), name, "{shown}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_never_an_empty_one() {
    let whole = format!("<reservationSet>{}</reservationSet>", instance("i-1", ""));
    let whole =
        format!("<DescribeInstancesResponse><requestId>r</requestId>{whole}</DescribeInstancesResponse>");
    for end in 0..whole.len() {
        let (_, world) = always(Reply::ok(&whole[..end]));
        let look = seen(&world, ResourceKind::Ec2Instance, "i-1").await;
        assert_eq!(trouble(&look), Err(ErrorName::AwsFault), "{}", &whole[..end]);
    }
    let other = whole.replace("DescribeInstancesResponse", "DescribeImagesResponse");
    let listless = whole.replace("reservationSet", "imagesSet");
    let nameless = whole.replace("<instanceId>i-1</instanceId>", "");
    let ownerless = whole.replace("ownerId", "owner");
    let stateless = whole.replace("instanceState", "state");
    let bomb = format!("<!DOCTYPE x [<!ENTITY a \"b\">]>{whole}");
    let entity = whole.replace("i-1", "&a;");
    let deep = whole.replace("i-1", &("<a>".repeat(99) + &"</a>".repeat(99)));
    let large = whole.replace("i-1", &" ".repeat(9 << 20));
    let crowded = whole.replace("i-1", &"<a/>".repeat(200_000));
    for bad in [other, listless, nameless, ownerless, stateless, bomb, entity, deep, large, crowded] {
        let shown: String = bad.chars().take(200).collect();
        let (_, world) = always(Reply::ok(bad));
        let look = seen(&world, ResourceKind::Ec2Instance, "i-1").await;
        assert_eq!(trouble(&look), Err(ErrorName::AwsFault), "{shown}");
    }
}

#[tokio::test]
async fn one_failure_is_told_of_each_resource_that_it_keeps_from_being_seen() {
    let (_, world) = answering(|sent| {
        if sent.region() == "us-west-2" {
            return Reply::ec2_error(403, "UnauthorizedOperation", "Encoded authorization failure message");
        }
        instances(&instance("i-1", ""))
    });
    let kind = ResourceKind::Ec2Instance;
    let home = Resource { region: Region::parse("us-gov-east-1").unwrap(), ..one(kind, "i-1") };
    let looks = world.look(&BTreeSet::from([one(kind, "i-1"), one(kind, "i-2"), home.clone()])).await;
    for id in ["i-1", "i-2"] {
        let Observed::Unreachable(error) = &looks[&one(kind, id)] else { panic!() };
        assert_eq!(error.name(), ErrorName::AccessDenied);
        assert!(error.what().contains("`i-1`, `i-2` in us-west-2"), "{error}");
        assert!(
            error.what().contains("ec2:DescribeInstances was refused (UnauthorizedOperation)"),
            "{error}"
        );
    }
    let Observed::Found(facts) = &looks[&home] else { panic!("{looks:?}") };
    assert_eq!(facts.arn, "arn:aws-us-gov:ec2:us-gov-east-1:000000000000:instance/i-1");
}

#[tokio::test]
async fn a_change_that_was_cut_off_leaves_an_unknown_state_and_a_refused_one_does_not() {
    let targets = Change::RegisterTargets { targets: BTreeSet::from([target("i-1", None, None)]) };
    let refused = |code| Reply::query_error(400, code, "because");
    for (kind, change, reply, name, leftovers) in [
        (
            ResourceKind::Ec2Instance,
            Change::StartEc2Instance,
            Reply::ec2_error(500, "InsufficientInstanceCapacity", "because"),
            ErrorName::InsufficientCapacity,
            Leftovers::Clear,
        ),
        (
            ResourceKind::Ec2Instance,
            Change::StopEc2Instance,
            Reply::ec2_error(400, "OperationNotPermitted", "because"),
            ErrorName::FaultImpossible,
            Leftovers::Clear,
        ),
        (
            ResourceKind::Ec2Instance,
            Change::StopEc2Instance,
            ec2_answer("StopInstances", "<return>false</return>"),
            ErrorName::AwsFault,
            Leftovers::Unknown,
        ),
        (
            ResourceKind::Ec2Instance,
            Change::StopEc2Instance,
            Reply::ok("<html/>"),
            ErrorName::AwsFault,
            Leftovers::Unknown,
        ),
        (
            ResourceKind::Ec2Instance,
            Change::StopEc2Instance,
            Reply::Late,
            ErrorName::AwsUnreachable,
            Leftovers::Unknown,
        ),
        (
            ResourceKind::TargetGroup,
            targets,
            refused("InvalidTarget"),
            ErrorName::FaultImpossible,
            Leftovers::Clear,
        ),
        (
            ResourceKind::ScalingGroup,
            Change::SetCapacity { min: 0, desired: 1, max: 2 },
            refused("ScalingActivityInProgress"),
            ErrorName::StateConflict,
            Leftovers::Clear,
        ),
        (
            ResourceKind::ScalingGroup,
            Change::SetCapacity { min: 0, desired: 1, max: 2 },
            Reply::Broken,
            ErrorName::AwsUnreachable,
            Leftovers::Unknown,
        ),
        (
            ResourceKind::Function,
            Change::ReleaseConcurrency,
            Reply::lambda_error(404, "ResourceNotFoundException", "because"),
            ErrorName::TargetMissing,
            Leftovers::Clear,
        ),
        (
            ResourceKind::Function,
            Change::ReserveConcurrency { executions: 0 },
            Reply::Broken,
            ErrorName::AwsUnreachable,
            Leftovers::Unknown,
        ),
        (
            ResourceKind::DbInstance,
            Change::StartDbInstance,
            refused("InvalidDBInstanceState"),
            ErrorName::DatabaseUnavailable,
            Leftovers::Clear,
        ),
        (
            ResourceKind::DbCluster,
            Change::StopDbCluster,
            Reply::Late,
            ErrorName::AwsUnreachable,
            Leftovers::Unknown,
        ),
    ] {
        let shown = format!("{change:?} {reply:?}");
        let (wire, world) = always(reply);
        let error = world.make(&change, &one(kind, "i-1")).await.unwrap_err();
        assert_eq!((error.name(), error.leftovers(), wire.sent().len()), (name, &leftovers, 1), "{shown}");
        if name == ErrorName::FaultImpossible {
            assert!(error.what().contains("because"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_change_that_is_not_one_for_the_resource_is_not_sent() {
    let none = BTreeSet::new;
    for (kind, change) in [
        (ResourceKind::Region, Change::BlockRegion),
        (ResourceKind::Region, Change::UnblockRegion),
        (ResourceKind::Ec2Instance, Change::StopDbInstance),
        (ResourceKind::Ec2Instance, Change::TerminateEc2Instance { instance: "i-2".to_owned() }),
        (ResourceKind::Ec2Instance, Change::SetSecurityGroups { groups: none() }),
        (ResourceKind::ScalingGroup, Change::StopEc2Instance),
        // AWS would take these for all processes.
        (ResourceKind::ScalingGroup, Change::SuspendProcesses { processes: none() }),
        (ResourceKind::ScalingGroup, Change::ResumeProcesses { processes: none() }),
        (ResourceKind::TargetGroup, Change::ReleaseConcurrency),
        (ResourceKind::TargetGroup, Change::RegisterTargets { targets: BTreeSet::new() }),
        (ResourceKind::TargetGroup, Change::DeregisterTargets { targets: BTreeSet::new() }),
        (ResourceKind::Function, Change::StartEc2Instance),
        (ResourceKind::DbInstance, Change::StopDbCluster),
        (ResourceKind::DbCluster, Change::StopDbInstance),
        (ResourceKind::DbCluster, Change::RebootDbInstance { force_failover: true }),
    ] {
        let (wire, world) = always(Reply::Broken);
        let error = world.make(&change, &one(kind, "i-1")).await.unwrap_err();
        assert_eq!((error.name(), wire.sent().len()), (ErrorName::Internal, 0), "{change:?} {kind}");
    }
}

// ---- Auto Scaling

#[tokio::test]
async fn groups_are_read_with_who_is_in_service() {
    let member = |id: &str, state: &str, health: &str| {
        format!(
            "<member><InstanceId>{id}</InstanceId><LifecycleState>{state}</LifecycleState><HealthStatus>{health}\
             </HealthStatus><AvailabilityZone>us-west-2a</AvailabilityZone></member>"
        )
    };
    let members = [
        member("i-1", "InService", "Healthy"),
        member("i-2", "InService", "HEALTHY"),
        member("i-3", "InService", "Unhealthy"),
        member("i-4", "Pending", "Healthy"),
        member("i-5", "Terminating:Wait", "Healthy"),
    ];
    let group = format!(
        "<member><AutoScalingGroupName>web</AutoScalingGroupName><AutoScalingGroupARN>arn:web</AutoScalingGroupARN>\
         <MinSize>1</MinSize><MaxSize>9</MaxSize><DesiredCapacity>5</DesiredCapacity><Instances>{}</Instances>\
         <SuspendedProcesses><member><ProcessName>Launch</ProcessName><SuspensionReason>User suspended at …\
         </SuspensionReason></member></SuspendedProcesses><Tags><member><ResourceId>web</ResourceId><Key>dr:chaos</Key>\
         <Value>allowed</Value><PropagateAtLaunch>true</PropagateAtLaunch></member></Tags></member>",
        members.concat()
    );
    let (wire, world) = answering(move |sent| {
        let (list, next) = match sent.parameter("NextToken").as_str() {
            "" => (String::new(), "<NextToken>more</NextToken>"),
            _ => (group.clone(), ""),
        };
        query_answer(
            "DescribeAutoScalingGroups",
            &format!("<AutoScalingGroups>{list}</AutoScalingGroups>{next}"),
        )
    });
    let kind = ResourceKind::ScalingGroup;
    let mut looks = world.look(&BTreeSet::from([one(kind, "web"), one(kind, "gone")])).await;
    let facts = found(looks.remove(&one(kind, "web")).unwrap());
    assert_eq!((facts.arn.as_str(), facts.tags["dr:chaos"].as_str()), ("arn:web", "allowed"));
    let group = ScalingGroup {
        min: 1,
        desired: 5,
        max: 9,
        suspended: texts(&["Launch"]),
        in_service: texts(&["i-1", "i-2"]),
    };
    assert_eq!(facts.state, State::ScalingGroup(group));
    assert_eq!(trouble(&looks[&one(kind, "gone")]), Ok(()));
    let sent = wire.sent().remove(0);
    assert_eq!(
        (sent.scope.as_str(), sent.uri.as_str()),
        ("us-west-2/autoscaling", "https://autoscaling.us-west-2.amazonaws.com/")
    );
    assert_eq!(
        parameters(&sent),
        expected(&[
            ("Action", "DescribeAutoScalingGroups"),
            ("AutoScalingGroupNames.member.1", "gone"),
            ("AutoScalingGroupNames.member.2", "web"),
            ("MaxRecords", "100"),
        ])
    );
    for bad in ["<MinSize/>", "<MinSize>-1</MinSize>", "<MinSize>many</MinSize>"] {
        let group = format!(
            "<AutoScalingGroups><member><AutoScalingGroupName>web</AutoScalingGroupName><AutoScalingGroupARN>a\
             </AutoScalingGroupARN>{bad}<MaxSize>9</MaxSize><DesiredCapacity>5</DesiredCapacity></member></AutoScalingGroups>"
        );
        let (_, world) = always(query_answer("DescribeAutoScalingGroups", &group));
        assert_eq!(trouble(&seen(&world, kind, "web").await), Err(ErrorName::AwsFault), "{bad}");
    }
}

#[tokio::test]
async fn changes_to_groups_are_sent_exactly_so() {
    let named = vec![
        ("AutoScalingGroupName", "web & api"),
        ("ScalingProcesses.member.1", "Launch"),
        ("ScalingProcesses.member.2", "ReplaceUnhealthy"),
    ];
    let processes = texts(&["ReplaceUnhealthy", "Launch"]);
    for (change, action, more) in [
        (Change::SuspendProcesses { processes: processes.clone() }, "SuspendProcesses", named.clone()),
        (Change::ResumeProcesses { processes }, "ResumeProcesses", named),
        (
            Change::SetCapacity { min: 0, desired: 2, max: 4 },
            "UpdateAutoScalingGroup",
            vec![
                ("AutoScalingGroupName", "web & api"),
                ("MinSize", "0"),
                ("DesiredCapacity", "2"),
                ("MaxSize", "4"),
            ],
        ),
    ] {
        // These have no result, only metadata.
        let (wire, world) = always(Reply::ok(format!(
            "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><ResponseMetadata><RequestId>r\
             </RequestId></ResponseMetadata></{action}Response>"
        )));
        world.make(&change, &one(ResourceKind::ScalingGroup, "web & api")).await.unwrap();
        assert_eq!(parameters(&wire.sent()[0]), expected(&[vec![("Action", action)], more].concat()));
    }
}

// ---- Elastic Load Balancing

fn health(id: &str, more: &str, state: &str) -> String {
    format!(
        "<member><HealthCheckPort>80</HealthCheckPort><Target><Id>{id}</Id>{more}</Target><TargetHealth><State>{state}\
         </State></TargetHealth></member>"
    )
}

fn health_answer(members: &str) -> Reply {
    query_answer(
        "DescribeTargetHealth",
        &format!("<TargetHealthDescriptions>{members}</TargetHealthDescriptions>"),
    )
}

fn tags_answer(arns: &[String]) -> Reply {
    let one = |arn: &String| {
        format!(
            "<member><ResourceArn>{arn}</ResourceArn><Tags><member><Key>dr:chaos</Key><Value>allowed</Value></member></Tags>\
             </member>"
        )
    };
    let all: String = arns.iter().map(one).collect();
    query_answer("DescribeTags", &format!("<TagDescriptions>{all}</TagDescriptions>"))
}

fn arns_of(sent: &Sent) -> Vec<String> {
    let parameters = sent.parameters();
    let arns = parameters.iter().filter(|(key, _)| key.starts_with("ResourceArns.member."));
    arns.map(|(_, arn)| arn.clone()).collect()
}

#[tokio::test]
async fn target_groups_are_read_with_zones_from_where_they_are_known() {
    let function = "arn:aws:lambda:us-west-2:000000000000:function:f";
    let port = "<Port>80</Port>";
    let placed = |zone: &str| format!("{port}<AvailabilityZone>{zone}</AvailabilityZone>");
    let members = [
        health("i-1", port, "healthy"),
        health("i-2", port, "unhealthy"),
        health("i-3", port, "draining"),
        health("i-4", port, "unused"),
        health("i-5", port, "unhealthy.draining"),
        health("10.0.0.1", &placed("us-west-2a"), "healthy"),
        health("10.9.0.1", &placed("all"), "initial"),
        health(function, "<AvailabilityZone>all</AvailabilityZone>", "healthy"),
    ]
    .concat();
    let (wire, world) = answering(move |sent| match sent.action.as_str() {
        "DescribeTargetHealth" => health_answer(&members),
        "DescribeTags" => tags_answer(&arns_of(sent)),
        _ => instances(&(instance("i-1", "") + &instance("i-4", ""))),
    });
    let facts = found(seen(&world, ResourceKind::TargetGroup, GROUP).await);
    assert_eq!((facts.arn.as_str(), facts.tags["dr:chaos"].as_str()), (GROUP, "allowed"));
    let healthy = BTreeSet::from([
        target("i-1", Some(80), Some("us-west-2b")),
        target("10.0.0.1", Some(80), Some("us-west-2a")),
        target(function, None, None),
    ]);
    let mut registered = healthy.clone();
    registered.extend([
        target("i-2", Some(80), None),
        target("i-4", Some(80), Some("us-west-2b")),
        target("i-5", Some(80), None),
        target("10.9.0.1", Some(80), Some("all")),
    ]);
    assert_eq!(facts.state, State::TargetGroup(TargetGroup { registered, healthy }));

    let asked = wire.sent_of("DescribeTargetHealth").remove(0);
    assert_eq!(
        (asked.scope.as_str(), asked.uri.as_str(), asked.parameter("Version").as_str()),
        (
            "us-west-2/elasticloadbalancing",
            "https://elasticloadbalancing.us-west-2.amazonaws.com/",
            "2015-12-01"
        )
    );
    assert_eq!(
        parameters(&asked),
        expected(&[("Action", "DescribeTargetHealth"), ("TargetGroupArn", GROUP)])
    );
    let zones = wire.sent_of("DescribeInstances").remove(0).parameters();
    let ids: Vec<&str> = zones
        .iter()
        .filter(|(key, _)| key.starts_with("Filter.1.Value"))
        .map(|(_, id)| id.as_str())
        .collect();
    assert_eq!(ids, ["i-1", "i-2", "i-4", "i-5"]);
}

#[tokio::test]
async fn trouble_with_zones_keeps_no_target_group_from_being_seen() {
    for reply in [Reply::Broken, Reply::ec2_error(403, "UnauthorizedOperation", "x"), Reply::ok("<html/>")] {
        let (_, world) = answering(move |sent| match sent.action.as_str() {
            "DescribeTargetHealth" => health_answer(&health("i-1", "<Port>80</Port>", "healthy")),
            "DescribeTags" => tags_answer(&arns_of(sent)),
            _ => reply.clone(),
        });
        let State::TargetGroup(group) = found(seen(&world, ResourceKind::TargetGroup, GROUP).await).state
        else {
            panic!()
        };
        assert_eq!(group.registered, BTreeSet::from([target("i-1", Some(80), None)]));
    }
}

#[tokio::test]
async fn a_target_group_that_is_gone_keeps_no_other_from_being_seen() {
    let kind = ResourceKind::TargetGroup;
    // Gone from the beginning, and gone between the two calls.
    for early in [true, false] {
        let (wire, world) = answering(move |sent| {
            let gone =
                || Reply::query_error(400, "TargetGroupNotFound", "One or more target groups not found");
            match sent.action.as_str() {
                "DescribeTargetHealth" if early && sent.parameter("TargetGroupArn") == OTHER => gone(),
                "DescribeTargetHealth" => health_answer(""),
                _ if arns_of(sent).contains(&OTHER.to_owned()) => gone(),
                _ => tags_answer(&arns_of(sent)),
            }
        });
        let mut looks = world.look(&BTreeSet::from([one(kind, GROUP), one(kind, OTHER)])).await;
        assert_eq!(trouble(&looks[&one(kind, OTHER)]), Ok(()));
        let facts = found(looks.remove(&one(kind, GROUP)).unwrap());
        assert_eq!(facts.state, State::TargetGroup(TargetGroup::default()));
        // No instance, no look for zones.
        assert!(wire.sent_of("DescribeInstances").is_empty());
    }
    let (_, world) = answering(|sent| match sent.action.as_str() {
        "DescribeTargetHealth" => health_answer(""),
        _ => Reply::query_error(403, "AccessDenied", "x"),
    });
    assert_eq!(trouble(&seen(&world, kind, GROUP).await), Err(ErrorName::AccessDenied));
}

#[tokio::test]
async fn targets_are_registered_with_a_zone_only_where_aws_takes_one() {
    let function = "arn:aws:lambda:us-west-2:000000000000:function:f";
    let targets = BTreeSet::from([
        target("10.0.0.1", Some(80), Some("us-west-2a")),
        target("10.9.0.1", Some(80), Some("all")),
        target("2001:db8::1", None, Some("us-west-2a")),
        target("i-1", Some(8080), Some("us-west-2a")),
        target("i-1", Some(8081), None),
        target(function, None, Some("all")),
    ]);
    for (change, action) in [
        (Change::RegisterTargets { targets: targets.clone() }, "RegisterTargets"),
        (Change::DeregisterTargets { targets }, "DeregisterTargets"),
    ] {
        let (wire, world) = always(query_answer(action, ""));
        world.make(&change, &one(ResourceKind::TargetGroup, GROUP)).await.unwrap();
        assert_eq!(
            parameters(&wire.sent()[0]),
            expected(&[
                ("Action", action),
                ("TargetGroupArn", GROUP),
                ("Targets.member.1.Id", "10.0.0.1"),
                ("Targets.member.1.Port", "80"),
                ("Targets.member.1.AvailabilityZone", "us-west-2a"),
                ("Targets.member.2.Id", "10.9.0.1"),
                ("Targets.member.2.Port", "80"),
                ("Targets.member.2.AvailabilityZone", "all"),
                ("Targets.member.3.Id", "2001:db8::1"),
                ("Targets.member.3.AvailabilityZone", "us-west-2a"),
                ("Targets.member.4.Id", function),
                ("Targets.member.5.Id", "i-1"),
                ("Targets.member.5.Port", "8080"),
                ("Targets.member.6.Id", "i-1"),
                ("Targets.member.6.Port", "8081"),
            ])
        );
    }
}

#[tokio::test]
async fn many_targets_are_changed_in_turns_and_half_a_change_is_not_none() {
    let targets: BTreeSet<Target> = (0..450).map(|n| target(&format!("i-{n:03}"), None, None)).collect();
    let change = Change::DeregisterTargets { targets };
    let mut calls = 0;
    let (wire, world) = answering(move |_| {
        calls += 1;
        // The first time all are taken, the second time only the first of three.
        if calls <= 4 {
            query_answer("DeregisterTargets", "")
        } else {
            Reply::query_error(400, "InvalidTarget", "because")
        }
    });
    let group = one(ResourceKind::TargetGroup, GROUP);
    world.make(&change, &group).await.unwrap();
    let sizes: Vec<usize> = wire
        .sent()
        .iter()
        .map(|sent| sent.parameters().keys().filter(|key| key.ends_with(".Id")).count())
        .collect();
    assert_eq!(sizes, [200, 200, 50]);
    let error = world.make(&change, &group).await.unwrap_err();
    assert_eq!((error.name(), error.leftovers()), (ErrorName::FaultImpossible, &Leftovers::Unknown));
    assert_eq!(wire.sent().len(), 5);
}

// ---- Lambda

const FUNCTION: &str = "arn:aws:lambda:us-west-2:000000000000:function:pay";

fn lambda(concurrency: serde_json::Value) -> (Wire, World) {
    answering(move |sent| match sent.uri.split("/20").nth(1).unwrap_or_default() {
        uri if uri.ends_with("/configuration") => Reply::ok(json!({"FunctionArn": FUNCTION}).to_string()),
        uri if uri.contains("/tags/") => Reply::ok(json!({"Tags": {"dr:chaos": "allowed"}}).to_string()),
        _ => Reply::ok(concurrency.to_string()),
    })
}

#[tokio::test]
async fn functions_are_read_with_their_concurrency() {
    for (answer, concurrency) in [
        (json!({}), Some(None)),
        (json!({"ReservedConcurrentExecutions": 0}), Some(Some(0))),
        (json!({"ReservedConcurrentExecutions": 7}), Some(Some(7))),
        (json!({"ReservedConcurrentExecutions": -1}), None),
        (json!({"ReservedConcurrentExecutions": "7"}), None),
    ] {
        let (wire, world) = lambda(answer.clone());
        let look = seen(&world, ResourceKind::Function, "pay").await;
        let Some(reserved_concurrency) = concurrency else {
            assert_eq!(trouble(&look), Err(ErrorName::AwsFault), "{answer}");
            continue;
        };
        let facts = found(look);
        assert_eq!(facts.state, State::Function(Function { reserved_concurrency }));
        assert_eq!((facts.arn.as_str(), facts.tags["dr:chaos"].as_str()), (FUNCTION, "allowed"));
        let host = "https://lambda.us-west-2.amazonaws.com";
        let sent: BTreeSet<String> =
            wire.sent().iter().map(|sent| format!("{} {} {}", sent.scope, sent.method, sent.uri)).collect();
        assert_eq!(
            sent,
            texts(&[
                &format!("us-west-2/lambda GET {host}/2015-03-31/functions/pay/configuration"),
                &format!("us-west-2/lambda GET {host}/2017-03-31/tags/{}", FUNCTION.replace(':', "%3A")),
                &format!("us-west-2/lambda GET {host}/2019-09-30/functions/pay/concurrency"),
            ])
        );
    }
    // No tags at all is no trouble.
    let (_, world) = always(Reply::ok(json!({"FunctionArn": FUNCTION}).to_string()));
    assert!(found(seen(&world, ResourceKind::Function, "pay").await).tags.is_empty());
}

#[tokio::test]
async fn changes_to_functions_are_sent_exactly_so() {
    for (change, method, body) in [
        (Change::ReserveConcurrency { executions: 0 }, "PUT", r#"{"ReservedConcurrentExecutions":0}"#),
        (Change::ReserveConcurrency { executions: 7 }, "PUT", r#"{"ReservedConcurrentExecutions":7}"#),
        (Change::ReleaseConcurrency, "DELETE", ""),
    ] {
        let (wire, world) = always(Reply::Answer { status: 204, body: String::new() });
        world.make(&change, &one(ResourceKind::Function, "pay/../x")).await.unwrap();
        let sent = wire.sent().remove(0);
        assert_eq!((sent.method.as_str(), sent.body.as_str()), (method, body));
        assert!(sent.uri.ends_with("/2017-10-31/functions/pay%2F..%2Fx/concurrency"), "{}", sent.uri);
    }
}

#[tokio::test]
async fn an_invocation_answers_what_the_function_answered() {
    let (wire, world) = always(Reply::ok(r#"{"intact": true}"#));
    let payload = json!({"ledger": {"database": "orders"}});
    let answer = world.invoke("validate", &payload, Duration::from_secs(30)).await.unwrap();
    assert_eq!(answer, json!({"intact": true}));
    let sent = wire.sent().remove(0);
    assert_eq!((sent.scope.as_str(), sent.method.as_str()), ("us-east-1/lambda", "POST"));
    assert!(sent.uri.ends_with("/2015-03-31/functions/validate/invocations"), "{}", sent.uri);
    assert_eq!(sent.headers["x-amz-invocation-type"], "RequestResponse");
    assert_eq!(sent.json(), payload);
    let (_, world) = always(Reply::ok(""));
    assert_eq!(world.invoke("f", &payload, Duration::from_secs(30)).await.unwrap(), json!(null));
}

#[tokio::test]
async fn a_functions_error_keeps_its_name() {
    let failing = |body: serde_json::Value| {
        let headers = vec![("x-amz-function-error", "Unhandled")];
        always(Reply::Headed { status: 200, headers, body: body.to_string() }).1
    };
    let ours = DrError::new(ErrorName::ConnectionFailed, "connecting to `orders`")
        .with_leftovers(Leftovers::Unknown);
    for (body, name, leftovers, source) in [
        (
            json!({"errorType": "Dr.ConnectionFailed", "errorMessage": ours.to_string()}),
            ErrorName::ConnectionFailed,
            Leftovers::Unknown,
            "Dr.ConnectionFailed",
        ),
        (
            json!({"errorType": "Dr.InvalidInput", "errorMessage": "reading the request. Correct it."}),
            ErrorName::InvalidInput,
            Leftovers::Clear,
            "Dr.InvalidInput",
        ),
        (
            json!({"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: r Error: Task timed out after 3.00 seconds"}),
            ErrorName::FunctionTimedOut,
            Leftovers::Unknown,
            "Sandbox.Timedout",
        ),
        (
            json!({"errorMessage": "2026-01-02T03:04:05.678Z r Task timed out after 3.00 seconds"}),
            ErrorName::FunctionTimedOut,
            Leftovers::Unknown,
            "",
        ),
        (
            json!({"errorType": "Runtime.ExitError", "errorMessage": "RequestId: r Error: Runtime exited"}),
            ErrorName::FunctionKilled,
            Leftovers::Unknown,
            "Runtime.ExitError",
        ),
        (json!("what"), ErrorName::FunctionKilled, Leftovers::Unknown, ""),
    ] {
        let sent = failing(body.clone()).invoke("validate", &json!({}), Duration::from_secs(30)).await;
        let error = sent.unwrap_err();
        assert_eq!((error.name(), error.leftovers()), (name, &leftovers), "{body}");
        assert!(error.what().starts_with("invoking `validate` in us-east-1: "), "{error}");
        assert_eq!(error.to_string().matches(name.remedy()).count(), 1, "{error}");
        let cause = std::error::Error::source(&error).unwrap().downcast_ref::<FunctionError>().unwrap();
        assert_eq!(cause.error_type, source);
    }
    let shown = failing(json!({"errorType": "Dr.ConnectionFailed", "errorMessage": ours.to_string()}));
    let error = shown.invoke("validate", &json!({}), Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(error.what(), "invoking `validate` in us-east-1: connecting to `orders`");
}

#[tokio::test]
async fn an_invocation_that_did_not_happen_says_why() {
    for (reply, name, leftovers) in [
        (
            Reply::lambda_error(404, "ResourceNotFoundException", "x"),
            ErrorName::InvalidConfiguration,
            Leftovers::Clear,
        ),
        (Reply::lambda_error(429, "TooManyRequestsException", "x"), ErrorName::Throttled, Leftovers::Clear),
        (Reply::lambda_error(403, "AccessDeniedException", "x"), ErrorName::AccessDenied, Leftovers::Clear),
        (Reply::lambda_error(413, "RequestTooLargeException", "x"), ErrorName::AwsRejected, Leftovers::Clear),
        (Reply::lambda_error(500, "ServiceException", "x"), ErrorName::AwsFault, Leftovers::Unknown),
        (Reply::ok("not json"), ErrorName::AwsFault, Leftovers::Unknown),
        (Reply::Late, ErrorName::AwsUnreachable, Leftovers::Unknown),
    ] {
        let shown = format!("{reply:?}");
        let (_, world) = always(reply);
        let error = world.invoke("validate", &json!({}), Duration::from_secs(30)).await.unwrap_err();
        assert_eq!((error.name(), error.leftovers()), (name, &leftovers), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invocation_has_the_callers_time() {
    for seconds in [2, 300] {
        let (_, world) = always(Reply::Never);
        let begun = tokio::time::Instant::now();
        let sent = world.invoke("validate", &json!({}), Duration::from_secs(seconds)).await;
        assert_eq!(sent.unwrap_err().name(), ErrorName::AwsUnreachable);
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
}

// ---- CloudWatch

#[tokio::test]
async fn an_alarms_state_is_what_cloudwatch_says() {
    let alarm = |name: &str, state: &str| json!({"AlarmName": name, "StateValue": state, "AlarmArn": "a"});
    let answers = [
        (json!({"MetricAlarms": [alarm("slow", "OK")], "CompositeAlarms": []}), Some("OK")),
        (json!({"MetricAlarms": [], "CompositeAlarms": [alarm("slow", "ALARM")]}), Some("ALARM")),
        (
            json!({"MetricAlarms": [alarm("slower", "OK"), alarm("slow", "INSUFFICIENT_DATA")]}),
            Some("INSUFFICIENT_DATA"),
        ),
        (json!({"MetricAlarms": [alarm("slower", "OK")], "CompositeAlarms": []}), None),
        (json!({"MetricAlarms": []}), None),
    ];
    for (answer, state) in answers {
        let (wire, world) = always(Reply::ok(answer.to_string()));
        let seen = world.alarm_state(&region(), "slow").await.into_option().unwrap();
        assert_eq!(seen.as_deref(), state, "{answer}");
        let sent = wire.sent().remove(0);
        assert_eq!((sent.scope.as_str(), sent.action.as_str()), ("us-west-2/monitoring", "DescribeAlarms"));
        assert_eq!(
            sent.json(),
            json!({"AlarmNames": ["slow"], "AlarmTypes": ["MetricAlarm", "CompositeAlarm"]})
        );
    }
    for (reply, name) in [
        (Reply::json_error("com.amazonaws.cloudwatch#AccessDeniedException", "x"), ErrorName::AccessDenied),
        (Reply::json_error("Throttling", "x"), ErrorName::Throttled),
        (Reply::ok("{}"), ErrorName::AwsFault),
        (Reply::ok("<html/>"), ErrorName::AwsFault),
        (Reply::Broken, ErrorName::AwsUnreachable),
    ] {
        let (_, world) = always(reply);
        let error = world.alarm_state(&region(), "slow").await.into_option().unwrap_err();
        assert_eq!(error.name(), name);
    }
}

// ---- RDS

#[tokio::test]
async fn instances_of_databases_are_read_with_what_replicates() {
    let instance = "<DBInstances><DBInstance><DBInstanceIdentifier>orders</DBInstanceIdentifier><DBInstanceArn>arn:orders\
        </DBInstanceArn><DBInstanceStatus>available</DBInstanceStatus><MultiAZ>true</MultiAZ>\
        <AvailabilityZone>us-west-2a</AvailabilityZone><SecondaryAvailabilityZone>us-west-2b</SecondaryAvailabilityZone>\
        <ReadReplicaDBInstanceIdentifiers><ReadReplicaDBInstanceIdentifier>orders-r</ReadReplicaDBInstanceIdentifier>\
        </ReadReplicaDBInstanceIdentifiers><ReadReplicaDBClusterIdentifiers><ReadReplicaDBClusterIdentifier>orders-c\
        </ReadReplicaDBClusterIdentifier></ReadReplicaDBClusterIdentifiers><TagList><Tag><Key>dr:chaos</Key>\
        <Value>allowed</Value></Tag></TagList></DBInstance></DBInstances>";
    let (wire, world) = always(rds_answer("DescribeDBInstances", instance));
    let facts = found(seen(&world, ResourceKind::DbInstance, "orders").await);
    assert_eq!((facts.arn.as_str(), facts.tags["dr:chaos"].as_str()), ("arn:orders", "allowed"));
    let database = Database {
        status: "available".to_owned(),
        standby: true,
        serves_from: Some("us-west-2a".to_owned()),
        cluster: None,
        replica_of: None,
        replicas: texts(&["orders-r", "orders-c"]),
    };
    assert_eq!(facts.state, State::Database(database));
    assert_eq!(
        parameters(&wire.sent()[0]),
        expected(&[("Action", "DescribeDBInstances"), ("DBInstanceIdentifier", "orders")])
    );

    let member = "<DBInstances><DBInstance><DBInstanceArn>arn:shop-1</DBInstanceArn><DBInstanceStatus>rebooting\
        </DBInstanceStatus><DBClusterIdentifier>shop</DBClusterIdentifier>\
        <ReadReplicaSourceDBInstanceIdentifier></ReadReplicaSourceDBInstanceIdentifier>\
        <ReadReplicaSourceDBClusterIdentifier>till</ReadReplicaSourceDBClusterIdentifier></DBInstance></DBInstances>";
    let (_, world) = always(rds_answer("DescribeDBInstances", member));
    let database = Database {
        status: "rebooting".to_owned(),
        cluster: Some("shop".to_owned()),
        replica_of: Some("till".to_owned()),
        ..Database::default()
    };
    assert_eq!(
        found(seen(&world, ResourceKind::DbInstance, "shop-1").await).state,
        State::Database(database)
    );
    let (_, world) = always(rds_answer("DescribeDBInstances", "<DBInstances><DBInstance/></DBInstances>"));
    assert_eq!(trouble(&seen(&world, ResourceKind::DbInstance, "shop-1").await), Err(ErrorName::AwsFault));
    let (wire, world) = always(Reply::Broken);
    assert_eq!(
        trouble(&seen(&world, ResourceKind::DbInstance, "no such").await),
        Err(ErrorName::InvalidInput)
    );
    assert!(wire.sent().is_empty());
}

#[tokio::test]
async fn clusters_are_read_with_who_writes() {
    let member = |id: &str, writer: bool| {
        format!(
            "<DBClusterMember><DBInstanceIdentifier>{id}</DBInstanceIdentifier><IsClusterWriter>{writer}</IsClusterWriter>\
             </DBClusterMember>"
        )
    };
    for (members, standby, serves_from) in [
        (member("shop-1", false) + &member("shop-2", true), true, Some("shop-2")),
        (member("shop-1", true), false, Some("shop-1")),
        (String::new(), false, None),
    ] {
        let cluster = format!(
            "<DBClusters><DBCluster><DBClusterIdentifier>shop</DBClusterIdentifier><DBClusterArn>arn:shop</DBClusterArn>\
             <Status>failing-over</Status><DBClusterMembers>{members}</DBClusterMembers><ReplicationSourceIdentifier>till\
             </ReplicationSourceIdentifier><ReadReplicaIdentifiers><ReadReplicaIdentifier>kiosk</ReadReplicaIdentifier>\
             </ReadReplicaIdentifiers></DBCluster></DBClusters>"
        );
        let (wire, world) = always(rds_answer("DescribeDBClusters", &cluster));
        let database = Database {
            status: "failing-over".to_owned(),
            standby,
            serves_from: serves_from.map(str::to_owned),
            cluster: None,
            replica_of: Some("till".to_owned()),
            replicas: texts(&["kiosk"]),
        };
        assert_eq!(
            found(seen(&world, ResourceKind::DbCluster, "shop").await).state,
            State::Database(database)
        );
        assert_eq!(
            parameters(&wire.sent()[0]),
            expected(&[("Action", "DescribeDBClusters"), ("DBClusterIdentifier", "shop")])
        );
    }
}

#[tokio::test]
async fn changes_to_databases_are_sent_exactly_so() {
    let (instance, cluster) = (ResourceKind::DbInstance, ResourceKind::DbCluster);
    for (kind, change, action, more) in [
        (
            instance,
            Change::RebootDbInstance { force_failover: true },
            "RebootDBInstance",
            vec![("ForceFailover", "true")],
        ),
        (
            instance,
            Change::RebootDbInstance { force_failover: false },
            "RebootDBInstance",
            vec![("ForceFailover", "false")],
        ),
        (instance, Change::StopDbInstance, "StopDBInstance", vec![]),
        (instance, Change::StartDbInstance, "StartDBInstance", vec![]),
        (cluster, Change::FailoverDbCluster { to: None }, "FailoverDBCluster", vec![]),
        (
            cluster,
            Change::FailoverDbCluster { to: Some("shop-1".to_owned()) },
            "FailoverDBCluster",
            vec![("TargetDBInstanceIdentifier", "shop-1")],
        ),
        (cluster, Change::StopDbCluster, "StopDBCluster", vec![]),
        (cluster, Change::StartDbCluster, "StartDBCluster", vec![]),
    ] {
        let (wire, world) = always(rds_answer(action, ""));
        world.make(&change, &one(kind, "shop")).await.unwrap();
        let name = if kind == instance { "DBInstanceIdentifier" } else { "DBClusterIdentifier" };
        let all = [vec![("Action", action), (name, "shop")], more].concat();
        let sent = wire.sent().remove(0);
        assert_eq!((parameters(&sent), sent.scope.as_str()), (expected(&all), "us-west-2/rds"));
    }
}

// ---- all at once

#[tokio::test]
async fn resources_of_all_kinds_are_seen_in_one_look_and_regions_are_the_callers() {
    let (wire, world) = answering(|sent| match sent.action.as_str() {
        "DescribeInstances" => instances(&instance("i-1", "")),
        "DescribeAutoScalingGroups" => Reply::query_error(403, "AccessDenied", "x"),
        "DescribeTargetHealth" => health_answer(""),
        "DescribeTags" => tags_answer(&arns_of(sent)),
        "DescribeDBInstances" => Reply::query_error(404, "DBInstanceNotFound", "x"),
        "DescribeDBClusters" => Reply::Late,
        _ => Reply::ok(json!({"FunctionArn": FUNCTION}).to_string()),
    });
    let wanted = BTreeSet::from([
        one(ResourceKind::DbInstance, "orders"),
        one(ResourceKind::DbCluster, "shop"),
        one(ResourceKind::Ec2Instance, "i-1"),
        one(ResourceKind::ScalingGroup, "web"),
        one(ResourceKind::TargetGroup, GROUP),
        one(ResourceKind::Function, "pay"),
        one(ResourceKind::Region, "us-west-2"),
    ]);
    let looks = world.look(&wanted).await;
    let outcomes: Vec<(ResourceKind, &str)> = looks
        .iter()
        .map(|(resource, look)| {
            let outcome = match look {
                Observed::Found(_) => "found",
                Observed::Missing => "missing",
                Observed::Unreachable(_) => "unreachable",
            };
            (resource.kind, outcome)
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            (ResourceKind::DbInstance, "missing"),
            (ResourceKind::DbCluster, "unreachable"),
            (ResourceKind::Ec2Instance, "found"),
            (ResourceKind::ScalingGroup, "unreachable"),
            (ResourceKind::TargetGroup, "found"),
            (ResourceKind::Function, "found"),
        ]
    );
    assert_eq!(wire.sent().len(), 9);
    let (wire, world) = always(Reply::Broken);
    assert!(world.look(&BTreeSet::new()).await.is_empty() && wire.sent().is_empty());
}

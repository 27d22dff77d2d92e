"""Roles are enforced by the tags and the ARNs of what they touch, in EC2, Auto Scaling, load balancing, Lambda and RDS."""

import itertools

import botocore.exceptions
import pytest
from conftest import until

HERE = "us-east-1:000000000000"
ALLOWED = {"StringEquals": {"aws:ResourceTag/dr:chaos": "allowed"}}
COUNTER = itertools.count(1)


def allow(action, *resources, **more):
    return {"Effect": "Allow", "Action": action, "Resource": list(resources) or ["*"], **more}


def where_tagged(action, *resources):
    return allow(action, *resources, Condition=ALLOWED)


def denied(call, **parameters) -> bool:
    """Whether the call is refused for want of permission; what else goes wrong is raised."""
    try:
        call(**parameters)
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
            return True
        raise
    return False


@pytest.fixture
def launch(cloud):
    def run(tagged: bool) -> str:
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "dr:chaos", "Value": "allowed"}]}] if tagged else []
        ec2 = cloud.client("ec2")
        [inst] = ec2.run_instances(ImageId="ami-0abcdef1234567890", MinCount=1, MaxCount=1,
                                   TagSpecifications=tags)["Instances"]

        def running():
            [reservation] = ec2.describe_instances(InstanceIds=[inst["InstanceId"]])["Reservations"]
            return reservation["Instances"][0]["State"]["Name"] == "running"
        until(running, "running")
        return inst["InstanceId"]
    return run


@pytest.mark.parametrize(("permission", "action"), [
    ("StopInstances", "stop_instances"), ("RebootInstances", "reboot_instances"),
    ("StartInstances", "start_instances"), ("TerminateInstances", "terminate_instances")])
def test_an_instance_is_touched_where_it_is_tagged(client_as, launch, permission, action):
    tagged, other = launch(True), launch(False)
    act = getattr(client_as("ec2", where_tagged(f"ec2:{permission}", f"arn:aws:ec2:{HERE}:instance/*")), action)
    assert denied(act, InstanceIds=[other])
    assert denied(act, InstanceIds=[tagged, other])
    assert not denied(act, InstanceIds=[tagged])


def test_a_tag_of_another_value_or_taken_away_does_not_allow(cloud, client_as, launch):
    name, ec2 = launch(True), cloud.client("ec2")
    act = client_as("ec2", where_tagged("ec2:RebootInstances")).reboot_instances
    ec2.create_tags(Resources=[name], Tags=[{"Key": "dr:chaos", "Value": "forbidden"}])
    assert denied(act, InstanceIds=[name])
    ec2.delete_tags(Resources=[name], Tags=[{"Key": "dr:chaos"}])
    assert denied(act, InstanceIds=[name])


def test_every_instance_of_a_call_has_to_be_allowed(client_as, launch):
    mine, other = launch(False), launch(False)
    act = client_as("ec2", allow("ec2:RebootInstances", f"arn:aws:ec2:{HERE}:instance/{mine}")).reboot_instances
    assert not denied(act, InstanceIds=[mine])
    assert denied(act, InstanceIds=[mine, other])


def test_security_groups_are_set_where_instance_and_groups_are_allowed(cloud, client_as, launch):
    tagged, other = launch(True), launch(False)
    groups = [cloud.client("ec2").create_security_group(GroupName="by-tags", Description="one")["GroupId"]]
    on_instance = where_tagged("ec2:ModifyInstanceAttribute", f"arn:aws:ec2:{HERE}:instance/*")
    act = client_as("ec2", on_instance, allow(
        "ec2:ModifyInstanceAttribute", f"arn:aws:ec2:{HERE}:security-group/*")).modify_instance_attribute
    assert denied(act, InstanceId=other, Groups=groups)
    assert not denied(act, InstanceId=tagged, Groups=groups)
    assert denied(client_as("ec2", on_instance).modify_instance_attribute, InstanceId=tagged, Groups=groups)


@pytest.fixture
def scaling_group(cloud):
    """Makes a group with one instance, tagged or not; returns its description."""
    scaling, made = cloud.client("autoscaling"), []

    def make(tagged: bool) -> dict:
        name = f"by-tags-{next(COUNTER)}"
        scaling.create_launch_configuration(LaunchConfigurationName=name, ImageId="ami-0abcdef1234567890",
                                            InstanceType="t3.micro")
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=name, LaunchConfigurationName=name, MinSize=1, MaxSize=2,
            AvailabilityZones=["us-east-1a"],
            Tags=[{"Key": "dr:chaos", "Value": "allowed", "PropagateAtLaunch": False}] if tagged else [])
        made.append(name)

        def full():
            [told] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
            return [each["LifecycleState"] for each in told["Instances"]] == ["InService"] and told
        return until(full, "full")
    yield make
    for name in made:
        scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)


@pytest.mark.parametrize(("permission", "action", "more"), [
    ("SuspendProcesses", "suspend_processes", {"ScalingProcesses": ["Launch"]}),
    ("ResumeProcesses", "resume_processes", {}),
    ("UpdateAutoScalingGroup", "update_auto_scaling_group", {"MinSize": 0})])
def test_a_scaling_group_is_touched_where_it_is_tagged(client_as, scaling_group, permission, action, more):
    tagged, other = scaling_group(True), scaling_group(False)
    act = getattr(client_as("autoscaling", where_tagged(f"autoscaling:{permission}")), action)
    assert denied(act, AutoScalingGroupName=other["AutoScalingGroupName"], **more)
    assert not denied(act, AutoScalingGroupName=tagged["AutoScalingGroupName"], **more)
    mine = getattr(client_as("autoscaling", allow(f"autoscaling:{permission}", other["AutoScalingGroupARN"])), action)
    assert denied(mine, AutoScalingGroupName=tagged["AutoScalingGroupName"], **more)
    assert not denied(mine, AutoScalingGroupName=other["AutoScalingGroupName"], **more)


def test_an_instance_is_terminated_where_its_scaling_group_is_tagged(client_as, scaling_group, launch):
    tagged, other = scaling_group(True), scaling_group(False)
    act = client_as("autoscaling", where_tagged(
        "autoscaling:TerminateInstanceInAutoScalingGroup")).terminate_instance_in_auto_scaling_group

    def end(name):
        return denied(act, InstanceId=name, ShouldDecrementDesiredCapacity=False)
    assert end(other["Instances"][0]["InstanceId"])
    assert end(launch(True))
    assert not end(tagged["Instances"][0]["InstanceId"])


def test_targets_are_registered_and_taken_out_where_their_group_is_tagged(cloud, client_as, launch):
    balancing, name = cloud.client("elbv2"), launch(False)
    arns = {tagged: balancing.create_target_group(
        Name=f"by-tags-{tagged}", Protocol="HTTP", Port=80, VpcId="vpc-00000001",
        Tags=[{"Key": "dr:chaos", "Value": "allowed"}] if tagged else [{"Key": "other", "Value": "1"}],
    )["TargetGroups"][0]["TargetGroupArn"] for tagged in (True, False)}
    client = client_as("elbv2", where_tagged(
        ["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"]))
    for act in (client.register_targets, client.deregister_targets):
        assert denied(act, TargetGroupArn=arns[False], Targets=[{"Id": name}])
        assert not denied(act, TargetGroupArn=arns[True], Targets=[{"Id": name}])


def test_what_describes_knows_no_resources(cloud, client_as, launch):
    name = launch(False)
    arn = cloud.client("elbv2").create_target_group(
        Name="described", Protocol="HTTP", Port=80, VpcId="vpc-00000001")["TargetGroups"][0]["TargetGroupArn"]
    calls = [
        ("ec2", "ec2:DescribeInstances", f"arn:aws:ec2:{HERE}:instance/{name}", "describe_instances",
         {"InstanceIds": [name]}),
        ("elbv2", "elasticloadbalancing:DescribeTargetHealth", arn, "describe_target_health", {"TargetGroupArn": arn}),
        ("elbv2", "elasticloadbalancing:DescribeTags", arn, "describe_tags", {"ResourceArns": [arn]}),
        ("autoscaling", "autoscaling:DescribeAutoScalingGroups",
         f"arn:aws:autoscaling:{HERE}:autoScalingGroup:*:autoScalingGroupName/g", "describe_auto_scaling_groups",
         {"AutoScalingGroupNames": ["g"]})]
    for service, permission, resource, action, parameters in calls:
        assert denied(getattr(client_as(service, allow(permission, resource)), action), **parameters), permission
        assert not denied(getattr(client_as(service, allow(permission)), action), **parameters), permission


def test_concurrency_is_read_set_and_released_by_three_permissions(cloud, client_as, echo):
    arn = f"arn:aws:lambda:{HERE}:function:{echo}"
    cloud.client("lambda").tag_resource(Resource=arn, Tags={"dr:chaos": "allowed"})
    calls = {"GetFunctionConcurrency": ("get_function_concurrency", {}),
             "PutFunctionConcurrency": ("put_function_concurrency", {"ReservedConcurrentExecutions": 5}),
             "DeleteFunctionConcurrency": ("delete_function_concurrency", {})}
    for permission in calls:
        client = client_as("lambda", where_tagged(f"lambda:{permission}", arn))
        for other, (action, parameters) in calls.items():
            assert denied(getattr(client, action), FunctionName=echo, **parameters) == (other != permission)


def test_a_function_is_throttled_where_it_is_tagged(cloud, client_as, function):
    name = function([])
    act = client_as("lambda", where_tagged("lambda:PutFunctionConcurrency")).put_function_concurrency
    assert denied(act, FunctionName=name, ReservedConcurrentExecutions=0)
    cloud.client("lambda").tag_resource(Resource=f"arn:aws:lambda:{HERE}:function:{name}", Tags={"dr:chaos": "allowed"})
    assert not denied(act, FunctionName=name, ReservedConcurrentExecutions=0)


@pytest.mark.parametrize(("permission", "action", "kind", "parameter"), [
    ("RebootDBInstance", "reboot_db_instance", "db", "DBInstanceIdentifier"),
    ("StopDBInstance", "stop_db_instance", "db", "DBInstanceIdentifier"),
    ("StartDBInstance", "start_db_instance", "db", "DBInstanceIdentifier"),
    ("FailoverDBCluster", "failover_db_cluster", "cluster", "DBClusterIdentifier"),
    ("StopDBCluster", "stop_db_cluster", "cluster", "DBClusterIdentifier"),
    ("StartDBCluster", "start_db_cluster", "cluster", "DBClusterIdentifier")])
def test_a_database_is_touched_where_it_is_tagged(client_as, rds, permission, action, kind, parameter):
    rds.answer = f"<{permission}Response><{permission}Result/></{permission}Response>"
    rds.tags = {f"arn:aws:rds:{HERE}:{kind}:mine": {"dr:chaos": "allowed"},
                f"arn:aws:rds:{HERE}:{kind}:other": {"dr:chaos": "forbidden"}}
    act = getattr(client_as("rds", where_tagged(f"rds:{permission}", f"arn:aws:rds:{HERE}:{kind}:*")), action)
    assert not denied(act, **{parameter: "mine"})
    assert denied(act, **{parameter: "other"})
    assert denied(act, **{parameter: "absent"})
    assert len(rds.requests) == 1


def test_alarms_are_described_where_they_are_allowed(cloud, client_as):
    cloud.client("cloudwatch").put_metric_alarm(
        AlarmName="described", Namespace="x", MetricName="m", Period=60, EvaluationPeriods=1, Threshold=1,
        Statistic="Sum", ComparisonOperator="GreaterThanThreshold")
    assert denied(client_as("cloudwatch", allow("cloudwatch:DescribeAlarms", f"arn:aws:cloudwatch:{HERE}:alarm:other"))
                  .describe_alarms)
    act = client_as("cloudwatch", allow("cloudwatch:DescribeAlarms", f"arn:aws:cloudwatch:{HERE}:alarm:*")).describe_alarms
    assert not denied(act, AlarmNames=["described"])

"""Targets of load balancers: what can be registered, and what is said of their health."""

import itertools

import botocore.exceptions
import pytest
from conftest import until

COUNTER = itertools.count(1)


@pytest.fixture
def balancing(cloud):
    return cloud.client("elbv2")


@pytest.fixture
def target_group(balancing):
    """Makes a target group, which a load balancer uses unless told otherwise; returns its ARN."""
    def make(used: bool = True, subnets=("subnet-00000001", "subnet-00000002"), delay: int = 300, **options) -> str:
        name = f"targets-{next(COUNTER)}"
        arn = balancing.create_target_group(**{"Name": name, "Protocol": "HTTP", "Port": 80, "VpcId": "vpc-00000001",
                                               **options})["TargetGroups"][0]["TargetGroupArn"]
        balancing.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[
            {"Key": "deregistration_delay.timeout_seconds", "Value": str(delay)}])
        if used:
            balancer = balancing.create_load_balancer(Name=name, Subnets=list(subnets))["LoadBalancers"][0]
            balancing.create_listener(LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80,
                                      DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}])
        return arn
    return make


@pytest.fixture
def launch(cloud):
    def run(zone: str = "us-east-1a") -> str:
        ec2 = cloud.client("ec2")
        [inst] = ec2.run_instances(ImageId="ami-0abcdef1234567890", MinCount=1, MaxCount=1,
                                   Placement={"AvailabilityZone": zone})["Instances"]
        until(lambda: running(ec2, inst["InstanceId"]) == "running", "running")
        return inst["InstanceId"]
    return run


def running(ec2, name: str) -> str:
    return ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0]["State"]["Name"]


def health(balancing, arn: str, *asked: dict) -> dict:
    """(id, port) -> state, or state and reason where there is one."""
    told = balancing.describe_target_health(TargetGroupArn=arn, **({"Targets": list(asked)} if asked else {}))
    return {(each["Target"]["Id"], each["Target"].get("Port")):
            "/".join(filter(None, (each["TargetHealth"]["State"], each["TargetHealth"].get("Reason"))))
            for each in told["TargetHealthDescriptions"]}


def code(call, **parameters) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(**parameters)
    return raised.value.response["Error"]["Code"]


def test_a_registered_instance_becomes_healthy(balancing, target_group, launch):
    arn, name = target_group(), launch()
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    assert health(balancing, arn) == {(name, 80): "initial/Elb.RegistrationInProgress"}
    until(lambda: health(balancing, arn) == {(name, 80): "healthy"}, "healthy")


def test_a_target_of_a_group_that_nothing_uses_is_unused(balancing, target_group, launch):
    arn, name = target_group(used=False), launch()
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    assert health(balancing, arn) == {(name, 80): "unused/Target.NotInUse"}
    balancing.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    assert health(balancing, arn) == {}


def test_a_target_in_a_zone_that_is_not_enabled_is_unused(balancing, target_group, launch):
    arn, name = target_group(), launch("us-east-1c")
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    assert health(balancing, arn) == {(name, 80): "unused/Target.NotInUse"}


def test_a_stopped_instance_is_unused_and_healthy_again_after_its_start(cloud, balancing, target_group, launch):
    arn, name, ec2 = target_group(), launch(), cloud.client("ec2")
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    ec2.stop_instances(InstanceIds=[name])
    assert health(balancing, arn) == {(name, 80): "unused/Target.InvalidState"}
    until(lambda: running(ec2, name) == "stopped", "stopped")
    ec2.start_instances(InstanceIds=[name])
    until(lambda: health(balancing, arn) == {(name, 80): "healthy"}, "healthy")


def test_a_target_that_is_taken_out_drains_and_then_is_gone(balancing, target_group, launch):
    arn, name = target_group(delay=1), launch()
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    balancing.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    assert health(balancing, arn) == {(name, 80): "draining/Target.DeregistrationInProgress"}
    until(lambda: health(balancing, arn) == {}, "gone")
    assert health(balancing, arn, {"Id": name}) == {(name, 80): "unused/Target.NotRegistered"}


def test_a_draining_target_can_be_registered_again(balancing, target_group, launch):
    arn, name = target_group(), launch()
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    balancing.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    until(lambda: health(balancing, arn) == {(name, 80): "healthy"}, "healthy")


def test_a_target_is_an_id_and_a_port(balancing, target_group, launch):
    arn, name = target_group(used=False), launch()
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}, {"Id": name, "Port": 81}])
    assert set(health(balancing, arn)) == {(name, 80), (name, 81)}
    balancing.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    assert set(health(balancing, arn)) == {(name, 81)}
    balancing.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": "i-0123456789abcdef0"}])


def test_what_does_not_run_is_refused(cloud, balancing, target_group, launch):
    arn, name = target_group(), launch()
    cloud.client("ec2").stop_instances(InstanceIds=[name])
    assert code(balancing.register_targets, TargetGroupArn=arn, Targets=[{"Id": name}]) == "InvalidTarget"
    absent = {"Id": "i-0123456789abcdef0"}
    assert code(balancing.register_targets, TargetGroupArn=arn, Targets=[absent]) == "InvalidTarget"


def test_a_terminated_instance_leaves_its_group(cloud, balancing, target_group, launch):
    arn, name = target_group(used=False), launch()
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    cloud.client("ec2").terminate_instances(InstanceIds=[name])
    until(lambda: health(balancing, arn) == {}, "gone")


def test_a_zone_is_told_of_addresses_and_not_of_instances(balancing, target_group, launch):
    arn, name = target_group(), launch()
    balancing.register_targets(TargetGroupArn=arn, Targets=[{"Id": name}])
    zoned = {"Id": name, "AvailabilityZone": "us-east-1a"}
    assert code(balancing.register_targets, TargetGroupArn=arn, Targets=[zoned]) == "ValidationError"
    [told] = balancing.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    assert "AvailabilityZone" not in told["Target"]
    addresses = target_group(TargetType="ip")
    balancing.register_targets(TargetGroupArn=addresses, Targets=[{"Id": "172.31.16.9"}])
    [told] = balancing.describe_target_health(TargetGroupArn=addresses)["TargetHealthDescriptions"]
    assert told["Target"] == {"Id": "172.31.16.9", "Port": 80, "AvailabilityZone": "us-east-1b"}


@pytest.mark.parametrize("action", ["register_targets", "deregister_targets", "describe_target_health"])
def test_a_group_that_is_not_there_is_not_found(balancing, target_group, action):
    absent = target_group(used=False)[:-4] + "0000"
    assert code(getattr(balancing, action), TargetGroupArn=absent, Targets=[{"Id": "i-0123456789abcdef0"}]) == (
        "TargetGroupNotFound")


def test_instances_of_a_scaling_group_come_and_go_with_it(cloud, balancing, target_group):
    arn, scaling = target_group(), cloud.client("autoscaling")
    scaling.create_launch_configuration(LaunchConfigurationName="with-targets", ImageId="ami-0abcdef1234567890",
                                        InstanceType="t3.micro")
    scaling.create_auto_scaling_group(
        AutoScalingGroupName="with-targets", LaunchConfigurationName="with-targets", MinSize=0, MaxSize=2,
        DesiredCapacity=2, AvailabilityZones=["us-east-1a", "us-east-1b"], TargetGroupARNs=[arn])
    until(lambda: sorted(health(balancing, arn).values()) == ["healthy"] * 2, "two healthy targets")
    [group] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["with-targets"])["AutoScalingGroups"]
    assert group["TargetGroupARNs"] == [arn]
    scaling.update_auto_scaling_group(AutoScalingGroupName="with-targets", DesiredCapacity=1)
    until(lambda: sorted(health(balancing, arn).values()) == ["draining/Target.DeregistrationInProgress", "healthy"],
          "one of them draining")
    scaling.delete_auto_scaling_group(AutoScalingGroupName="with-targets", ForceDelete=True)

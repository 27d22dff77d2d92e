"""Auto Scaling groups keep their capacity with real instances of EC2."""

import itertools

import botocore.exceptions
import pytest
from conftest import until

COUNTER = itertools.count(1)


@pytest.fixture
def scaling(cloud):
    return cloud.client("autoscaling")


@pytest.fixture
def group(cloud, scaling):
    """Makes a group, waits until it is full, returns its name."""
    made = []

    def make(desired: int = 2, least: int = 1, most: int = 4, zones=("us-east-1a", "us-east-1b"), **options) -> str:
        name = f"group-{next(COUNTER)}"
        scaling.create_launch_configuration(LaunchConfigurationName=name, ImageId="ami-0abcdef1234567890",
                                            InstanceType="t3.micro")
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=name, LaunchConfigurationName=name, MinSize=least, MaxSize=most, DesiredCapacity=desired,
            AvailabilityZones=list(zones),
            Tags=[{"Key": "dr:chaos", "Value": "allowed", "PropagateAtLaunch": True},
                  {"Key": "inner", "Value": "1", "PropagateAtLaunch": False}], **options)
        made.append(name)
        full(scaling, name)
        return name
    yield make
    for name in made:
        scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)


def described(scaling, name: str) -> dict:
    [told] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return told


def in_service(scaling, name: str) -> set[str]:
    return {member["InstanceId"] for member in described(scaling, name)["Instances"]
            if (member["LifecycleState"], member["HealthStatus"]) == ("InService", "Healthy")}


def full(scaling, name: str) -> set[str]:
    def there():
        found = in_service(scaling, name)
        return len(found) == described(scaling, name)["DesiredCapacity"] and found
    return until(there, f"{name} full")


def instance(cloud, name: str) -> dict:
    [reservation] = cloud.client("ec2").describe_instances(InstanceIds=[name])["Reservations"]
    return reservation["Instances"][0]


def error(call, **parameters) -> tuple[str, str]:
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(**parameters)
    return raised.value.response["Error"]["Code"], raised.value.response["Error"]["Message"]


def test_a_group_launches_instances_in_its_zones_with_its_tags(cloud, scaling, group):
    name = group(desired=4)
    told = [instance(cloud, each) for each in full(scaling, name)]
    assert sorted(each["Placement"]["AvailabilityZone"] for each in told) == ["us-east-1a"] * 2 + ["us-east-1b"] * 2
    for each in told:
        assert {tag["Key"]: tag["Value"] for tag in each["Tags"]} == {
            "dr:chaos": "allowed", "aws:autoscaling:groupName": name}


@pytest.mark.parametrize("action", ["stop_instances", "terminate_instances"])
def test_an_instance_that_does_not_run_is_replaced_after_a_gap(cloud, scaling, group, action):
    name = group(desired=2)
    before = full(scaling, name)
    lost = min(before)
    getattr(cloud.client("ec2"), action)(InstanceIds=[lost])
    until(lambda: len(in_service(scaling, name)) == 1, "the gap")
    after = full(scaling, name)
    assert before - after == {lost}
    until(lambda: instance(cloud, lost)["State"]["Name"] == "terminated", "its end")
    assert len(described(scaling, name)["Instances"]) == 2


def test_an_instance_can_be_terminated_through_its_group_only_once(cloud, scaling, group):
    name = group(desired=2)
    before = full(scaling, name)
    lost = min(before)
    end = {"InstanceId": lost, "ShouldDecrementDesiredCapacity": False}
    activity = scaling.terminate_instance_in_auto_scaling_group(**end)["Activity"]
    assert (activity["AutoScalingGroupName"], activity["StatusCode"]) == (name, "InProgress")
    assert in_service(scaling, name) == before - {lost}
    assert error(scaling.terminate_instance_in_auto_scaling_group, **end)[0] in (
        "ScalingActivityInProgress", "ValidationError")
    after = full(scaling, name)
    assert (described(scaling, name)["DesiredCapacity"], before - after) == (2, {lost})


def test_the_capacity_may_go_down_with_a_terminated_instance_but_not_below_the_least(scaling, group):
    name = group(desired=2, least=1)
    first, second = full(scaling, name)
    end = {"InstanceId": first, "ShouldDecrementDesiredCapacity": True}
    scaling.terminate_instance_in_auto_scaling_group(**end)
    until(lambda: len(described(scaling, name)["Instances"]) == 1, "one left")
    assert in_service(scaling, name) == {second}
    assert error(scaling.terminate_instance_in_auto_scaling_group, **{**end, "InstanceId": second})[0] == "ValidationError"


def test_an_instance_of_no_group_is_refused(cloud, scaling):
    [inst] = cloud.client("ec2").run_instances(ImageId="ami-0abcdef1234567890", MinCount=1, MaxCount=1)["Instances"]
    code, message = error(scaling.terminate_instance_in_auto_scaling_group, InstanceId=inst["InstanceId"],
                          ShouldDecrementDesiredCapacity=False)
    assert code == "ValidationError"
    assert "No managed instance found" in message


def test_nothing_is_launched_while_that_is_suspended(cloud, scaling, group):
    name = group(desired=2)
    scaling.suspend_processes(AutoScalingGroupName=name, ScalingProcesses=["Launch"])
    [suspended] = described(scaling, name)["SuspendedProcesses"]
    assert suspended["ProcessName"] == "Launch"
    lost = min(full(scaling, name))
    cloud.client("ec2").terminate_instances(InstanceIds=[lost])
    until(lambda: len(described(scaling, name)["Instances"]) == 1, "its leaving")
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, DesiredCapacity=3)
    until(lambda: instance(cloud, lost)["State"]["Name"] == "terminated", "its end")
    assert len(described(scaling, name)["Instances"]) == 1
    scaling.resume_processes(AutoScalingGroupName=name, ScalingProcesses=["Launch"])
    assert described(scaling, name)["SuspendedProcesses"] == []
    assert len(full(scaling, name)) == 3


def test_a_stopped_instance_stays_while_its_replacement_is_suspended_and_never_gets_well(cloud, scaling, group):
    name = group(desired=1)
    scaling.suspend_processes(AutoScalingGroupName=name, ScalingProcesses=["ReplaceUnhealthy"])
    [only] = full(scaling, name)
    ec2 = cloud.client("ec2")
    ec2.stop_instances(InstanceIds=[only])
    until(lambda: described(scaling, name)["Instances"][0]["HealthStatus"] == "Unhealthy", "it was noticed")
    ec2.start_instances(InstanceIds=[only])
    until(lambda: instance(cloud, only)["State"]["Name"] == "running", "running")
    assert described(scaling, name)["Instances"][0]["HealthStatus"] == "Unhealthy"
    scaling.resume_processes(AutoScalingGroupName=name)
    assert full(scaling, name) != {only}


def test_a_stopped_instance_is_not_noticed_while_health_checks_are_suspended(cloud, scaling, group):
    name = group(desired=1)
    scaling.suspend_processes(AutoScalingGroupName=name, ScalingProcesses=["HealthCheck"])
    [only] = full(scaling, name)
    ec2 = cloud.client("ec2")
    ec2.stop_instances(InstanceIds=[only])
    until(lambda: instance(cloud, only)["State"]["Name"] == "stopped", "stopped")
    ec2.start_instances(InstanceIds=[only])
    until(lambda: instance(cloud, only)["State"]["Name"] == "running", "running")
    scaling.resume_processes(AutoScalingGroupName=name, ScalingProcesses=["HealthCheck"])
    assert full(scaling, name) == {only}


def test_all_processes_are_suspended_unless_some_are_named(scaling, group):
    name = group(desired=1)
    scaling.suspend_processes(AutoScalingGroupName=name)
    assert {each["ProcessName"] for each in described(scaling, name)["SuspendedProcesses"]} == {
        "Launch", "Terminate", "AddToLoadBalancer", "AlarmNotification", "AZRebalance", "HealthCheck", "InstanceRefresh",
        "ReplaceUnhealthy", "ScheduledActions"}
    assert error(scaling.suspend_processes, AutoScalingGroupName=name, ScalingProcesses=["Nap"])[0] == "ValidationError"


def test_a_lower_capacity_terminates_and_keeps_the_zones_even(cloud, scaling, group):
    name = group(desired=4)
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, DesiredCapacity=2)
    until(lambda: len(described(scaling, name)["Instances"]) == 2, "two left")
    zones = {each["AvailabilityZone"] for each in described(scaling, name)["Instances"]}
    assert zones == {"us-east-1a", "us-east-1b"}


def test_bounds_move_the_capacity_and_a_capacity_outside_is_refused(scaling, group):
    name = group(desired=2, least=1, most=4)
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=3)
    assert described(scaling, name)["DesiredCapacity"] == 3
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=0, MaxSize=1)
    assert described(scaling, name)["DesiredCapacity"] == 1
    assert error(scaling.update_auto_scaling_group, AutoScalingGroupName=name, DesiredCapacity=2)[0] == "ValidationError"
    assert error(scaling.update_auto_scaling_group, AutoScalingGroupName=name, MinSize=2)[0] == "ValidationError"
    scaling.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=0, DesiredCapacity=0)
    until(lambda: described(scaling, name)["Instances"] == [], "nothing left")


@pytest.mark.parametrize("action", ["suspend_processes", "resume_processes", "update_auto_scaling_group"])
def test_a_group_that_is_not_there_is_refused(scaling, action):
    assert error(getattr(scaling, action), AutoScalingGroupName="absent")[0] == "ValidationError"


def test_a_group_with_instances_is_deleted_by_force_only(cloud, scaling, group):
    name = group(desired=1)
    [only] = full(scaling, name)
    assert error(scaling.delete_auto_scaling_group, AutoScalingGroupName=name)[0] == "ResourceInUse"


def test_an_instance_says_which_group_it_is_in(scaling, group):
    name = group(desired=1)
    [only] = full(scaling, name)
    [told] = scaling.describe_auto_scaling_instances(InstanceIds=[only])["AutoScalingInstances"]
    assert (told["AutoScalingGroupName"], told["LifecycleState"]) == (name, "InService")
